import assert from "node:assert/strict"
import { test } from "node:test"

import { NANO, NANO_SIZES, SD3_SIZES, advice, nameOf } from "../../../web/editor/sizes.mjs"
import { Judge, PAUSE } from "../../../web/editor/widgets_check.mjs"

/** @import { Judged, Verdict } from "../../../web/editor/widgets_check.mjs" */

test("the sizes on offer are what the models paint well", () => {
  for (const { width, height } of SD3_SIZES) assert.equal(advice(width, height), "")
  for (const { width, height } of NANO_SIZES) assert.equal(advice(width, height, NANO), "")
  const [lying, upright] = ["3:2", "2:3"].map((ratio) => SD3_SIZES.find((size) => size.ratio === ratio))
  assert.deepEqual([lying?.width, lying?.height], [upright?.height, upright?.width])
  assert.equal(nameOf(SD3_SIZES[0]), "1:1 · 1024 x 1024 · 1.05 MP")
})

test("ratios are named after their sizes", () => {
  for (const { ratio, width, height } of SD3_SIZES) {
    const [across, down] = ratio.split(":").map(Number)
    assert.ok(Math.abs(Math.log(width / height / (across / down))) < 0.05, ratio)
  }
})

test("other sizes have advice", () => {
  assert.match(advice(512, 512), /1 MP/)
  assert.match(advice(2048, 2048), /1 MP/)
  assert.match(advice(1008, 1024), /multiples of 64/)
  assert.match(advice(1024, 1024, NANO), /sd3-nano/)
})

/** @type {Verdict} */
const GOOD = { problems: [], idle: [] }

/**
 * A node that is judged, and what it was told.
 * @param {string} name
 */
function asked(name) {
  /** @type {Verdict[]} */
  const shown = []
  const judged = { question: () => ({ node: name }), show: (/** @type {Verdict} */ verdict) => shown.push(verdict) }
  return { judged: /** @type {Judged} */ (/** @type {unknown} */ (judged)), shown }
}

const pause = () => new Promise((resolve) => setTimeout(resolve, PAUSE + 60))

test("nodes that change together are asked about together, and once", async () => {
  /** @type {object[][]} */
  const questions = []
  const judge = new Judge(async (nodes) => {
    questions.push(nodes)
    return nodes.map(() => GOOD)
  })
  const [one, two] = [asked("one"), asked("two")]
  judge.look(one.judged)
  judge.look(two.judged)
  judge.look(one.judged)
  await pause()
  assert.deepEqual(questions, [[{ node: "one" }, { node: "two" }]])
  assert.deepEqual([one.shown, two.shown], [[GOOD], [GOOD]])
})

test("an answer that is out of date is not shown, and the node is asked about again", async () => {
  /** @type {((verdicts: Verdict[]) => void)[]} */
  const answers = []
  const judge = new Judge(() => new Promise((resolve) => answers.push(resolve)))
  const one = asked("one")
  judge.look(one.judged)
  await pause()
  judge.look(one.judged)
  await pause()
  // One question at a time.
  assert.equal(answers.length, 1)
  answers[0]([{ problems: [{ message: "old" }], idle: [] }])
  await pause()
  assert.equal(answers.length, 2)
  answers[1]([GOOD])
  await pause()
  assert.deepEqual(one.shown, [GOOD])
})

test("a server that fails is asked again at the next change", async () => {
  let away = true
  const judge = new Judge(async (nodes) => {
    if (away) throw new Error("away")
    return nodes.map(() => GOOD)
  })
  const one = asked("one")
  judge.look(one.judged)
  await pause()
  away = false
  judge.look(one.judged)
  await pause()
  assert.deepEqual(one.shown, [GOOD])
})
