/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Partial<HTMLElementTagNameMap[Tag]>} [properties]
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties)
  made.append(...children)
  return made
}

/**
 * @param {string} text
 * @param {() => void} onclick
 * @param {string} [className]
 */
export function button(text, onclick, className = "") {
  return element("button", { type: "button", textContent: text, onclick, className: `sd3local-button ${className}` })
}

/**
 * A modal dialog on top of all, which goes when it is closed. Keys that are pressed in it are its own: they are no
 * shortcuts of the editor.
 * @param {string} title
 * @param {...(Node | string)} children
 */
export function dialog(title, ...children) {
  const made = element("dialog", { className: "sd3local-dialog" }, element("h2", { textContent: title }), ...children)
  made.addEventListener("close", () => made.remove())
  made.addEventListener("keydown", (event) => event.stopPropagation())
  return made
}

/**
 * Opens a dialog.
 * @param {HTMLDialogElement} made
 * @param {HTMLElement} [parent] for a dialog inside of something that a click beside it would close
 */
export function open(made, parent = document.body) {
  parent.append(made)
  made.showModal()
}

/** Lets the pack's own styles apply. */
export function useStyles() {
  const href = new URL("./styles.css", import.meta.url).href
  if (!document.querySelector(`link[href="${href}"]`))
    document.head.append(element("link", { rel: "stylesheet", href }))
}

/**
 * Offers the user a file.
 * @param {string} name
 * @param {string} text
 */
export function download(name, text) {
  const href = URL.createObjectURL(new Blob([text], { type: "application/json" }))
  element("a", { href, download: name }).click()
  setTimeout(() => URL.revokeObjectURL(href), 10_000)
}
