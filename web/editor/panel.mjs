/** The sidebar panel: presets, requests, models, calibrations and the endpoint. */

import { app } from "./comfy.mjs"
import { button, element } from "./dom.mjs"
import { KINDS, ModelsDialog } from "./models.mjs"
import { apply, copyText, duplicate, exportFile, importPresets, meant, rename, save } from "./preset_actions.mjs"
import { changed, list, remove } from "./preset_store.mjs"
import { copyRequests, importDialog } from "./requests.mjs"
import { call, messages, parsed } from "./server.mjs"
import { attempt, confirm, showList, toast } from "./tell.mjs"
import { t } from "./words.mjs"

/** @typedef {import("./preset_store.mjs").Kept} Kept */

/** The panel, from when the user opens it until it is closed. */
class Panel {
  #search = element("input", { type: "search", placeholder: t("Search presets"), ariaLabel: t("Search presets") })
  #presets = element("div", { className: "sd3local-presets" })
  #state = element("div")
  #refresh = () => void this.#showPresets()
  /** @type {Kept[]} */
  #known = []

  /** @param {HTMLElement} place */
  show(place) {
    const file = element("input", { type: "file", accept: ".json", multiple: true, hidden: true })
    file.onchange = () => void this.#take(file.files)
    const presets = section(
      t("Presets"),
      this.#search,
      element(
        "div",
        { className: "sd3local-row" },
        button(t("Save selected nodes"), () => save(meant())),
        button(t("Import a file"), () => file.click()),
        button(
          t("Paste"),
          () => void attempt(t("Presets"), async () => importPresets(parsed(await navigator.clipboard.readText())))
        ),
        file
      ),
      this.#presets
    )
    presets.addEventListener("dragover", (event) => event.preventDefault())
    presets.addEventListener("drop", (event) => {
      event.preventDefault()
      event.stopPropagation()
      void this.#take(event.dataTransfer?.files ?? null)
    })
    const requests = section(
      t("API requests"),
      element(
        "div",
        { className: "sd3local-row" },
        button(t("Import API request"), importDialog),
        button(t("Copy as API request"), () => void attempt(t("The graph is no API request"), copyRequests))
      )
    )
    // The editor's shortcuts are not meant by who types in here.
    this.#search.addEventListener("keydown", (event) => event.stopPropagation())
    this.#search.oninput = () => this.#list()
    place.replaceChildren(element("div", { className: "sd3local-side" }, presets, requests, this.#state))
    changed.addEventListener("change", this.#refresh)
    this.#refresh()
    void this.#showState()
  }

  hide() {
    changed.removeEventListener("change", this.#refresh)
  }

  /** @param {FileList | null} files */
  async #take(files) {
    for (const file of files ?? []) await attempt(file.name, async () => importPresets(parsed(await file.text())))
  }

  async #showPresets() {
    try {
      this.#known = await list()
      this.#list()
    } catch (error) {
      this.#presets.replaceChildren(element("p", { textContent: messages(error).join("\n"), role: "alert" }))
    }
  }

  /** Lists what fits the search. */
  #list() {
    const wanted = this.#search.value.trim().toLowerCase()
    const fitting = this.#known.filter(({ preset: { name, description = "", nodes } }) =>
      [name, description, ...nodes.map((one) => one.node)].some((text) => text.toLowerCase().includes(wanted))
    )
    this.#presets.replaceChildren(
      ...(fitting.length ? fitting.map(card) : [element("p", { textContent: t("No preset has this in it.") })])
    )
  }

  async #showState() {
    try {
      const { models, calibrations, endpoint } = await call("/state")
      this.#state.replaceChildren(modelsSection(models), calibrationSection(calibrations), endpointSection(endpoint))
    } catch (error) {
      this.#state.replaceChildren(element("p", { textContent: messages(error).join("\n"), role: "alert" }))
    }
  }
}

/**
 * @param {string} title
 * @param {...(Node | string)} children
 */
function section(title, ...children) {
  return element("section", {}, element("h3", { textContent: title }), ...children)
}

/**
 * One preset in the list.
 * @param {Kept} kept
 */
function card(kept) {
  const { preset, file, problems } = kept
  const picture = preset.thumbnail
    ? element("img", { src: preset.thumbnail, alt: "" })
    : element("span", { className: "sd3local-letter", textContent: [...preset.name][0] ?? "" })
  const about = element(
    "div",
    { className: "sd3local-about" },
    element("b", { textContent: preset.name }),
    element("small", { textContent: preset.description ?? "" })
  )
  if (problems.length) {
    about.append(
      button(
        t("{count} problems", { count: problems.length }),
        () => showList(preset.name, problems),
        "sd3local-warning"
      )
    )
  }
  const use = button(t("Apply"), () => apply(kept))
  use.disabled = !preset.nodes.length
  /** @type {[string, string, () => unknown][]} */
  const actions = [
    ["pi-clone", t("Duplicate"), () => duplicate(kept)],
    ["pi-download", t("Export as file"), () => exportFile(kept)],
    ["pi-copy", t("Copy as text"), () => copyText(kept)]
  ]
  if (file !== null) {
    actions.unshift(["pi-pencil", t("Rename"), () => rename(kept)])
    actions.push(["pi-trash", t("Delete"), () => discard(preset.name, file)])
  }
  const more = actions.map(([icon, name, work]) => {
    const made = button("", () => void attempt(preset.name, work))
    made.append(element("i", { className: `pi ${icon}` }))
    made.title = made.ariaLabel = name
    return made
  })
  return element(
    "article",
    { className: "sd3local-card", ariaLabel: preset.name },
    picture,
    about,
    element("div", { className: "sd3local-actions" }, use, ...more)
  )
}

/**
 * @param {string} name
 * @param {string} file
 */
async function discard(name, file) {
  const sure = await confirm(t("Delete the preset?"), t("{name} is gone then.", { name }), t("Delete"))
  if (sure) await remove(file)
}

/** @param {Record<string, { file: string, name: string }[]>} models */
function modelsSection(models) {
  const made = section(t("Models"))
  for (const [kind, title] of Object.entries(KINDS)) {
    const rows = (models[kind] ?? []).map(({ file, name }) =>
      element(
        "li",
        {},
        element("span", { textContent: file }),
        name === file ? "" : element("code", { textContent: name })
      )
    )
    made.append(
      element(
        "details",
        { open: rows.length < 6 },
        element("summary", { textContent: `${title} (${rows.length})` }),
        element("ul", {}, ...rows)
      )
    )
  }
  const place = element("div", { className: "sd3local-row" })
  place.append(button(t("Names of models"), () => void new ModelsDialog().open(place)))
  made.append(place)
  return made
}

/** @param {{ model: string, dtype: string, shipped: boolean }[]} calibrations */
function calibrationSection(calibrations) {
  const rows = calibrations.map(({ model, dtype, shipped }) =>
    element(
      "li",
      {},
      element("span", { textContent: model }),
      element("code", { textContent: `${dtype}${shipped ? "" : ` · ${t("yours")}`}` })
    )
  )
  const hint = t("Accelerators know these models; for others they take defaults until SD3 Calibrate was run.")
  return section(t("Accelerator calibration"), element("ul", {}, ...rows), element("p", { textContent: hint }))
}

/** @param {{ path: string, publicURL: string, exposed: boolean, hasKeys: boolean }} endpoint */
function endpointSection({ path, publicURL, exposed, hasKeys }) {
  const url =
    (publicURL ||
      app.api
        .apiURL("")
        .replace(/^(?!https?:)/, location.origin)
        .replace(/\/api\/?$/, "")) + path
  const copy = button(
    t("Copy"),
    () =>
      void attempt(t("Endpoint"), async () => {
        await navigator.clipboard.writeText(url)
        toast("success", t("The endpoint's address is copied."))
      })
  )
  const reach = exposed
    ? hasKeys
      ? t("It takes requests with an API key, from other machines too.")
      : t("It takes no requests yet: ComfyUI listens to other machines, so an API key must be made first.")
    : hasKeys
      ? t("It takes requests of this machine, with an API key.")
      : t("It takes requests of this machine, without an API key.")
  return section(
    t("Endpoint"),
    element(
      "div",
      { className: "sd3local-row" },
      element("code", { textContent: url, className: "sd3local-url" }),
      copy
    ),
    element("p", { textContent: reach })
  )
}

/** @type {Panel | null} */
let panel = null

/** @type {import("../../../scripts/app.js").ComfyExtension} */
export const sidebar = {
  name: "sd3local.panel",
  setup() {
    app.extensionManager.registerSidebarTab({
      id: "sd3local",
      icon: "pi pi-palette",
      title: "SD3 Local",
      tooltip: "SD3 Local",
      type: "custom",
      render: (place) => {
        panel?.hide()
        panel = new Panel()
        panel.show(place)
      },
      destroy: () => panel?.hide()
    })
  }
}
