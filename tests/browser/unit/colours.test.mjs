import assert from "node:assert/strict"
import { readFileSync } from "node:fs"
import { test } from "node:test"

import { KINDS, KIND_OF, colours } from "../../../web/editor/colours.mjs"

/** Relative luminance (WCAG 2) of "#rrggbb". */
function luminance(/** @type {string} */ colour) {
  const [red, green, blue] = [1, 3, 5]
    .map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue
}

function contrast(/** @type {string} */ one, /** @type {string} */ other) {
  const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b)
  return (high + 0.05) / (low + 0.05)
}

/** As ComfyUI shows a node's colour in a light theme: 0.5 more of HSL's lightness. */
function lightened(/** @type {string} */ colour) {
  const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255)
  const [low, high] = [Math.min(...parts), Math.max(...parts)]
  const lightness = (low + high) / 2
  const saturation = (high - low) / (1 - Math.abs(2 * lightness - 1))
  const span = saturation * (1 - Math.abs(2 * (lightness + 0.5) - 1))
  const made = parts.map((part) => lightness + 0.5 + (high > low ? ((part - lightness) / (high - low)) * span : 0))
  return `#${made
    .map((part) =>
      Math.round(part * 255)
        .toString(16)
        .padStart(2, "0")
    )
    .join("")}`
}

test("every node of the pack has a kind, and every kind a node", () => {
  const names = /** @type {Record<string, unknown>} */ (
    JSON.parse(readFileSync(new URL("../../../locales/en/nodeDefs.json", import.meta.url), "utf8"))
  )
  assert.deepEqual(Object.keys(KIND_OF).sort(), Object.keys(names).sort())
  assert.deepEqual(new Set(Object.values(KIND_OF)), new Set(Object.keys(KINDS)))
})

test("kinds differ in lightness, not in hue alone", () => {
  const bodies = Object.values(KINDS).map((kind) => kind.bgcolor)
  const steps = bodies.slice(1).map((body, index) => contrast(body, bodies[index]))
  assert.ok(Math.min(...steps) >= 1.1, String(steps))
  const lightnesses = bodies.map(luminance)
  assert.deepEqual(
    lightnesses,
    lightnesses.toSorted((a, b) => a - b)
  )
})

test("titles and names of slots can be read on them, in the dark and in the light theme", () => {
  // NODE_TITLE_COLOR, NODE_TEXT_COLOR of ComfyUI's palettes "dark" and "light".
  for (const { color, bgcolor } of Object.values(KINDS)) {
    assert.ok(contrast("#999999", color) >= 4, color)
    assert.ok(contrast("#aaaaaa", bgcolor) >= 3, bgcolor)
    assert.ok(contrast("#222222", lightened(color)) >= 4.5, color)
    assert.ok(contrast("#444444", lightened(bgcolor)) >= 3, bgcolor)
  }
})

test("a node gets the colours of its kind, once", () => {
  /** @type {{ comfyClass: string, color?: string, bgcolor?: string }} */
  const node = { comfyClass: "SD3LocalSampler" }
  colours.nodeCreated(node)
  assert.deepEqual({ color: node.color, bgcolor: node.bgcolor }, KINDS.sampling)
  const own = { comfyClass: "SD3LocalSampler", color: "#111111", bgcolor: "#222222" }
  colours.nodeCreated(own)
  assert.equal(own.color, "#111111")
})

test("other packs' nodes keep their look", () => {
  const node = { comfyClass: "KSampler" }
  colours.nodeCreated(node)
  assert.deepEqual(node, { comfyClass: "KSampler" })
})
