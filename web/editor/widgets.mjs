/** Helpers at the pack's nodes: what is wrong or without effect, sizes, tokens, the frame of outpainting, masks. */

import { app } from "./comfy.mjs"
import { button } from "./dom.mjs"
import { call } from "./server.mjs"
import { Judge, Judged, PAUSE } from "./widgets_check.mjs"
import { paintMask, paintable } from "./widgets_mask.mjs"
import { kindOf, onChange } from "./widgets_node.mjs"
import { OutpaintFrame } from "./widgets_outpaint.mjs"
import { Panel, mountAll } from "./widgets_panel.mjs"
import { SizePicker } from "./widgets_size.mjs"
import { TokenCounter } from "./widgets_tokens.mjs"
import { t } from "./words.mjs"

/** @import { Node } from "./widgets_node.mjs" */

/** Nodes with values that the server can judge. */
const JUDGED = new Set(
  [
    ...["Model", "Prompt", "Sampler", "Inputs", "Outpaint", "Lora", "ControlNet", "IPAdapter", "Accelerator"],
    ...["NativeAccelerator", "FaceFix", "Safety", "Delivery"]
  ].map((name) => `SD3Local${name}`)
)

/** @type {Record<string, new (node: Node, panel: Panel) => { look: () => void }>} */
const HELPERS = {
  SD3LocalSampler: SizePicker,
  SD3LocalPrompt: TokenCounter,
  SD3LocalFaceFix: TokenCounter,
  SD3LocalOutpaint: OutpaintFrame
}

const judge = new Judge(async (nodes) => (await call("/check", { body: { nodes } })).nodes)

/**
 * The button under SD3 Inputs that opens the mask editor, there while a node with a picture is connected.
 * @param {Node} node
 * @param {Panel} panel
 */
function maskButton(node, panel) {
  const place = panel.section("sd3local-mask")
  const paint = button(t("Paint the mask"), () => void paintMask(node))
  return {
    look() {
      place.replaceChildren(...(paintable(node) ? [paint] : []))
      panel.fit()
    }
  }
}

/** @param {Node} node */
function help(node) {
  const kind = kindOf(node)
  const panel = new Panel(node)
  const helper = kind === "SD3LocalInputs" ? maskButton(node, panel) : HELPERS[kind] && new HELPERS[kind](node, panel)
  const judged = new Judged(node, panel)
  const look = () => {
    helper?.look()
    judge.look(judged)
  }
  onChange(node, look)
  // A workflow that is being opened gives its values and links only now.
  setTimeout(look)
}

export const widgets = {
  name: "sd3local.widgets",
  setup() {
    app.canvas.canvas.addEventListener("litegraph:set-graph", () => {
      // The editor shows the other graph's nodes only then.
      setTimeout(mountAll, PAUSE)
    })
  },
  /** @param {Node} node */
  nodeCreated(node) {
    if (JUDGED.has(kindOf(node))) help(node)
  },
  /** @param {Node} node */
  getNodeMenuItems(node) {
    if (kindOf(node) !== "SD3LocalInputs") return []
    return [{ content: t("Paint the mask"), callback: () => void paintMask(node) }]
  }
}
