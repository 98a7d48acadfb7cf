/**
 * What the widgets' helpers ask of ComfyUI's nodes.
 *
 * @typedef {import("../../../scripts/app.js").IWidget} Widget
 * @typedef {import("../../../scripts/app.js").LGraphNode} Node
 */

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
