/**
 * What a user does with presets.
 *
 * @typedef {import("./graph.mjs").LGraphNode} LGraphNode
 * @typedef {import("./preset_plan.mjs").Preset} Preset
 * @typedef {import("./preset_plan.mjs").Target} Target
 * @typedef {import("./preset_store.mjs").Kept} Kept
 */

import { app } from "./comfy.mjs"
import { button, dialog, download, element, open } from "./dom.mjs"
import { all, asOneStep, choicesOf, inputsOf, selected, setValue, valuesOf } from "./graph.mjs"
import { plan, slug } from "./preset_plan.mjs"
import { FORMAT, add, judge, replace, written } from "./preset_store.mjs"
import { Refused, messages } from "./server.mjs"
import { ask, showList, toast } from "./tell.mjs"
import { pictureOf } from "./thumbnail.mjs"
import { linkedInputs } from "./widgets_node.mjs"
import { t } from "./words.mjs"

/**
 * Applies a preset to nodes: without any, to the selected ones of the pack, and where none is selected to all.
 * @param {Kept} kept
 * @param {LGraphNode[]} [nodes]
 */
export function apply(kept, nodes = selected().length ? selected() : all()) {
  const { preset, problems } = kept
  const { changes, remarks } = plan(preset, nodes.map(targetOf))
  asOneStep(() => {
    for (const { target, name, value } of changes) {
      const widget = inputsOf(nodes[target]).find((one) => one.name === name)
      if (widget) setValue(nodes[target], widget, value)
    }
  })
  const lines = [...problems, ...remarks]
  const title = t("{name}: {count} values changed", { name: preset.name, count: changes.length })
  if (lines.length) showList(title, lines)
  else toast("success", title)
}

/**
 * @param {LGraphNode} node
 * @returns {Target}
 */
function targetOf(node) {
  const linked = linkedInputs(node)
  const inputs = inputsOf(node).map((widget) => ({
    name: widget.name,
    value: widget.value,
    linked: linked.includes(widget.name),
    choices: choicesOf(widget)
  }))
  return { kind: node.comfyClass ?? "", title: node.title, inputs }
}

/**
 * Lets the user name a new preset and choose what goes into it.
 * @param {LGraphNode[]} nodes
 */
export function save(nodes) {
  if (!nodes.length) {
    toast("info", t("Select one or more nodes of SD3 Local first."))
    return
  }
  const name = element("input", { ariaLabel: t("Name"), placeholder: t("Name"), maxLength: 80, required: true })
  const about = element("input", { ariaLabel: t("Description"), placeholder: t("Description"), maxLength: 500 })
  const alert = element("div", { role: "alert" })
  const lines = nodes.flatMap((node) =>
    Object.entries(valuesOf(node)).map(([input, value]) => line(node, input, value))
  )
  const groups = nodes.map((node) => {
    const own = lines.filter((one) => one.node === node)
    return element("fieldset", {}, element("legend", { textContent: node.title }), ...own.map((one) => one.label))
  })
  const made = dialog(
    t("Save a preset"),
    name,
    about,
    element("div", { className: "sd3local-values" }, ...groups),
    alert
  )
  const keep = async () => {
    const settings = nodes.map((node) => {
      const chosen = lines.filter((one) => one.node === node && one.box.checked)
      return { node: node.comfyClass ?? "", values: Object.fromEntries(chosen.map((one) => [one.input, one.value])) }
    })
    const thumbnail = await pictureOf(nodes)
    /** @type {Preset} */
    const preset = {
      format: FORMAT,
      version: 1,
      name: name.value.trim(),
      ...(about.value.trim() && { description: about.value.trim() }),
      ...(thumbnail && { thumbnail }),
      nodes: settings.filter((one) => Object.keys(one.values).length)
    }
    try {
      const judged = await judge(preset)
      if (judged.problems.length) throw new Refused(judged.problems)
      await add(judged.preset)
      made.close()
      toast("success", t("{name} is saved.", { name: preset.name }))
    } catch (error) {
      alert.textContent = messages(error).join("\n")
    }
  }
  made.append(
    element(
      "footer",
      {},
      button(t("Save"), () => void keep(), "apart"),
      button(t("Cancel"), () => made.close())
    )
  )
  open(made)
  name.focus()
}

/**
 * One value that can be chosen. Seeds and files of one's own are seldom meant.
 * @param {LGraphNode} node
 * @param {string} input
 * @param {unknown} value
 */
function line(node, input, value) {
  const personal = ["seed", "control_after_generate", "taskUUID", "uploadEndpoint", "webhookURL", "picture"]
  const box = element("input", { type: "checkbox", checked: !personal.includes(input) })
  const shown = element("span", { textContent: String(value) })
  return { node, input, value, box, label: element("label", {}, box, element("b", { textContent: input }), shown) }
}

/**
 * @param {Kept} kept
 */
export async function rename(kept) {
  const name = await ask(t("Rename the preset"), kept.preset.name)
  if (name === null || kept.file === null) return
  const whole = { ...(await written(kept)), name }
  // The name is judged, the values stay as they are.
  await judge(whole)
  await replace(kept.file, whole)
}

/**
 * @param {Kept} kept
 */
export async function duplicate(kept) {
  const name = t("{name} (copy)", { name: kept.preset.name })
  await add({ ...(await written(kept)), name: name.slice(0, 80) })
}

/**
 * @param {Kept} kept
 */
export async function exportFile(kept) {
  download(`${slug(kept.preset.name)}.json`, JSON.stringify(await written(kept), null, 1))
}

/**
 * Copies it as text, to be pasted into a chat.
 * @param {Kept} kept
 */
export async function copyText(kept) {
  await navigator.clipboard.writeText(JSON.stringify(await written(kept)))
  toast("success", t("{name} is copied.", { name: kept.preset.name }))
}

/**
 * Keeps presets from someone else: one, or an array of them.
 *
 * Throws Refused for what is none; then nothing was kept.
 * @param {unknown} given
 */
export async function importPresets(given) {
  const presets = Array.isArray(given) ? given : [given]
  const judged = []
  for (const one of presets) judged.push(await judge(one))
  for (const one of presets) await add(one)
  const lines = judged.flatMap((one) => one.problems.map((problem) => `${one.preset.name}: ${problem}`))
  const title = t("Imported: {names}", { names: judged.map((one) => one.preset.name).join(", ") })
  if (lines.length) showList(title, lines)
  else toast("success", title)
}

/**
 * Lets the user choose one for nodes.
 * @param {Kept[]} presets
 * @param {LGraphNode[]} nodes
 */
export function choose(presets, nodes) {
  const kinds = new Set(nodes.map((node) => node.comfyClass))
  const fitting = presets.filter(({ preset }) => preset.nodes.some((one) => kinds.has(one.node)))
  const made = dialog(t("Apply a preset"))
  const list = element("div", { className: "sd3local-choices" })
  for (const kept of fitting) {
    const choice = button(kept.preset.name, () => {
      made.close()
      apply(kept, nodes)
    })
    choice.title = kept.preset.description ?? ""
    list.append(choice)
  }
  if (!fitting.length) list.append(t("No preset has settings for these nodes."))
  made.append(
    list,
    element(
      "footer",
      {},
      button(t("Cancel"), () => made.close(), "apart")
    )
  )
  open(made)
}

/** @returns {LGraphNode[]} what a command is about: the selected nodes, else all of the pack's */
export function meant() {
  const nodes = selected()
  return nodes.length || app.canvas.selectedItems.size ? nodes : all()
}
