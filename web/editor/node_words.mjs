/**
 * The nodes' texts in the user's language, as they stand in locales/<language>/nodeDefs.json.
 *
 * ComfyUI's frontends have them too, but older ones, such as 1.32, forget those of packs when they load their own of a
 * language other than English. So what they are told of the nodes is put into words here; newer ones say the same.
 *
 * @typedef {{ name: string, tooltip: string }} Slot
 * @typedef {{ display_name: string, description: string, inputs: Record<string, Slot>, outputs: Record<string, Slot> }} Words
 * @typedef {Record<string, [unknown, { display_name?: string, tooltip?: string }?]>} Inputs
 * @typedef {object} Definition what /object_info says of a node
 * @property {string} display_name
 * @property {string} description
 * @property {{ required?: Inputs, optional?: Inputs }} input
 * @property {(string | null)[]} [output_tooltips]
 * @typedef {object} Node
 * @property {string} [comfyClass]
 * @property {{ name: string, label?: string }[]} [widgets]
 * @property {{ name: string, localized_name?: string }[]} [inputs]
 * @property {{ name: string, localized_name?: string }[]} [outputs]
 */

/**
 * Node id -> its texts, of this pack's nodes.
 * @param {Record<string, Words>} texts of all packs' nodes
 * @returns {Record<string, Words>}
 */
export function ours(texts) {
  return Object.fromEntries(Object.entries(texts).filter(([node]) => node.startsWith("SD3Local")))
}

/**
 * Puts the names and tooltips of a node's definition into words.
 * @param {Definition} definition
 * @param {Words} words
 */
export function define(definition, words) {
  definition.display_name = words.display_name
  definition.description = words.description
  for (const inputs of [definition.input.required, definition.input.optional]) {
    for (const [name, [, options]] of Object.entries(inputs ?? {})) {
      const said = words.inputs[name]
      if (options && said) Object.assign(options, { display_name: said.name, tooltip: said.tooltip })
    }
  }
  definition.output_tooltips = definition.output_tooltips?.map((tip, index) => words.outputs[index]?.tooltip ?? tip)
}

/**
 * Puts the names of a new node's widgets and slots into words. What the user calls them is read later, and stays.
 * @param {Node} node
 * @param {Words} words
 */
export function label(node, words) {
  for (const widget of node.widgets ?? []) widget.label = words.inputs[widget.name]?.name ?? widget.label
  for (const input of node.inputs ?? []) input.localized_name = words.inputs[input.name]?.name ?? input.localized_name
  for (const [index, output] of (node.outputs ?? []).entries()) {
    output.localized_name = words.outputs[index]?.name ?? output.localized_name
  }
}
