/** Sizes that the model paints well, to choose from, and what to expect of any other. */

import { element } from "./dom.mjs"
import { linkedInputs, setValues, sourceOf, widgetOf } from "./widgets_node.mjs"
import { t } from "./words.mjs"

/** @import { Node } from "./widgets_node.mjs" */
/** @import { Panel } from "./widgets_panel.mjs" */

/** @typedef {{ ratio: string, width: number, height: number }} Size */

/** About a megapixel, in multiples of 64, as in SD3's training. */
const LYING = [
  { ratio: "1:1", width: 1024, height: 1024 },
  { ratio: "4:3", width: 1152, height: 896 },
  { ratio: "3:2", width: 1216, height: 832 },
  { ratio: "16:9", width: 1344, height: 768 },
  { ratio: "21:9", width: 1536, height: 640 }
]

/** @param {Size} size */
function upright({ ratio, width, height }) {
  return { ratio: ratio.split(":").reverse().join(":"), width: height, height: width }
}

/** @type {Size[]} */
export const SD3_SIZES = [...LYING, ...LYING.slice(1).map(upright)]

/** @type {Size[]} */
export const NANO_SIZES = [128, 192, 256].map((side) => ({ ratio: "1:1", width: side, height: side }))

export const NANO = "sd3-nano"

/**
 * @param {number} width
 * @param {number} height
 */
export function megapixels(width, height) {
  return ((width * height) / 1e6).toFixed(2)
}

/**
 * @param {Size} size
 */
export function nameOf({ ratio, width, height }) {
  return `${ratio} · ${width} x ${height} · ${t("{count} MP", { count: megapixels(width, height) })}`
}

/**
 * What a model is not made for in a size; nothing where it is.
 * @param {number} width
 * @param {number} height
 * @param {string} [model] its name, where it is known
 * @returns {string}
 */
export function advice(width, height, model) {
  if (model === NANO) {
    const good = [width, height].every((side) => side >= 96 && side <= 256)
    return good ? "" : t("sd3-nano paints best with sides of 96 to 256.")
  }
  const area = (width * height) / 1e6
  if (area < 0.6 || area > 1.6) {
    return t("{count} MP: SD3 paints best near 1 MP.", { count: megapixels(width, height) })
  }
  return width % 64 || height % 64 ? t("SD3 paints best where both sides are multiples of 64.") : ""
}

export class SizePicker {
  #node
  #panel
  #select = element("select", { title: t("Sets width and height"), ariaLabel: t("Size") })
  #hint = element("div")
  #shown = ""

  /**
   * @param {Node} node
   * @param {Panel} panel
   */
  constructor(node, panel) {
    this.#node = node
    this.#panel = panel
    const line = element("label", { className: "line" }, element("span", {}, t("size")), this.#select)
    panel.section("sd3local-size").append(line, this.#hint)
    this.#select.onchange = () => {
      const [width, height] = this.#select.value.split("x").map(Number)
      if (width && height) setValues(this.#node, { width, height })
    }
    this.look()
  }

  look() {
    const [width, height] = ["width", "height"].map((name) => Number(widgetOf(this.#node, name)?.value))
    const linked = linkedInputs(this.#node)
    const known = !["width", "height"].some((name) => linked.includes(name))
    const model = sourceOf(this.#node, "model")
    const name = model && widgetOf(model, "model")?.value
    const now = JSON.stringify([width, height, known, name])
    if (now === this.#shown) return
    this.#shown = now
    this.#offer(width, height, name === NANO)
    this.#select.disabled = !known
    const advised = known ? advice(width, height, name ?? undefined) : ""
    this.#hint.replaceChildren(...(advised ? [element("p", { className: "hint over", textContent: advised })] : []))
    this.#panel.fit()
  }

  /**
   * @param {number} width
   * @param {number} height
   * @param {boolean} nano whether the model is the pack's own
   */
  #offer(width, height, nano) {
    const groups = [
      { label: "SD3", sizes: SD3_SIZES },
      { label: NANO, sizes: NANO_SIZES }
    ]
    if (nano) groups.reverse()
    const made = groups.map(({ label, sizes }) =>
      element(
        "optgroup",
        { label },
        ...sizes.map((size) =>
          element("option", { value: `${size.width}x${size.height}`, textContent: nameOf(size) })
        )
      )
    )
    this.#select.replaceChildren(...made)
    this.#select.value = `${width}x${height}`
    if (this.#select.selectedIndex < 0) {
      const textContent = `${width} x ${height} · ${t("{count} MP", { count: megapixels(width, height) })}`
      this.#select.prepend(element("option", { value: "", textContent, selected: true }))
    }
  }
}
