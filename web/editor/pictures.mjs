/** SD3 Picture shows the picture that it names, and takes one from the user's files. */

import { app } from "./comfy.mjs"
import { button, element } from "./dom.mjs"
import { setValue } from "./graph.mjs"
import { call } from "./server.mjs"
import { attempt } from "./tell.mjs"
import { kindOf, onChange, widgetOf } from "./widgets_node.mjs"
import { Panel } from "./widgets_panel.mjs"
import { t } from "./words.mjs"

/** @import { Node } from "./widgets_node.mjs" */

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i

/**
 * @param {Blob} file
 * @returns {Promise<string>} its bytes as data URI
 */
export function dataUri(file) {
  const reader = new FileReader()
  return new Promise((resolve, reject) => {
    reader.onload = () => resolve(String(reader.result))
    reader.onerror = () => reject(reader.error)
    reader.readAsDataURL(file)
  })
}

/**
 * @param {string} picture
 * @returns {string} where a browser finds it; nothing for what a browser can't show
 */
function addressOf(picture) {
  if (UUID.test(picture)) return app.api.apiURL(`/sd3local/images/${picture}`)
  return picture.startsWith("data:image/") ? picture : ""
}

/** @param {Node} node */
function show(node) {
  const panel = new Panel(node)
  const place = panel.section("sd3local-shown")
  const file = element("input", { type: "file", accept: "image/png,image/jpeg,image/webp", hidden: true })
  const choose = button(t("Choose a picture"), () => file.click())
  file.onchange = () => {
    const [chosen] = file.files ?? []
    if (chosen) void attempt(t("Choose a picture"), () => take(node, chosen))
    file.value = ""
  }
  let shown = /** @type {string | null} */ (null)
  const look = () => {
    const picture = String(widgetOf(node, "picture")?.value ?? "").trim()
    if (picture === shown) return
    shown = picture
    const image = element("img", { alt: "", src: addressOf(picture) })
    image.onerror = () => {
      image.replaceWith(
        element("p", { className: "problem", textContent: t("There is no such picture, or none any more.") })
      )
      panel.fit()
    }
    place.replaceChildren(...(image.getAttribute("src") ? [image] : []), choose, file)
    panel.fit()
  }
  onChange(node, look)
  // A workflow that is being opened gives its values only now.
  setTimeout(look)
}

/**
 * Has the server keep a file, which the node then names.
 * @param {Node} node
 * @param {File} file
 */
async function take(node, file) {
  const { uuid } = await call("/pictures", { body: { image: await dataUri(file) } })
  const widget = widgetOf(node, "picture")
  if (widget) setValue(node, widget, uuid)
}

/** @type {import("../../../scripts/app.js").ComfyExtension} */
export const pictures = {
  name: "sd3local.pictures",
  nodeCreated(node) {
    if (kindOf(node) === "SD3LocalPicture") show(node)
  }
}
