/** Two pictures over each other, with a slider between them, and how far they are apart. */

import { button, element } from "./dom.mjs"
import { addressOf } from "./results_find.mjs"
import { apartText, runsText } from "./results_words.mjs"
import { mount } from "./widgets_panel.mjs"
import { t } from "./words.mjs"

/**
 * @import { LGraphNode } from "../../../scripts/app.js"
 * @import { Apart, File, Side } from "./results_words.mjs"
 *
 * @typedef {Apart & { a: File, b: File }} Pair
 * @typedef {{ width: number, height: number, a: Side, b: Side, pairs: Pair[] }} Compared
 */

/** The least height of the view in the node, in pixels. */
const HEIGHT = 340

/** How far a key moves the slider, in percent; with the shift key, and without. */
const STEPS = { far: 10, near: 1 }

export class Comparison {
  #root = element("div", { className: "sd3local-compare" })
  /** @type {Compared | null} */
  #compared = null
  #index = 0
  #position = 50
  /** @type {HTMLElement | null} */
  #frame = null
  /** @type {HTMLElement | null} */
  #handle = null

  /** @type {LGraphNode} */
  #node

  /** @param {LGraphNode} node */
  constructor(node) {
    this.#node = node
    this.#root.dataset.panel = "sd3local.compare"
    const options = {
      serialize: false,
      hideOnZoom: false,
      getValue: () => "",
      setValue: () => {},
      getMinHeight: () => HEIGHT
    }
    const widget = node.addDOMWidget("sd3local.compare", "sd3local_compare", this.#root, options)
    widget.serialize = false
    this.#draw()
  }

  /** @param {Compared} compared */
  show(compared) {
    this.#compared = compared
    this.#index = Math.min(this.#index, compared.pairs.length - 1)
    this.#draw()
    mount(this.#node, this.#root)
  }

  #draw() {
    const compared = this.#compared
    if (compared === null) {
      this.#root.replaceChildren(
        element("p", { className: "hint", textContent: t("A run shows both pictures here, over each other.") })
      )
      return
    }
    const { a, b, pairs } = compared
    this.#root.replaceChildren(
      element(
        "div",
        { className: "line" },
        element("b", { textContent: a.label }),
        ...(pairs.length > 1 ? [this.#pages(pairs.length)] : []),
        element("b", { textContent: b.label })
      ),
      this.#stage(compared),
      element("p", { textContent: apartText(pairs[this.#index]) }),
      ...runsText(a, b).map((textContent) => element("p", { className: "hint", textContent }))
    )
    this.#move(this.#position)
  }

  /** @param {number} count */
  #pages(count) {
    /**
     * @param {string} text
     * @param {string} label
     * @param {number} by
     */
    const turn = (text, label, by) => {
      const made = button(text, () => this.#turn((this.#index + by + count) % count, label))
      made.ariaLabel = label
      made.addEventListener("pointerdown", (event) => event.stopPropagation())
      return made
    }
    const number = element("span", { textContent: `${this.#index + 1} / ${count}`, ariaLive: "polite" })
    return element(
      "span",
      { className: "pages" },
      turn("‹", t("earlier pair"), -1),
      number,
      turn("›", t("next pair"), 1)
    )
  }

  /**
   * @param {number} index
   * @param {string} label of the button that was pressed, which keeps the keyboard's focus
   */
  #turn(index, label) {
    this.#index = index
    this.#draw()
    const made = [...this.#root.querySelectorAll("button")].find((each) => each.ariaLabel === label)
    made?.focus()
  }

  /** @param {Compared} compared */
  #stage({ width, height, a, b, pairs }) {
    const pair = pairs[this.#index]
    const pictures = [
      element("img", { className: "a", src: addressOf(pair.a), alt: a.label, draggable: false }),
      element("img", { className: "b", src: addressOf(pair.b), alt: b.label, draggable: false })
    ]
    const handle = element("div", { className: "handle", tabIndex: 0, role: "slider" })
    handle.ariaLabel = t("where {a} ends and {b} begins", { a: a.label, b: b.label })
    handle.ariaValueMin = "0"
    handle.ariaValueMax = "100"
    handle.addEventListener("keydown", (event) => this.#press(event))
    const frame = element("div", { className: "frame" }, ...pictures, handle)
    frame.style.setProperty("--ratio", String(width / height))
    for (const picture of pictures) {
      picture.addEventListener("error", () => {
        const told = t("The pictures are not there any more: run the graph again.")
        frame.replaceWith(element("p", { className: "hint", textContent: told }))
      })
    }
    // In Nodes 2.0 a press would drag the node.
    frame.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return
      event.stopPropagation()
      event.preventDefault()
      frame.setPointerCapture(event.pointerId)
      handle.focus({ preventScroll: true })
      this.#follow(event)
    })
    frame.addEventListener("pointermove", (event) => {
      if (frame.hasPointerCapture(event.pointerId)) this.#follow(event)
    })
    this.#frame = frame
    this.#handle = handle
    return element("div", { className: "stage" }, frame)
  }

  /** @param {PointerEvent} event */
  #follow(event) {
    if (this.#frame === null) return
    const { left, width } = this.#frame.getBoundingClientRect()
    this.#move((100 * (event.clientX - left)) / width)
  }

  /** @param {KeyboardEvent} event */
  #press(event) {
    const by = event.shiftKey ? STEPS.far : STEPS.near
    const at = this.#position
    /** @type {Record<string, number>} */
    const keys = { ArrowLeft: at - by, ArrowDown: at - by, ArrowRight: at + by, ArrowUp: at + by, Home: 0, End: 100 }
    if (!(event.key in keys)) return
    // The editor would move nodes by these keys.
    event.stopPropagation()
    event.preventDefault()
    this.#move(keys[event.key])
  }

  /** @param {number} position in percent of the width */
  #move(position) {
    this.#position = Math.min(Math.max(position, 0), 100)
    this.#frame?.style.setProperty("--at", `${this.#position}%`)
    if (this.#handle !== null) this.#handle.ariaValueNow = String(Math.round(this.#position))
  }
}
