/** A small picture for a preset: of what the graph last drew. */

import { app } from "./comfy.mjs"
import { addressOf } from "./results_find.mjs"

const SIDE = 96

/**
 * @param {import("./graph.mjs").LGraphNode[]} nodes whose picture is preferred to those of others
 * @returns {Promise<string | null>} a data URI; null where nothing was drawn yet
 */
export async function pictureOf(nodes) {
  const images = [...nodes, ...(app.canvas.graph?.nodes ?? [])].flatMap((node) => shownBy(node))
  for (const source of images) {
    const image = new Image()
    image.src = source
    try {
      await image.decode()
    } catch {
      // The file is gone since.
      continue
    }
    return small(image)
  }
  return null
}

/**
 * @param {import("./graph.mjs").LGraphNode} node
 * @returns {string[]} the addresses of its last pictures
 */
function shownBy(node) {
  if (!(node.comfyClass ?? "").match(/^(SD3LocalDelivery|PreviewImage|SaveImage)$/)) return []
  const output = app.nodeOutputs?.[String(node.id)]
  return (output?.images ?? []).map(addressOf)
}

/**
 * @param {HTMLImageElement} image
 * @returns {string}
 */
function small(image) {
  const canvas = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE })
  const scale = SIDE / Math.min(image.naturalWidth, image.naturalHeight)
  const [width, height] = [image.naturalWidth * scale, image.naturalHeight * scale]
  canvas.getContext("2d")?.drawImage(image, (SIDE - width) / 2, (SIDE - height) / 2, width, height)
  return canvas.toDataURL("image/jpeg", 0.8)
}
