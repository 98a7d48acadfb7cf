import assert from "node:assert/strict"
import { test } from "node:test"
import { plan, slug } from "../../../web/editor/preset_plan.mjs"

/**
 * @param {string} kind
 * @param {Record<string, unknown>} values
 * @param {{ linked?: string[], choices?: Record<string, unknown[]> }} [more]
 */
function node(kind, values, { linked = [], choices = {} } = {}) {
  const inputs = Object.entries(values).map(([name, value]) => ({
    name,
    value,
    linked: linked.includes(name),
    choices: choices[name] ?? null
  }))
  return { kind, title: `My ${kind}`, inputs }
}

/** @param {...[string, Record<string, unknown>]} nodes */
function preset(...nodes) {
  const settings = nodes.map(([kind, values]) => ({ node: kind, values }))
  return { format: "sd3local.preset", version: 1, name: "Mine", nodes: settings }
}

test("settings of one node go to all nodes of its kind, where they change something", () => {
  const targets = [node("A", { steps: 1 }), node("B", { steps: 1 }), node("A", { steps: 9 })]
  const { changes, remarks } = plan(preset(["A", { steps: 9 }]), targets)
  assert.deepEqual(changes, [{ target: 0, name: "steps", value: 9 }])
  assert.deepEqual(remarks, [])
})

test("settings of several nodes of a kind go to as many, in order", () => {
  const given = preset(["A", { weight: 1 }], ["A", { weight: 2 }])
  const targets = [node("A", { weight: 0 }), node("A", { weight: 0 }), node("A", { weight: 0 })]
  const { changes, remarks } = plan(given, targets)
  assert.deepEqual(
    changes.map(({ target, value }) => [target, value]),
    [
      [0, 1],
      [1, 2]
    ]
  )
  assert.deepEqual(remarks, ["1 A stay as they are: the preset has fewer."])
  assert.deepEqual(plan(given, targets.slice(0, 1)).remarks, ["1 of 2 A are left out: there are no such nodes."])
})

test("what can't be applied is told, and the rest is applied", () => {
  const given = preset(["A", { gone: 1, seed: 5, model: "missing.safetensors", steps: 3 }], ["B", { x: 1 }])
  const target = node("A", { seed: 0, model: "a", steps: 0 }, { linked: ["seed"], choices: { model: ["a", "b"] } })
  const { changes, remarks } = plan(given, [target])
  assert.deepEqual(changes, [{ target: 0, name: "steps", value: 3 }])
  assert.deepEqual(remarks, [
    "My A has no input gone: 1 is left out.",
    "My A: seed comes from another node, and stays so.",
    "My A: model can't be missing.safetensors: there is no such choice here.",
    "1 of 1 B are left out: there are no such nodes."
  ])
})

test("a preset's file has a name that every system takes", () => {
  assert.equal(slug("Meine Ärger/.. 1"), "meine-ärger-1")
  assert.equal(slug("../../etc"), "etc")
  assert.equal(slug("夜景"), "夜景")
  assert.equal(slug("***"), "preset")
  assert.ok(slug("a ".repeat(99)).length <= 60)
})
