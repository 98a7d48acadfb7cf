/**
 * How long prompts are for the text encoders, shown while they are written.
 *
 * @typedef {{ clip: number, chunks: number, t5: number, first_chunk_ends: string | null }} Count
 * @typedef {{ counts: Record<string, Count>, clipLength: number, t5Length: number }} Counts
 */

import { element } from "./dom.mjs"
import { call } from "./server.mjs"
import { PAUSE } from "./widgets_check.mjs"
import { linkedInputs, widgetOf } from "./widgets_node.mjs"
import { t } from "./words.mjs"

/** @import { Node } from "./widgets_node.mjs" */
/** @import { Panel } from "./widgets_panel.mjs" */

export const PROMPTS = ["positivePrompt", "negativePrompt"]

/**
 * A count as lines of text.
 * @param {Count} count
 * @param {Counts} limits
 */
export function told(count, { clipLength, t5Length }) {
  const clip = t("CLIP {count}/{limit}", { count: count.clip, limit: clipLength })
  const chunks = count.chunks > 1 ? ` (${t("{count} chunks", { count: count.chunks })})` : ""
  const t5 = t("T5 {count}/{limit}", { count: count.t5, limit: t5Length })
  const end = count.first_chunk_ends
  return {
    lengths: `${clip}${chunks} · ${t5}`,
    mark: end === null ? "" : t("CLIP's first {limit} end after “… {words}”", { limit: clipLength, words: end })
  }
}

export class TokenCounter {
  #node
  #panel
  #place
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer
  #asking = false
  #changed = false
  #asked = ""

  /**
   * @param {Node} node
   * @param {Panel} panel
   */
  constructor(node, panel) {
    this.#node = node
    this.#panel = panel
    this.#place = panel.section("sd3local-tokens")
  }

  look() {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.#ask(), PAUSE)
  }

  async #ask() {
    if (this.#asking) {
      this.#changed = true
      return
    }
    const texts = this.#texts()
    const asked = JSON.stringify(texts)
    if (asked === this.#asked) return
    this.#asked = asked
    this.#asking = true
    try {
      this.#show(Object.keys(texts).length ? await call("/tokens", { body: { texts } }) : null)
    } catch {
      // Without the server there is nothing to tell.
      this.#show(null)
    }
    this.#asking = false
    if (this.#changed) {
      this.#changed = false
      this.look()
    }
  }

  #texts() {
    const linked = linkedInputs(this.#node)
    const own = PROMPTS.filter((name) => !linked.includes(name))
    return Object.fromEntries(
      own.map((name) => [name, widgetOf(this.#node, name)?.value]).filter(([, text]) => text?.trim?.())
    )
  }

  /** @param {Counts | null} counts */
  #show(counts) {
    const lines = Object.entries(counts?.counts ?? {}).flatMap(([name, count]) => {
      const { lengths, mark } = told(count, /** @type {Counts} */ (counts))
      const label = widgetOf(this.#node, name)?.label ?? name
      const className = count.chunks > 1 ? "hint over" : "hint"
      const line = element("p", { className }, element("span", {}, label), element("b", {}, lengths))
      return mark ? [line, element("p", { className: "hint mark", textContent: mark })] : [line]
    })
    this.#place.replaceChildren(...lines)
    this.#panel.fit()
  }
}
