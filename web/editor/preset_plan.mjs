/**
 * What a preset would change in a graph. Nothing is dropped in silence: what can't be applied is among the remarks.
 *
 * @typedef {{ node: string, values: Record<string, unknown> }} NodeSettings
 * @typedef {{ format: string, version: number, name: string, description?: string, thumbnail?: string,
 *   nodes: NodeSettings[] }} Preset
 * @typedef {{ name: string, value: unknown, linked: boolean, choices: unknown[] | null }} Input
 * @typedef {{ kind: string, title: string, inputs: Input[] }} Target a node of the graph
 * @typedef {{ target: number, name: string, value: unknown }} Change
 */

import { t } from "./words.mjs"

/**
 * Settings of a kind of which a preset has one go to all nodes of it; of a kind of which it has several, such as a
 * chain of LoRAs, each goes to one, in their order.
 * @param {Preset} preset
 * @param {Target[]} targets
 * @returns {{ changes: Change[], remarks: string[] }}
 */
export function plan(preset, targets) {
  /** @type {Change[]} */
  const changes = []
  /** @type {string[]} */
  const remarks = []
  for (const kind of new Set(preset.nodes.map((settings) => settings.node))) {
    const settings = preset.nodes.filter((one) => one.node === kind)
    const found = targets.flatMap((target, index) => (target.kind === kind ? [index] : []))
    const pairs =
      settings.length === 1 ? found.map((target) => [0, target]) : found.map((target, index) => [index, target])
    const fitting = pairs.filter(([index]) => index < settings.length)
    for (const [index, target] of fitting) changeOne(settings[index].values, target, targets[target], changes, remarks)
    if (found.length < settings.length) {
      const missing = settings.length - found.length
      remarks.push(
        t("{missing} of {count} {kind} are left out: there are no such nodes.", count(settings, missing, kind))
      )
    } else if (fitting.length < found.length) {
      remarks.push(t("{count} {kind} stay as they are: the preset has fewer.", count(found, 0, kind, fitting.length)))
    }
  }
  return { changes, remarks }
}

/**
 * @param {string} name
 * @returns {string} a file's name on every system
 */
export function slug(name) {
  const plain = name
    .normalize("NFKC")
    .toLowerCase()
    .replace(/[^\p{L}\p{N}]+/gu, "-")
  return plain.slice(0, 60).replace(/^-+|-+$/g, "") || "preset"
}

/**
 * @param {unknown[]} of
 * @param {number} missing
 * @param {string} kind
 * @param {number} [less]
 */
function count(of, missing, kind, less = 0) {
  return { count: of.length - less, missing, kind }
}

/**
 * @param {Record<string, unknown>} values
 * @param {number} index
 * @param {Target} target
 * @param {Change[]} changes
 * @param {string[]} remarks
 */
function changeOne(values, index, target, changes, remarks) {
  for (const [name, value] of Object.entries(values)) {
    const input = target.inputs.find((one) => one.name === name)
    const about = { node: target.title, input: name, value: String(value) }
    if (!input) remarks.push(t("{node} has no input {input}: {value} is left out.", about))
    else if (input.linked) remarks.push(t("{node}: {input} comes from another node, and stays so.", about))
    else if (input.choices && !input.choices.includes(value)) {
      remarks.push(t("{node}: {input} can't be {value}: there is no such choice here.", about))
    } else if (input.value !== value) changes.push({ target: index, name, value })
  }
}
