/**
 * Places for the nodes of a graph: in columns, each node to the right of all that it takes from.
 *
 * @typedef {Record<string, { class_type: string, inputs: Record<string, any> }>} Prompt a graph in ComfyUI's API format
 */

const GAP_X = 80
const GAP_Y = 60

/** From this height a column goes on beside itself, in pixels. */
const TALL = 1500

/**
 * @param {unknown} value
 * @returns {value is [string, number]}
 */
export function isLink(value) {
  return Array.isArray(value) && value.length === 2
}

/**
 * @param {Prompt} prompt
 * @returns {Map<string, number>} the column of each node, counted from the left
 */
export function columns(prompt) {
  /** @type {Map<string, number>} */
  const found = new Map()
  /** @type {(key: string) => number} */
  const depth = (key) => {
    const known = found.get(key)
    if (known !== undefined) return known
    // A graph that runs in a circle is laid out all the same.
    found.set(key, 0)
    const before = Object.values(prompt[key].inputs)
      .filter(isLink)
      .map(([source]) => source)
    const column = Math.max(-1, ...before.filter((source) => source in prompt).map(depth)) + 1
    found.set(key, column)
    return column
  }
  const deepest = Math.max(...Object.keys(prompt).map(depth))
  // Beside what they go into rather than far away from it.
  for (const key of [...found.keys()].sort((one, other) => (found.get(other) ?? 0) - (found.get(one) ?? 0))) {
    const users = Object.entries(prompt).filter(([, node]) =>
      Object.values(node.inputs).some((value) => isLink(value) && value[0] === key)
    )
    if (users.length) found.set(key, Math.min(...users.map(([user]) => found.get(user) ?? deepest)) - 1)
  }
  return found
}

/**
 * @param {Map<string, number>} columns
 * @param {Map<string, [number, number]>} sizes width and height of each node
 * @param {[number, number]} origin
 * @returns {Map<string, [number, number]>} the upper left corner of each
 */
export function places(columns, sizes, [left, top]) {
  /** @type {Map<string, [number, number]>} */
  const found = new Map()
  let x = left
  for (let column = 0; column <= Math.max(...columns.values()); column++) {
    let y = top
    let widest = 0
    for (const [key, of] of columns) {
      if (of !== column) continue
      const [width, height] = sizes.get(key) ?? [0, 0]
      if (y > top && y + height - top > TALL) {
        x += widest + GAP_X
        y = top
        widest = 0
      }
      found.set(key, [x, y])
      y += height + GAP_Y
      widest = Math.max(widest, width)
    }
    if (widest) x += widest + GAP_X
  }
  return found
}
