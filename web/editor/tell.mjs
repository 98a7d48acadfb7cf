/** News for the user, in ComfyUI's own form. */

import { app } from "./comfy.mjs"
import { button, dialog, element, open } from "./dom.mjs"
import { messages } from "./server.mjs"
import { t } from "./words.mjs"

/**
 * A short message in the corner.
 * @param {"success" | "info" | "warning" | "error"} kind
 * @param {string} title
 * @param {string} [text]
 */
export function toast(kind, title, text = "") {
  const { toast } = app.extensionManager
  // Newer frontends have a method a kind, and deprecate the one for all.
  if (toast[kind]) toast[kind](title, { description: text })
  else toast.add({ severity: kind === "warning" ? "warn" : kind, summary: title, detail: text, life: 5000 })
}

/**
 * Does something, and tells what went wrong.
 * @param {string} title of what it says then
 * @param {() => unknown} work
 */
export async function attempt(title, work) {
  try {
    await work()
  } catch (error) {
    toast("error", title, messages(error).join("\n"))
  }
}

/**
 * Shows a list that is too long for a corner.
 * @param {string} title
 * @param {string[]} lines
 */
export function showList(title, lines) {
  const items = lines.map((line) => element("li", { textContent: line }))
  const made = dialog(title, element("ul", { className: "sd3local-remarks" }, ...items))
  made.append(
    element(
      "footer",
      {},
      button(t("Close"), () => made.close(), "apart")
    )
  )
  open(made)
}

/**
 * Asks for a text on one line.
 * @param {string} title
 * @param {string} value
 * @returns {Promise<string | null>} null where the user gives none
 */
export function ask(title, value) {
  return new Promise((resolve) => {
    const input = element("input", { value, ariaLabel: title, maxLength: 80 })
    const form = element("form", { method: "dialog" }, input)
    const made = dialog(title, form)
    let given = /** @type {string | null} */ (null)
    const save = () => {
      given = input.value.trim() || null
      made.close()
    }
    form.onsubmit = save
    made.append(
      element(
        "footer",
        {},
        button(t("OK"), save, "apart"),
        button(t("Cancel"), () => made.close())
      )
    )
    made.addEventListener("close", () => resolve(given))
    open(made)
    input.select()
  })
}

/**
 * @param {string} title
 * @param {string} text
 * @param {string} yes what the button says that does it
 * @returns {Promise<boolean>}
 */
export function confirm(title, text, yes) {
  return new Promise((resolve) => {
    const made = dialog(title, element("p", { textContent: text }))
    let given = false
    const accept = () => {
      given = true
      made.close()
    }
    made.append(
      element(
        "footer",
        {},
        button(yes, accept, "apart"),
        button(t("Cancel"), () => made.close())
      )
    )
    made.addEventListener("close", () => resolve(given))
    open(made)
  })
}
