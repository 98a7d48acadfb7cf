/** Runs and what comes of them, shown at their nodes: the sampler's progress and report, and two pictures compared. */

import { app } from "./comfy.mjs"
import { useStyles } from "./dom.mjs"
import { Comparison } from "./results_compare.mjs"
import { nodeOf } from "./results_find.mjs"
import { RunPanel } from "./results_sampler.mjs"
import { kindOf } from "./widgets_node.mjs"

/** @import { ComfyExtension, LGraphNode } from "../../../scripts/app.js" */

/** Of a new node that compares pictures: enough to see them. */
const WIDTH = 360

/** @type {WeakMap<LGraphNode, RunPanel>} */
const runs = new WeakMap()

/** @type {WeakMap<LGraphNode, Comparison>} */
const comparisons = new WeakMap()

/** The samplers that are at work. @type {Set<RunPanel>} */
const working = new Set()

/**
 * @param {string | number} id
 * @param {any} output what a node showed
 */
function show(id, output) {
  const node = output?.sd3local_summary || output?.sd3local_compare ? nodeOf(id) : null
  if (node === null) return
  const run = runs.get(node)
  if (output.sd3local_summary && run) {
    working.delete(run)
    run.show(output.sd3local_summary[0])
  }
  if (output.sd3local_compare) comparisons.get(node)?.show(output.sd3local_compare[0])
}

function stop() {
  for (const run of working) run.stop()
  working.clear()
}

/** @type {ComfyExtension} */
export const results = {
  name: "sd3local.results",
  setup() {
    useStyles()
    app.api.addEventListener("sd3local.progress", ({ detail }) => {
      const node = nodeOf(detail.node)
      const run = node === null ? undefined : runs.get(node)
      if (run === undefined) return
      working.add(run)
      run.goOn(detail)
    })
    app.api.addEventListener("executed", ({ detail }) => show(detail.display_node ?? detail.node, detail.output))
    for (const end of ["execution_error", "execution_interrupted", "execution_success"]) {
      app.api.addEventListener(end, stop)
    }
  },
  nodeCreated(node) {
    if (kindOf(node) === "SD3LocalSampler") runs.set(node, new RunPanel(node))
    if (kindOf(node) === "SD3LocalCompare") {
      comparisons.set(node, new Comparison(node))
      node.setSize([Math.max(node.size[0], WIDTH), node.computeSize()[1]])
    }
  },
  onNodeOutputsUpdated(outputs) {
    // A graph whose tab is opened again, or one from the queue's history.
    for (const [id, output] of Object.entries(outputs)) show(id, output)
  }
}
