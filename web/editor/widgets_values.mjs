/** Values that a helper sets. */

import { setValue } from "./graph.mjs"
import { linkedInputs, widgetOf } from "./widgets_node.mjs"

/** @import { Node } from "./widgets_node.mjs" */

/**
 * Sets widgets as a person would. What another node gives is left alone.
 * @param {Node} node
 * @param {Record<string, unknown>} values by the widgets' names
 */
export function setValues(node, values) {
  const linked = linkedInputs(node)
  for (const [name, value] of Object.entries(values)) {
    const widget = widgetOf(node, name)
    if (widget === undefined || linked.includes(name) || widget.value === value) continue
    setValue(node, widget, value)
  }
}
