/**
 * Graphs of API requests in the editor, and the editor's graph as requests.
 *
 * @typedef {import("./layout.mjs").Prompt} Prompt
 * @typedef {import("./graph.mjs").LGraphNode} LGraphNode
 * @typedef {{ graph: Prompt, sources: Record<string, string> }} Task `sources` has the addresses of pictures by UUID
 */

import { app } from "./comfy.mjs"
import { setValue } from "./graph.mjs"
import { columns, isLink, places } from "./layout.mjs"

/** Where a node of a picture keeps the address that it came from. */
const SOURCE = "sd3local_source"

const HEADER = 40
const BETWEEN = 160

/**
 * Adds the graphs of tasks to the editor's graph, one below the other, each in a group of its own.
 * @param {Task[]} tasks
 */
export function build(tasks) {
  const graph = app.rootGraph ?? app.graph
  let top = HEADER * 2
  for (const { graph: prompt, sources } of tasks) {
    const nodes = addNodes(prompt, sources)
    connect(prompt, nodes)
    /** @type {Map<string, [number, number]>} */
    const sizes = new Map([...nodes].map(([key, node]) => [key, sizeOf(node)]))
    for (const [key, place] of places(columns(prompt), sizes, [HEADER, top])) {
      const node = nodes.get(key)
      if (node) node.pos = place
    }
    const bottom = Math.max(...[...nodes.values()].map((node) => node.pos[1] + sizeOf(node)[1]))
    if (tasks.length > 1) addGroup(title(prompt), [...nodes.values()])
    top = bottom + BETWEEN
  }
  graph.setDirtyCanvas(true, true)
  return graph
}

/**
 * @param {Prompt} prompt
 * @param {Record<string, string>} sources
 * @returns {Map<string, LGraphNode>}
 */
function addNodes(prompt, sources) {
  /** @type {Map<string, LGraphNode>} */
  const nodes = new Map()
  for (const [key, { class_type, inputs }] of Object.entries(prompt)) {
    const node = window.LiteGraph.createNode(class_type)
    if (!node) continue
    const graph = app.rootGraph ?? app.graph
    graph.add(node)
    nodes.set(key, node)
    for (const widget of node.widgets ?? []) {
      // A request's seed is meant to stay.
      if (widget.name === "control_after_generate") setValue(node, widget, "fixed")
      else if (widget.name in inputs && !isLink(inputs[widget.name])) setValue(node, widget, inputs[widget.name])
    }
    const source = sources[inputs.picture]
    if (source) node.properties[SOURCE] = source
  }
  return nodes
}

/**
 * @param {Prompt} prompt
 * @param {Map<string, LGraphNode>} nodes
 */
function connect(prompt, nodes) {
  for (const [key, { inputs }] of Object.entries(prompt)) {
    for (const [name, value] of Object.entries(inputs)) {
      const target = nodes.get(key)
      const source = isLink(value) ? nodes.get(String(value[0])) : undefined
      if (!target || !source) continue
      source.connect(value[1], target, target.findInputSlot(name))
    }
  }
}

/**
 * @param {LGraphNode} node
 * @returns {[number, number]} width and height, with the title
 */
function sizeOf(node) {
  const [width, height] = node.computeSize()
  return [Math.max(width, node.size[0]), Math.max(height, node.size[1]) + HEADER]
}

/**
 * @param {Prompt} prompt
 * @returns {string}
 */
function title(prompt) {
  const text = Object.values(prompt).find((node) => node.class_type === "SD3LocalPrompt")?.inputs.positivePrompt ?? ""
  return text.length > 60 ? `${text.slice(0, 59)}…` : text || "SD3 Local"
}

/**
 * @param {string} name
 * @param {LGraphNode[]} nodes
 */
function addGroup(name, nodes) {
  const group = new window.LiteGraph.LGraphGroup(name)
  const left = Math.min(...nodes.map((node) => node.pos[0])) - 20
  const top = Math.min(...nodes.map((node) => node.pos[1])) - HEADER * 2
  const right = Math.max(...nodes.map((node) => node.pos[0] + sizeOf(node)[0])) + 20
  const bottom = Math.max(...nodes.map((node) => node.pos[1] + sizeOf(node)[1])) + 20
  group.pos = [left, top]
  group.size = [right - left, bottom - top]
  ;(app.rootGraph ?? app.graph).add(group)
}

/** @returns {Record<string, string>} the addresses that pictures of the graph came from, by their UUIDs */
export function sources() {
  /** @type {Record<string, string>} */
  const found = {}
  for (const node of (app.rootGraph ?? app.graph).nodes) {
    const picture = node.widgets?.find((widget) => widget.name === "picture")?.value
    const source = node.properties?.[SOURCE]
    if (typeof picture === "string" && typeof source === "string") found[picture] = source
  }
  return found
}
