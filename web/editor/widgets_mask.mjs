/** ComfyUI's mask editor, opened on the picture that a node takes. */

import { app } from "./comfy.mjs"
import { toast } from "./tell.mjs"
import { sourceOf } from "./widgets_node.mjs"
import { t } from "./words.mjs"

/** @import { Node } from "./widgets_node.mjs" */

const COMMAND = "Comfy.MaskEditor.OpenMaskEditor"

/**
 * The node whose picture can be painted on: the one that the mask comes from, else the one of the seed image.
 * @param {Node} node SD3 Inputs
 * @returns {Node | null}
 */
export function paintable(node) {
  const sources = [sourceOf(node, "maskImage"), sourceOf(node, "seedImage")]
  // The editor puts what was painted into the widget `image`, as Load Image has it.
  return sources.find((source) => source?.widgets?.some(({ name }) => name === "image")) ?? null
}

/**
 * Opens the mask editor. What is painted comes in by the mask's link, which is made where there is none.
 * @param {Node} node SD3 Inputs
 */
export async function paintMask(node) {
  const source = paintable(node)
  if (source === null || !(source.imgs?.length || source.previewMediaType === "image")) {
    const told = t(
      "There is no picture to paint on: connect ComfyUI's Load Image to the seed image, and choose one there."
    )
    toast("info", t("Paint the mask"), told)
    return
  }
  if (sourceOf(node, "maskImage") === null) {
    const slot = (source.outputs ?? []).findIndex(({ type }) => type === "MASK")
    if (slot >= 0) source.connect(slot, node, "maskImage")
  }
  // The command works on the selection.
  app.canvas.deselectAll()
  app.canvas.select(source)
  await app.extensionManager.command.execute(COMMAND)
}
