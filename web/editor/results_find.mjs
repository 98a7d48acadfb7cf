/** What the server speaks of: nodes by their ids, and pictures by their files. */

import { app } from "./comfy.mjs"

/**
 * @import { LGraphNode } from "../../../scripts/app.js"
 * @import { File } from "./results_words.mjs"
 */

/**
 * @param {string | number} id of a node that is run, with those of the subgraphs around it, such as "5:3"; or as outputs
 *   are kept by, with the subgraph's own id before the colon
 * @returns {LGraphNode | null}
 */
export function nodeOf(id) {
  const path = String(id).split(":")
  const root = app.rootGraph ?? app.graph
  const definition = path.length > 1 ? root.subgraphs?.get(path[0]) : undefined
  if (definition) path.shift()
  /** @type {typeof root | undefined} */
  let graph = definition ?? root
  for (const step of path.slice(0, -1)) graph = graph?.getNodeById(step)?.subgraph
  return graph?.getNodeById(path[path.length - 1]) ?? null
}

/** @param {File} file */
export function addressOf({ filename, subfolder, type }) {
  return app.api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`)
}
