/** Sizes that the models paint well. */

import { t } from "./words.mjs"

/** @typedef {{ ratio: string, width: number, height: number }} Size */

/** About a megapixel, in multiples of 64, as in SD3's training. */
const LYING = [
  { ratio: "1:1", width: 1024, height: 1024 },
  { ratio: "4:3", width: 1152, height: 896 },
  { ratio: "3:2", width: 1216, height: 832 },
  { ratio: "16:9", width: 1344, height: 768 },
  { ratio: "21:9", width: 1536, height: 640 }
]

/** @param {Size} size */
function upright({ ratio, width, height }) {
  return { ratio: ratio.split(":").reverse().join(":"), width: height, height: width }
}

/** @type {Size[]} */
export const SD3_SIZES = [...LYING, ...LYING.slice(1).map(upright)]

/** @type {Size[]} */
export const NANO_SIZES = [128, 192, 256].map((side) => ({ ratio: "1:1", width: side, height: side }))

export const NANO = "sd3-nano"

/** @param {{ width: number, height: number }} size */
function megapixels({ width, height }) {
  return t("{count} MP", { count: ((width * height) / 1e6).toFixed(2) })
}

/** @param {{ width: number, height: number }} size */
export function plainName({ width, height }) {
  return `${width} x ${height} · ${megapixels({ width, height })}`
}

/** @param {Size} size */
export function nameOf(size) {
  return `${size.ratio} · ${plainName(size)}`
}

/**
 * What a model is not made for in a size; nothing where it is.
 * @param {number} width
 * @param {number} height
 * @param {string} [model] its name, where it is known
 * @returns {string}
 */
export function advice(width, height, model) {
  if (model === NANO) {
    const good = [width, height].every((side) => side >= 96 && side <= 256)
    return good ? "" : t("sd3-nano paints best with sides of 96 to 256.")
  }
  const area = (width * height) / 1e6
  if (area < 0.6 || area > 1.6) {
    return t("SD3 paints best near 1 MP.")
  }
  return width % 64 || height % 64 ? t("SD3 paints best where both sides are multiples of 64.") : ""
}
