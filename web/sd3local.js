/**
 * The table of models in ComfyUI's settings: which file here each name of the hosted API means.
 *
 * @typedef {"model" | "lora" | "controlNet" | "ipAdapters"} Kind what a name is asked for
 * @typedef {Partial<Record<Kind, Record<string, string>>>} Table kind -> identifier -> file
 * @typedef {Partial<Record<Kind, string[]>>} Files kind -> the files that there are
 * @typedef {{ kind: HTMLSelectElement, identifier: HTMLInputElement, file: HTMLSelectElement }} Row
 */

import { app } from "../../scripts/app.js"

const ROUTE = "/sd3local/models"

/** @type {Record<Kind, string>} */
const KINDS = { model: "Model", lora: "LoRA", controlNet: "ControlNet", ipAdapters: "IP-Adapter" }

const STYLE = `
.sd3local-models { width: min(54rem, 94vw); max-height: 86vh; padding: 1.25rem; border: 1px solid var(--border-color);
  border-radius: .5rem; background: var(--comfy-menu-bg); color: var(--input-text); font: .875rem/1.4 sans-serif;
  margin: auto; box-shadow: 0 .5rem 2rem rgb(0 0 0 / .5); }
.sd3local-models::backdrop { background: rgb(0 0 0 / .5); }
.sd3local-models h2 { margin: 0 0 .5rem; font-size: 1.125rem; font-weight: 600; }
.sd3local-models p { margin: 0 0 1rem; color: var(--descrip-text); }
.sd3local-models table { width: 100%; border-collapse: collapse; table-layout: fixed; }
.sd3local-models th { text-align: left; font-weight: 600; }
.sd3local-models th:first-child { width: 9rem; }
.sd3local-models th:last-child { width: 6rem; }
.sd3local-models td:last-child { padding-right: 0; text-align: right; }
.sd3local-models th, .sd3local-models td { padding: .2rem .4rem .2rem 0; }
.sd3local-models input, .sd3local-models select { width: 100%; box-sizing: border-box; padding: .35rem .5rem;
  border: 1px solid var(--border-color); border-radius: .25rem; background: var(--comfy-input-bg);
  color: var(--input-text); font: inherit; }
.sd3local-models [role="alert"] { margin: .75rem 0 0; color: var(--error-text); white-space: pre-line;
  overflow-wrap: anywhere; }
.sd3local-models footer { display: flex; gap: .5rem; margin-top: 1rem; }
.sd3local-models footer .apart { margin-left: auto; }
.sd3local-button { padding: .35rem .8rem; border: 1px solid var(--border-color); border-radius: .25rem;
  background: var(--comfy-input-bg); color: var(--input-text); font: inherit; cursor: pointer; }
.sd3local-button:hover { filter: brightness(1.2); }
.sd3local-button:disabled { opacity: .5; cursor: default; }
`

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Partial<HTMLElementTagNameMap[Tag]>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties)
  made.append(...children)
  return made
}

/**
 * @param {string} text
 * @param {() => void} onclick
 * @param {string} [className]
 */
function button(text, onclick, className = "") {
  return element("button", { type: "button", textContent: text, onclick, className: `sd3local-button ${className}` })
}

/**
 * What the server answered, in words: null when all is well.
 * @param {Response} response
 * @returns {Promise<string | null>}
 */
async function complaint(response) {
  if (response.ok) return null
  const told = await response.json().catch(() => null)
  const messages = told?.errors?.map((/** @type {{ message: string }} */ error) => error.message)
  return messages?.join("\n") ?? `The server answered ${response.status} ${response.statusText}.`
}

/** The open dialog with the table. */
class ModelsDialog {
  /** @type {Files} */
  #files = {}
  /** @type {Row[]} */
  #rows = []
  #body = element("tbody")
  #alert = element("div", { role: "alert" })
  #add = button("Add", () => this.#addRow("model", "", "").identifier.focus())
  #save = button("Save", () => this.#saveTable(), "apart")
  #dialog = element(
    "dialog",
    { className: "sd3local-models" },
    element("style", { textContent: STYLE }),
    element("h2", { textContent: "Names of models" }),
    element("p", {
      textContent:
        "What a request to the endpoint calls a model, and the file here that it means. A file's own name needs no row."
    }),
    element(
      "table",
      {},
      element("thead", {}, element("tr", {}, ...["Kind", "Identifier", "File", ""].map((text) => element("th", {}, text)))),
      this.#body
    ),
    this.#alert,
    element("footer", {}, this.#add, this.#save, button("Cancel", () => this.#dialog.close()))
  )

  /**
   * Opens the dialog; it goes when it is closed.
   * @param {HTMLElement} parent inside of the settings, for which a click beside them is the end
   */
  async open(parent) {
    this.#dialog.addEventListener("close", () => this.#dialog.remove())
    // Neither the editor's shortcuts nor the settings' own Escape are meant while this is open.
    this.#dialog.addEventListener("keydown", (event) => event.stopPropagation())
    parent.append(this.#dialog)
    this.#dialog.showModal()
    this.#add.disabled = this.#save.disabled = true
    await this.#tell(async () => {
      const response = await app.api.fetchApi(ROUTE, { cache: "no-store" })
      const told = await complaint(response)
      if (told !== null) return told
      /** @type {{ table: Table, files: Files }} */
      const { table, files } = await response.json()
      this.#files = files
      for (const kind of /** @type {Kind[]} */ (Object.keys(KINDS))) {
        for (const [identifier, file] of Object.entries(table[kind] ?? {})) this.#addRow(kind, identifier, file)
      }
      this.#add.disabled = this.#save.disabled = false
      return null
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
      kind: element("select", { ariaLabel: "Kind" }, ...kinds),
      identifier: element("input", { ariaLabel: "Identifier", value: identifier, placeholder: "runware:5@1" }),
      file: element("select", { ariaLabel: "File" })
    }
    row.kind.value = kind
    row.kind.onchange = () => this.#offerFiles(row, "")
    this.#offerFiles(row, file)
    const line = element("tr", {}, ...[row.kind, row.identifier, row.file].map((cell) => element("td", {}, cell)))
    const remove = button("Remove", () => {
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
      options.unshift(element("option", { value: chosen, textContent: chosen ? `${chosen} (missing)` : "" }))
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
          return `${KINDS[kind]} has ${JSON.stringify(identifier)} twice; one name means one file.`
        }
        if (!identifier || !row.file.value) return "Each row needs an identifier and a file."
        entries[kind].push([identifier, row.file.value])
      }
      const table = Object.fromEntries(Object.entries(entries).map(([kind, of]) => [kind, Object.fromEntries(of)]))
      const response = await app.api.fetchApi(ROUTE, {
        method: "PUT",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify(table)
      })
      const told = await complaint(response)
      if (told === null) this.#dialog.close()
      return told
    })
    this.#save.disabled = false
  }

  /**
   * Does something with the server, and shows what came of it where that went wrong.
   * @param {() => Promise<string | null>} work
   */
  async #tell(work) {
    this.#alert.textContent = ""
    try {
      this.#alert.textContent = await work()
    } catch (error) {
      this.#alert.textContent = `The server does not answer: ${error instanceof Error ? error.message : error}`
    }
  }
}

app.registerExtension({
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
        place.append(
          element("style", { textContent: STYLE }),
          button("Edit", () => void new ModelsDialog().open(place))
        )
        return place
      }
    }
  ]
})
