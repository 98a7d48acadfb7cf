/** What the sampler shows of its run: how far it is, and what came of it. */

import { element } from "./dom.mjs"
import { addressOf } from "./results_find.mjs"
import { headline, progressText, savings } from "./results_words.mjs"
import { Panel } from "./widgets_panel.mjs"
import { t } from "./words.mjs"

/**
 * @import { LGraphNode } from "../../../scripts/app.js"
 * @import { Progress, Summary } from "./results_words.mjs"
 */

/** Up to which height, in its own pixels, a drawing is not folded: that of the steps of two results. */
const HEIGHT = 320

export class RunPanel {
  #panel
  #progress
  #result
  #working = false

  /** @param {LGraphNode} node */
  constructor(node) {
    this.#panel = new Panel(node, "sd3local.run")
    this.#progress = this.#panel.section("sd3local-progress")
    this.#result = this.#panel.section("sd3local-result")
  }

  /** @param {Progress} progress */
  goOn(progress) {
    this.#result.replaceChildren()
    this.#working = true
    const line = this.#progress.firstElementChild ?? this.#progress.appendChild(element("p"))
    line.textContent = progressText(progress)
    this.#panel.fit()
  }

  /** A run that ended without a result. */
  stop() {
    if (!this.#working) return
    this.#working = false
    this.#progress.replaceChildren()
    this.#panel.fit()
  }

  /** @param {Summary} summary */
  show(summary) {
    this.#working = false
    this.#progress.replaceChildren()
    const drawings = summary.drawings.map((file) =>
      element("img", { src: addressOf(file), width: file.width, height: file.height, alt: "" })
    )
    // Seen without asking: which steps were reused. Pictures, or the steps of many results, would be in the way.
    const short = (summary.drawings.at(-1)?.height ?? 0) <= HEIGHT
    const decisions = summary.accelerator !== null && summary.steps > 0 && short ? drawings.splice(-1) : []
    for (const drawing of decisions) drawing.alt = t("what was decided about each step")
    const details = element(
      "details",
      {},
      element("summary", { textContent: t("Report") }),
      element("pre", { textContent: summary.details }),
      ...drawings
    )
    details.addEventListener("toggle", () => this.#panel.fit())
    const unsafe =
      summary.unsafe.length > 0 ? t("Unsafe: result {numbers}", { numbers: summary.unsafe.join(", ") }) : ""
    /** @type {[string, string][]} */
    const lines = [
      [headline(summary), ""],
      [savings(summary), ""],
      [unsafe, "problem"],
      ...summary.notes.map((note) => /** @type {[string, string]} */ ([note, "hint"]))
    ]
    const shown = lines.filter(([text]) => text !== "")
    this.#result.replaceChildren(
      ...shown.map(([textContent, className]) => element("p", { textContent, className })),
      ...decisions,
      details
    )
    this.#panel.fit()
  }
}
