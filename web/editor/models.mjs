/**
 * The table of models: which file here each name of the hosted API means.
 *
 * @typedef {"model" | "lora" | "controlNet" | "ipAdapters"} Kind what a name is asked for
 * @typedef {Partial<Record<Kind, Record<string, string>>>} Table kind -> identifier -> file
 * @typedef {Partial<Record<Kind, string[]>>} Files kind -> the files that there are
 * @typedef {{ kind: HTMLSelectElement, identifier: HTMLInputElement, file: HTMLSelectElement }} Row
 */

import { button, dialog, element, open } from "./dom.mjs"
import { Refused, call, messages } from "./server.mjs"
import { t } from "./words.mjs"

/** @type {Record<Kind, string>} */
export const KINDS = { model: "Model", lora: "LoRA", controlNet: "ControlNet", ipAdapters: "IP-Adapter" }

/** The open dialog with the table. */
export class ModelsDialog {
  /** @type {Files} */
  #files = {}
  /** @type {Row[]} */
  #rows = []
  #body = element("tbody")
  #alert = element("div", { role: "alert" })
  #add = button(t("Add"), () => this.#addRow("model", "", "").identifier.focus())
  #save = button(t("Save"), () => this.#saveTable(), "apart")
  #dialog = dialog(
    t("Names of models"),
    element("p", {
      textContent: t(
        "What a request to the endpoint calls a model, and the file here that it means. A file's own name needs no row."
      )
    }),
    element(
      "table",
      {},
      element(
        "thead",
        {},
        element("tr", {}, ...[t("Kind"), t("Identifier"), t("File"), ""].map((text) => element("th", {}, text)))
      ),
      this.#body
    ),
    this.#alert,
    element(
      "footer",
      {},
      this.#add,
      this.#save,
      button(t("Cancel"), () => this.#dialog.close())
    )
  )

  /**
   * Opens the dialog; it goes when it is closed.
   * @param {HTMLElement} parent inside of the settings, for which a click beside them is the end
   */
  async open(parent) {
    this.#dialog.classList.add("sd3local-models")
    open(this.#dialog, parent)
    this.#add.disabled = this.#save.disabled = true
    await this.#tell(async () => {
      /** @type {{ table: Table, files: Files }} */
      const { table, files } = await call("/models")
      this.#files = files
      for (const kind of /** @type {Kind[]} */ (Object.keys(KINDS))) {
        for (const [identifier, file] of Object.entries(table[kind] ?? {})) this.#addRow(kind, identifier, file)
      }
      this.#add.disabled = this.#save.disabled = false
    })
  }

  /**
   * @param {Kind} kind
   * @param {string} identifier
   * @param {string} file
   * @returns {Row}
   */
  #addRow(kind, identifier, file) {
    const kinds = Object.entries(KINDS).map(([value, text]) => element("option", { value, textContent: text }))
    /** @type {Row} */
    const row = {
      kind: element("select", { ariaLabel: t("Kind") }, ...kinds),
      identifier: element("input", { ariaLabel: t("Identifier"), value: identifier, placeholder: "runware:5@1" }),
      file: element("select", { ariaLabel: t("File") })
    }
    row.kind.value = kind
    row.kind.onchange = () => this.#offerFiles(row, "")
    this.#offerFiles(row, file)
    const line = element("tr", {}, ...[row.kind, row.identifier, row.file].map((cell) => element("td", {}, cell)))
    const remove = button(t("Remove"), () => {
      line.remove()
      this.#rows.splice(this.#rows.indexOf(row), 1)
      // Else the focus, and with it the next key, would leave the dialog.
      this.#add.focus()
    })
    line.append(element("td", {}, remove))
    this.#body.append(line)
    this.#rows.push(row)
    return row
  }

  /**
   * Offers what there is of the row's kind. A file of the table that is gone stays, so that it can be seen.
   * @param {Row} row
   * @param {string} chosen
   */
  #offerFiles(row, chosen) {
    const files = this.#files[/** @type {Kind} */ (row.kind.value)] ?? []
    const options = files.map((file) => element("option", { value: file, textContent: file }))
    if (!files.includes(chosen)) {
      options.unshift(
        element("option", { value: chosen, textContent: chosen && t("{file} (missing)", { file: chosen }) })
      )
    }
    row.file.replaceChildren(...options)
    row.file.value = chosen
  }

  async #saveTable() {
    this.#save.disabled = true
    await this.#tell(async () => {
      /** @type {Record<Kind, [string, string][]>} */
      const entries = { model: [], lora: [], controlNet: [], ipAdapters: [] }
      for (const row of this.#rows) {
        const kind = /** @type {Kind} */ (row.kind.value)
        const identifier = row.identifier.value.trim()
        // In the table, which is an object, the second one would silently take the place of the first.
        if (entries[kind].some(([earlier]) => earlier === identifier)) {
          const name = JSON.stringify(identifier)
          throw new Refused([t("{kind} has {name} twice; one name means one file.", { kind: KINDS[kind], name })])
        }
        if (!identifier || !row.file.value) throw new Refused([t("Each row needs an identifier and a file.")])
        entries[kind].push([identifier, row.file.value])
      }
      const table = Object.fromEntries(Object.entries(entries).map(([kind, of]) => [kind, Object.fromEntries(of)]))
      await call("/models", { method: "PUT", body: table })
      this.#dialog.close()
    })
    this.#save.disabled = false
  }

  /**
   * Does something with the server, and shows what came of it where that went wrong.
   * @param {() => Promise<void>} work
   */
  async #tell(work) {
    this.#alert.textContent = ""
    try {
      await work()
    } catch (error) {
      this.#alert.textContent = messages(error).join("\n")
    }
  }
}

/** The button in ComfyUI's settings that opens the table. */
export const models = {
  name: "sd3local.models",
  settings: [
    {
      id: "sd3local.models",
      name: "Names of models",
      tooltip: "Which file each name of the hosted API, such as runware:5@1, means here",
      category: ["SD3 Local", "Endpoint", "Names of models"],
      defaultValue: null,
      type: () => {
        const place = element("span")
        place.append(button(t("Edit"), () => void new ModelsDialog().open(place)))
        return place
      }
    }
  ]
}
