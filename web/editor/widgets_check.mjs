/**
 * Values judged while they are typed: the server says what is wrong with them, as a run would, and what has no effect
 * beside the others.
 *
 * @typedef {{ problems: { message: string }[], idle: { parameters: string[], reason: string }[] }} Verdict
 */

import { element } from "./dom.mjs"
import { linkedInputs, kindOf } from "./widgets_node.mjs"

/** @import { Node } from "./widgets_node.mjs" */
/** @import { Panel } from "./widgets_panel.mjs" */

/** Milliseconds without a change before the server is asked. */
export const PAUSE = 250

/** Nodes of one question. */
const MOST = 500

/** The nodes of which something changed: a workflow that is opened asks once for all of its nodes. */
export class Judge {
  /** @type {Set<Judged>} */
  #waiting = new Set()
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer
  #asking = false
  #ask

  /** @param {(nodes: object[]) => Promise<Verdict[]>} ask what the server says of nodes, in their order */
  constructor(ask) {
    this.#ask = ask
  }

  /** @param {Judged} judged */
  look(judged) {
    this.#waiting.add(judged)
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#next(), PAUSE)
  }

  async #next() {
    if (this.#asking) return
    this.#asking = true
    const asked = [...this.#waiting].slice(0, MOST)
    for (const judged of asked) this.#waiting.delete(judged)
    try {
      const verdicts = await this.#ask(asked.map((judged) => judged.question()))
      // What changed since then is asked about anew.
      asked.forEach((judged, index) => !this.#waiting.has(judged) && judged.show(verdicts[index]))
    } catch {
      // A server that is away, or that a browser elsewhere may not ask: a run will say what is wrong.
    }
    this.#asking = false
    if (this.#waiting.size > 0) this.#timer = setTimeout(() => void this.#next(), PAUSE)
  }
}

/** A node that is judged. */
export class Judged {
  #node
  #panel
  #place

  /**
   * @param {Node} node
   * @param {Panel} panel
   */
  constructor(node, panel) {
    this.#node = node
    this.#panel = panel
    this.#place = panel.section("sd3local-verdict")
  }

  question() {
    const linked = linkedInputs(this.#node)
    const own = (this.#node.widgets ?? []).filter(
      (widget) => widget.serialize !== false && !linked.includes(widget.name)
    )
    const values = Object.fromEntries(own.map((widget) => [widget.name, widget.value]))
    return { node: kindOf(this.#node), values, linked }
  }

  /** @param {Verdict} verdict */
  show({ problems, idle }) {
    const shown = problems.map(({ message }) => element("p", { className: "problem", textContent: message }))
    const reasons = idle.map(({ reason }) => element("p", { className: "hint", textContent: reason }))
    this.#place.replaceChildren(...shown, ...reasons)
    const names = new Set(idle.flatMap(({ parameters }) => parameters))
    const linked = linkedInputs(this.#node)
    // A linked one is the link's matter.
    const own = (this.#node.widgets ?? []).filter(({ name }) => names.has(name) && !linked.includes(name))
    this.#panel.grey(new Set(own))
    this.#panel.fit()
  }
}
