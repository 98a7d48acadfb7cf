/**
 * What the widgets' helpers know of ComfyUI's nodes: the part that both frontends have.
 *
 * @typedef {{
 *   name: string, type: string, value: any, label?: string, disabled?: boolean, serialize?: boolean,
 *   options: Record<string, any>, callback?: (...args: any[]) => any,
 *   computeSize?: (width?: number) => [number, number], computeLayoutSize?: unknown
 * }} Widget
 * @typedef {{ name: string, link?: number | null, widget?: { name: string } }} Input
 * @typedef {{
 *   id: number | string, type: string, comfyClass?: string, title: string, widgets?: Widget[], inputs?: Input[],
 *   outputs?: { name: string, type: string, links?: number[] | null }[], size: [number, number], imgs?: HTMLImageElement[],
 *   graph: any, onConnectionsChange?: (...args: any[]) => any, onResize?: (...args: any[]) => any,
 *   setSize: (size: [number, number]) => void, computeSize: () => [number, number],
 *   isInputConnected: (slot: number) => boolean, getInputNode: (slot: number) => Node | null,
 *   getOutputNodes: (slot: number) => Node[] | null, connect: (slot: number, node: Node, input: string | number) => any,
 *   addDOMWidget: (name: string, type: string, element: HTMLElement, options?: object) => Widget
 * }} Node
 */

import { app } from "./comfy.mjs"

/**
 * @param {Node} node
 * @returns {string} the id that a node has in Python
 */
export function kindOf(node) {
  return node.comfyClass ?? node.type
}

/**
 * @param {Node} node
 * @param {string} name
 */
export function widgetOf(node, name) {
  return node.widgets?.find((widget) => widget.name === name)
}

/**
 * @param {Node} node
 * @returns {string[]} the names of inputs that another node gives a value to
 */
export function linkedInputs(node) {
  // A node that is only being made has no links, and may not be asked for any.
  if (!node.graph) return []
  return (node.inputs ?? [])
    .filter((_, slot) => node.isInputConnected(slot))
    .map((input) => input.widget?.name ?? input.name)
}

/**
 * @param {Node} node
 * @param {string} name
 * @returns {Node | null} where the input `name` comes from
 */
export function sourceOf(node, name) {
  if (!node.graph) return null
  const slot = (node.inputs ?? []).findIndex((input) => (input.widget?.name ?? input.name) === name)
  return slot < 0 ? null : node.getInputNode(slot)
}

/**
 * Sets widgets as a person would, in one step that one undo takes back. What another node gives is left alone.
 * @param {Node} node
 * @param {Record<string, unknown>} values by the widgets' names
 */
export function setValues(node, values) {
  const linked = linkedInputs(node)
  node.graph?.beforeChange?.(node)
  for (const [name, value] of Object.entries(values)) {
    const widget = widgetOf(node, name)
    if (widget === undefined || linked.includes(name) || widget.value === value) continue
    widget.value = value
    widget.callback?.(value, app.canvas, node)
  }
  node.graph?.afterChange?.(node)
  node.graph?.setDirtyCanvas?.(true, true)
}

/**
 * Calls `heard` when a value of the node changes, or a link to it.
 * @param {Node} node
 * @param {() => void} heard
 */
export function onChange(node, heard) {
  for (const widget of node.widgets ?? []) {
    const earlier = widget.callback
    widget.callback = function (...args) {
      const told = earlier?.apply(this, args)
      heard()
      return told
    }
  }
  const earlier = node.onConnectionsChange
  node.onConnectionsChange = function (...args) {
    earlier?.apply(this, args)
    heard()
  }
}
