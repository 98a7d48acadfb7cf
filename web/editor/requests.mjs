/** API requests in and out of the editor. */

import { build, sources } from "./build.mjs"
import { app } from "./comfy.mjs"
import { button, dialog, element, open } from "./dom.mjs"
import { dataUri } from "./pictures.mjs"
import { importPresets } from "./preset_actions.mjs"
import { FORMAT } from "./preset_store.mjs"
import { Refused, call, messages, parsed } from "./server.mjs"
import { attempt, showList, toast } from "./tell.mjs"
import { t } from "./words.mjs"

/**
 * Opens the graphs of requests in a new workflow. Throws Refused with all that is wrong with them; then nothing was
 * opened.
 * @param {unknown} given a request, an array of them, or what the API's page shows: {"request": …}
 */
export async function openRequests(given) {
  const { tasks } = await call("/graph", { body: given })
  const wrong = tasks.flatMap((/** @type {any} */ task, /** @type {number} */ index) =>
    (task.errors ?? []).map((/** @type {{ message: string }} */ error) =>
      tasks.length > 1 ? t("Request {number}: {error}", { number: index + 1, error: error.message }) : error.message
    )
  )
  if (wrong.length) throw new Refused(wrong)
  await app.extensionManager.command.execute("Comfy.NewBlankWorkflow")
  build(tasks)
  // The places of nodes are known once they were drawn.
  await new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))
  await app.extensionManager.command.execute("Comfy.Canvas.FitView")
  const remarks = tasks.flatMap((/** @type {any} */ task) => task.remarks)
  if (remarks.length) showList(t("Imported, with remarks"), remarks)
}

/** Copies the request, or the requests, that the open graph stands for. */
export async function copyRequests() {
  const { output } = await app.graphToPrompt()
  const { tasks } = await call("/request", { body: { prompt: output, sources: sources() } })
  const wrong = tasks.flatMap((/** @type {any} */ task) =>
    (task.errors ?? []).map((/** @type {{ message: string }} */ error) => error.message)
  )
  if (wrong.length) {
    showList(t("The graph is no API request"), wrong)
    return
  }
  const requests = tasks.map((/** @type {any} */ task) => task.request)
  await navigator.clipboard.writeText(JSON.stringify(requests.length > 1 ? requests : requests[0], null, 2))
  const many = t("{count} API requests are copied.", { count: requests.length })
  toast("success", requests.length > 1 ? many : t("The API request is copied."))
}

/** The dialog that takes a request as text, as a file, or out of a picture. */
export function importDialog() {
  const text = element("textarea", {
    rows: 14,
    spellcheck: false,
    ariaLabel: t("API request"),
    className: "sd3local-code"
  })
  text.placeholder = t("Paste one request, or an array of them, or drop a JSON file or a picture here.")
  const errors = element("ul", { role: "alert", className: "sd3local-remarks" })
  const file = element("input", { type: "file", accept: ".json,image/png,image/jpeg,image/webp", hidden: true })
  const made = dialog(t("Import API request"), element("div", { className: "sd3local-beside" }, text, errors), file)
  made.classList.add("sd3local-wide")
  /** @param {() => Promise<void>} work */
  const shown = async (work) => {
    errors.replaceChildren()
    try {
      await work()
    } catch (error) {
      errors.append(...messages(error).map((line) => element("li", { textContent: line })))
    }
  }
  /** @param {File | null | undefined} given */
  const take = (given) =>
    shown(async () => {
      if (!given) return
      text.value = isPicture(given) ? JSON.stringify(await requestIn(given), null, 2) : await given.text()
    })
  const load = button(
    t("Import"),
    () =>
      void shown(async () => {
        load.disabled = true
        try {
          await openRequests(parsed(text.value))
          made.close()
        } finally {
          load.disabled = false
        }
      }),
    "apart"
  )
  file.onchange = () => void take(file.files?.[0])
  made.addEventListener("dragover", (event) => event.preventDefault())
  made.addEventListener("drop", (event) => {
    event.preventDefault()
    event.stopPropagation()
    void take(event.dataTransfer?.files[0])
  })
  made.append(
    element(
      "footer",
      {},
      button(t("Choose a file"), () => file.click()),
      load,
      button(t("Cancel"), () => made.close())
    )
  )
  open(made)
  text.focus()
}

/** @param {File} file */
function isPicture(file) {
  return file.type.startsWith("image/")
}

/**
 * @param {File} file a picture
 * @returns {Promise<Record<string, any>>} what it tells of how it was made
 */
async function told(file) {
  return call("/pictures/told", { body: { image: await dataUri(file) } })
}

/**
 * @param {File} file
 * @returns {Promise<unknown>}
 */
async function requestIn(file) {
  const { request } = await told(file)
  if (!request) throw new Refused([t("{name} tells of no API request.", { name: file.name })])
  return request
}

/**
 * Opens a dropped file: a preset, requests, or a picture in JPG, of which ComfyUI itself reads no workflow. Everything
 * else is ComfyUI's.
 * @param {File} file
 */
async function openFile(file) {
  if (isPicture(file)) {
    const { workflow, prompt, request } = await told(file).catch(() => /** @type {Record<string, any>} */ ({}))
    if (workflow) await app.loadGraphData(workflow, true, true, file.name.replace(/\.\w+$/, ""))
    else if (request) await openRequests(request)
    else if (prompt) await app.loadApiJson(prompt, file.name)
    else await app.handleFile(file)
    return
  }
  const given = await file
    .text()
    .then(JSON.parse)
    .catch(() => null)
  const first = Array.isArray(given) ? given[0] : given
  if (first?.format === FORMAT) await importPresets(given)
  else if ((first?.request ?? first)?.taskType) await openRequests(given)
  else await app.handleFile(file)
}

/**
 * Whether a dropped file is looked into here: JSON, or a JPG beside all nodes, which take pictures themselves.
 * @param {DragEvent} event
 * @param {File} file
 */
function isMeant(event, file) {
  if (file.name.toLowerCase().endsWith(".json")) return true
  if (file.type !== "image/jpeg" || !(event.target instanceof Element)) return false
  if (event.target.closest("[data-node-id]")) return false
  const [x, y] = app.canvas.convertEventToCanvasOffset(event)
  return !app.canvas.graph?.getNodeOnPos(x, y)
}

/** @type {import("../../../scripts/app.js").ComfyExtension} */
export const requests = {
  name: "sd3local.requests",
  commands: [
    {
      id: "sd3local.importRequest",
      label: "Import API request",
      icon: "pi pi-file-import",
      function: () => importDialog()
    },
    {
      id: "sd3local.copyRequest",
      label: "Copy as API request",
      icon: "pi pi-copy",
      function: () => attempt(t("The graph is no API request"), copyRequests)
    }
  ],
  menuCommands: [{ path: ["SD3 Local"], commands: ["sd3local.importRequest", "sd3local.copyRequest"] }],
  setup() {
    // Before ComfyUI's own listener, which takes every JSON file for a workflow.
    window.addEventListener(
      "drop",
      (event) => {
        const [file, ...others] = event.dataTransfer?.files ?? []
        if (!file || others.length || document.querySelector("dialog[open]") || !isMeant(event, file)) return
        event.preventDefault()
        event.stopImmediatePropagation()
        void attempt(file.name, () => openFile(file))
      },
      true
    )
  }
}
