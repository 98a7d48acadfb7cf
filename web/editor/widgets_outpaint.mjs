/** The seed image in its new frame, with a handle on each side that says how far it grows there. */

import { app } from "./comfy.mjs"
import { button, element } from "./dom.mjs"
import { asOneStep } from "./graph.mjs"
import { linkedInputs, sourceOf, widgetOf } from "./widgets_node.mjs"
import { setValues } from "./widgets_values.mjs"
import { t } from "./words.mjs"

/** @import { Node } from "./widgets_node.mjs" */
/** @import { Panel } from "./widgets_panel.mjs" */

/** @typedef {"top" | "right" | "bottom" | "left"} Side */

/** @type {Side[]} */
export const SIDES = ["top", "right", "bottom", "left"]

/** What a handle moves by, in pixels. */
export const STEP = 64

/** The frame's room in the node, in pixels. */
const ROOM = { width: 240, height: 150 }

/** The size of a picture that is not known yet. */
const ASSUMED = { width: 1024, height: 1024 }

/**
 * @param {Side} side
 * @returns {string}
 */
function nameOf(side) {
  return { top: t("top"), right: t("right"), bottom: t("bottom"), left: t("left") }[side]
}

/**
 * Where ComfyUI has the file that a widget names as "folder/name.png [type]".
 * @param {string} file
 */
export function addressOf(file) {
  const [, path, type] = /** @type {RegExpMatchArray} */ (file.match(/^(.*?)(?: \[(\w+)\])?$/s))
  const slash = path.lastIndexOf("/")
  const place = { filename: path.slice(slash + 1), subfolder: path.slice(0, Math.max(0, slash)), type: type ?? "input" }
  return new URLSearchParams(place).toString()
}

/**
 * The nearest step to a number of pixels; none is below 0.
 * @param {number} pixels
 */
export function stepped(pixels) {
  return Math.max(0, Math.round(pixels / STEP) * STEP)
}

/**
 * @param {{ width: number, height: number }} picture
 * @param {Record<Side, number>} margins
 */
export function grown({ width, height }, { top, right, bottom, left }) {
  return { width: width + left + right, height: height + top + bottom }
}

/**
 * The sampler that a node's first output goes to.
 * @param {Node} node
 * @returns {Node | undefined}
 */
function samplerOf(node) {
  if (!node.graph) return undefined
  return (node.getOutputNodes(0) ?? []).find((one) => one.type === "SD3LocalSampler")
}

/**
 * The node that the seed image comes from.
 * @param {Node | undefined} sampler
 */
function seedSource(sampler) {
  const inputs = sampler && sourceOf(sampler, "inputs")
  return inputs && sourceOf(inputs, "seedImage")
}

export class OutpaintFrame {
  #node
  #panel
  #picture = element("div", { className: "picture" })
  #frame = element("div", { className: "frame" }, this.#picture)
  #text = element("span", { className: "hint" })
  #apply = button(t("Apply to sampler"), () => this.#setSize())
  /** @type {Record<string, HTMLElement>} */
  #handles = {}
  /** Screen pixels for each of the picture's, at the node's own scale. */
  #scale = 1
  #loaded = element("img")

  /**
   * @param {Node} node
   * @param {Panel} panel
   */
  constructor(node, panel) {
    this.#node = node
    this.#panel = panel
    for (const side of SIDES) {
      const handle = element("div", { className: `handle ${side}`, tabIndex: 0, ariaLabel: nameOf(side) })
      handle.setAttribute("role", "slider")
      handle.onpointerdown = (event) => this.#drag(side, event)
      handle.onkeydown = (event) => this.#press(side, event)
      this.#handles[side] = handle
      this.#frame.append(handle)
    }
    const stage = element("div", { className: "stage" }, this.#frame)
    panel.section("sd3local-outpaint").append(stage, element("div", { className: "line" }, this.#text, this.#apply))
    this.look()
    // A picture that was chosen meanwhile.
    stage.onpointerenter = () => this.look()
  }

  look() {
    const sampler = samplerOf(this.#node)
    const image = this.#image(sampler)
    const picture = this.#sizeOf(image)
    const whole = grown(picture, this.#margins())
    this.#draw(picture, whole)
    this.#picture.style.backgroundImage = image ? `url("${image.src}")` : ""
    this.#picture.classList.toggle("known", image !== undefined)
    const sizes = `${picture.width} x ${picture.height} → ${whole.width} x ${whole.height}`
    this.#text.textContent = image ? sizes : t("{sizes} (size of the seed image assumed)", { sizes })
    this.#apply.hidden =
      !image ||
      !sampler ||
      ["width", "height"].every(
        (name) => widgetOf(sampler, name)?.value === whole[/** @type {"width" | "height"} */ (name)]
      )
    this.#panel.fit()
  }

  /**
   * The seed image, once it is loaded: the file that Load Image names, else what another node shows.
   * @param {Node | undefined} sampler
   * @returns {HTMLImageElement | undefined}
   */
  #image(sampler) {
    const source = seedSource(sampler)
    const file = source && widgetOf(source, "image")?.value
    if (typeof file !== "string" || file === "") return source?.imgs?.[0]
    const src = app.api.apiURL(`/view?${addressOf(file)}`)
    if (this.#loaded.dataset.of !== src) {
      this.#loaded = element("img", { src, onload: () => this.look() })
      this.#loaded.dataset.of = src
    }
    return this.#loaded.naturalWidth ? this.#loaded : undefined
  }

  /** @param {HTMLImageElement | undefined} image */
  #sizeOf(image) {
    return image?.naturalWidth ? { width: image.naturalWidth, height: image.naturalHeight } : ASSUMED
  }

  /** @returns {Record<Side, number>} */
  #margins() {
    const values = SIDES.map((side) => [side, Math.max(0, Number(widgetOf(this.#node, side)?.value) || 0)])
    return Object.fromEntries(values)
  }

  /**
   * @param {{ width: number, height: number }} picture
   * @param {{ width: number, height: number }} whole
   */
  #draw(picture, whole) {
    const margins = this.#margins()
    const scale = (this.#scale = Math.min(ROOM.width / whole.width, ROOM.height / whole.height))
    const pixels = (/** @type {number} */ length) => `${Math.round(length * scale)}px`
    Object.assign(this.#frame.style, { width: pixels(whole.width), height: pixels(whole.height) })
    Object.assign(this.#picture.style, {
      left: pixels(margins.left),
      top: pixels(margins.top),
      width: pixels(picture.width),
      height: pixels(picture.height)
    })
    const linked = linkedInputs(this.#node)
    for (const side of SIDES) {
      const handle = this.#handles[side]
      handle.hidden = linked.includes(side)
      handle.title = `${nameOf(side)}: ${margins[side]} px`
      handle.setAttribute("aria-valuenow", String(margins[side]))
    }
  }

  /**
   * @param {Side} side
   * @param {PointerEvent} event
   */
  #drag(side, event) {
    event.preventDefault()
    const handle = this.#handles[side]
    handle.focus()
    handle.setPointerCapture(event.pointerId)
    // The editor may be zoomed; the frame is drawn to another scale as it grows, which would run from the hand.
    const zoom = this.#frame.getBoundingClientRect().width / this.#frame.offsetWidth || 1
    const scale = this.#scale * zoom
    const before = this.#margins()[side]
    const sign = side === "left" || side === "top" ? -1 : 1
    const lying = side === "left" || side === "right"
    handle.onpointermove = (moved) => {
      const way = lying ? moved.clientX - event.clientX : moved.clientY - event.clientY
      this.#set(side, before + (sign * way) / scale)
    }
    handle.onpointerup = handle.onpointercancel = () => {
      handle.onpointermove = handle.onpointerup = handle.onpointercancel = null
      // All of the way is one step, which ends here.
      asOneStep(() => {})
    }
  }

  /**
   * @param {Side} side
   * @param {KeyboardEvent} event
   */
  #press(side, event) {
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key]
    if (steps === undefined) return
    event.preventDefault()
    event.stopPropagation()
    asOneStep(() => this.#set(side, this.#margins()[side] + steps * STEP))
  }

  /**
   * @param {Side} side
   * @param {number} pixels
   */
  #set(side, pixels) {
    const value = stepped(pixels)
    if (value === widgetOf(this.#node, side)?.value) return
    setValues(this.#node, { [side]: value })
    this.look()
  }

  #setSize() {
    const sampler = samplerOf(this.#node)
    const picture = this.#sizeOf(this.#image(sampler))
    if (sampler) asOneStep(() => setValues(sampler, grown(picture, this.#margins())))
    this.look()
  }
}
