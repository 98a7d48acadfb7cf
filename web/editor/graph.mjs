/**
 * The editor's graph: the pack's nodes in it and their values.
 *
 * @typedef {import("../../../scripts/app.js").LGraphNode} LGraphNode
 * @typedef {import("../../../scripts/app.js").IWidget} IWidget
 */

import { app } from "./comfy.mjs"
import { linkedInputs } from "./widgets_node.mjs"

const PREFIX = "SD3Local"

/** A widget that the editor adds to a seed, which a node does not declare. */
const CONTROL = "control_after_generate"

/**
 * @param {LGraphNode} node
 * @returns {boolean} whether it is one of the pack's
 */
export function isOurs(node) {
  return (node.comfyClass ?? "").startsWith(PREFIX)
}

/** @returns {LGraphNode[]} the selected nodes of the pack, in the order in which they run */
export function selected() {
  // Groups can be selected too.
  return inOrder([...app.canvas.selectedItems].flatMap((item) => ("comfyClass" in item ? [item] : [])))
}

/** @returns {LGraphNode[]} the pack's nodes of the graph that is open, in the order in which they run */
export function all() {
  return inOrder(app.canvas.graph?.nodes ?? [])
}

/**
 * @param {LGraphNode[]} nodes
 * @returns {LGraphNode[]}
 */
function inOrder(nodes) {
  return nodes.filter(isOurs).sort((one, other) => one.order - other.order)
}

/**
 * @param {LGraphNode} node
 * @returns {IWidget[]} those of its widgets that are inputs which the node declares
 */
export function inputsOf(node) {
  const { required = {}, optional = {} } = node.constructor.nodeData?.input ?? {}
  const names = new Set([...Object.keys(required), ...Object.keys(optional), CONTROL])
  return (node.widgets ?? []).filter((widget) => names.has(widget.name))
}

/**
 * @param {LGraphNode} node
 * @returns {Record<string, unknown>} the values that were set in the node itself, by input
 */
export function valuesOf(node) {
  const linked = linkedInputs(node)
  const own = inputsOf(node).filter((widget) => !linked.includes(widget.name))
  return Object.fromEntries(own.map((widget) => [widget.name, widget.value]))
}

/**
 * @param {LGraphNode} node
 * @param {IWidget} widget
 * @param {unknown} value
 */
export function setValue(node, widget, value) {
  widget.value = value
  widget.callback?.(value, app.canvas, node)
}

/**
 * @param {IWidget} widget
 * @returns {unknown[] | null} what a choice may be; null for other widgets
 */
export function choicesOf(widget) {
  const { values } = widget.options ?? {}
  if (typeof values === "function") return values(widget)
  return Array.isArray(values) ? values : null
}

/**
 * Changes the graph as one step, which one undo takes back.
 * @template Result
 * @param {() => Result} work
 * @returns {Result}
 */
export function asOneStep(work) {
  app.canvas.emitBeforeChange()
  try {
    return work()
  } finally {
    app.canvas.emitAfterChange()
    app.canvas.setDirty(true, true)
  }
}
