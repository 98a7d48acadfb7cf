/** The sampler's choice of sizes, and what to expect of any other. */

import { element } from "./dom.mjs"
import { asOneStep } from "./graph.mjs"
import { NANO, NANO_SIZES, SD3_SIZES, advice, nameOf, plainName } from "./sizes.mjs"
import { linkedInputs, sourceOf, widgetOf } from "./widgets_node.mjs"
import { setValues } from "./widgets_values.mjs"
import { t } from "./words.mjs"

/** @import { Node } from "./widgets_node.mjs" */
/** @import { Panel } from "./widgets_panel.mjs" */

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
      if (width && height) asOneStep(() => setValues(this.#node, { width, height }))
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
        ...sizes.map((size) => element("option", { value: `${size.width}x${size.height}`, textContent: nameOf(size) }))
      )
    )
    this.#select.replaceChildren(...made)
    this.#select.value = `${width}x${height}`
    if (this.#select.selectedIndex < 0) {
      const textContent = plainName({ width, height })
      this.#select.prepend(element("option", { value: "", textContent, selected: true }))
    }
  }
}
