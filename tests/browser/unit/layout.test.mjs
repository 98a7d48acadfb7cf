import assert from "node:assert/strict"
import { test } from "node:test"
import { columns, places } from "../../../web/editor/layout.mjs"

/** @type {import("../../../web/editor/layout.mjs").Prompt} */
const graph = {
  model: { class_type: "M", inputs: { file: "a" } },
  lora1: { class_type: "L", inputs: { weight: 1 } },
  lora2: { class_type: "L", inputs: { weight: 1, lora: ["lora1", 0] } },
  sampler: { class_type: "S", inputs: { model: ["model", 0], lora: ["lora2", 0], size: [1, 2, 3] } },
  end: { class_type: "D", inputs: { result: ["sampler", 2] } }
}

test("each node stands to the right of all that it takes from, and beside what it goes into", () => {
  assert.deepEqual(Object.fromEntries(columns(graph)), { model: 1, lora1: 0, lora2: 1, sampler: 2, end: 3 })
})

test("a circle is laid out all the same", () => {
  const circle = { a: { class_type: "A", inputs: { x: ["b", 0] } }, b: { class_type: "B", inputs: { x: ["a", 0] } } }
  assert.equal(columns(circle).size, 2)
})

for (const height of [50, 1000]) {
  test(`no two nodes of about ${height} pixels lie over each other`, () => apart(height))
}

/** @param {number} height */
function apart(height) {
  /** @type {Map<string, [number, number]>} */
  const sizes = new Map(Object.keys(graph).map((key, index) => [key, [100 + index, height + index]]))
  const found = places(columns(graph), sizes, [10, 20])
  assert.ok(Math.max(...[...found.values()].map(([, y]) => y)) < 1500)
  const boxes = [...found].map(([key, [x, y]]) => {
    const [width, height] = sizes.get(key) ?? [0, 0]
    return { left: x, top: y, right: x + width, bottom: y + height }
  })
  assert.equal(boxes.length, 5)
  for (const one of boxes) {
    for (const other of boxes) {
      if (one === other) continue
      assert.ok(
        one.right < other.left || other.right < one.left || one.bottom < other.top || other.bottom < one.top,
        JSON.stringify([one, other])
      )
    }
  }
}
