import assert from "node:assert/strict"
import { test } from "node:test"

import { apartText, duration, headline, progressText, runsText, savings } from "../../../web/editor/results_words.mjs"

const RUN = { done: 12, total: 28, reused: 0, left: null, aside: false }

/** @type {import("../../../web/editor/results_words.mjs").Summary} */
const SUMMARY = {
  width: 1024,
  height: 768,
  steps: 28,
  reused: 9,
  accelerator: "TeaCache",
  speedup: 28 / 19,
  seconds: 12.34,
  seeds: ["7"],
  unsafe: [],
  notes: [],
  details: "",
  drawings: []
}

test("times are said as people say them", () => {
  assert.deepEqual([0.04, 9.94, 12.4, 99.4, 100, 3725].map(duration), [
    "0.0 s",
    "9.9 s",
    "12 s",
    "99 s",
    "1 min 40 s",
    "62 min 5 s"
  ])
})

test("progress says no more than is known", () => {
  assert.equal(progressText(RUN), "step 12 of 28")
  assert.equal(progressText({ ...RUN, reused: 4, left: 8.2 }), "step 12 of 28 · 4 reused · 9 s left")
  assert.equal(progressText({ ...RUN, left: 9.7 }), "step 12 of 28 · 10 s left")
  assert.equal(progressText({ ...RUN, left: 0 }), "step 12 of 28 · 0 s left")
  assert.equal(progressText({ ...RUN, left: 10.04 }), "step 12 of 28 · 10 s left")
})

test("a face that is painted again is told apart", () => {
  assert.equal(progressText({ ...RUN, done: 2, total: 10, aside: true }), "a face: step 2 of 10")
})

test("the headline holds what a glance is for", () => {
  assert.equal(headline(SUMMARY), "1024 x 768 · 28 steps · 12 s · seed 7")
  assert.match(headline({ ...SUMMARY, seeds: ["7", "8"] }), /seeds 7, 8$/)
  assert.match(headline({ ...SUMMARY, seeds: ["7", "8", "9", "10"] }), /seeds 7 to 10$/)
})

test("seeds keep all their digits", () => {
  assert.match(headline({ ...SUMMARY, seeds: ["9223372036854775807"] }), /seed 9223372036854775807$/)
})

test("savings are told where an accelerator was on", () => {
  assert.equal(savings(SUMMARY), "TeaCache: 9 of 28 steps reused, 1.47 times as fast by count")
  assert.equal(savings({ ...SUMMARY, reused: 0, speedup: 1 }), "TeaCache: none of 28 steps reused")
  assert.equal(savings({ ...SUMMARY, accelerator: null, speedup: null }), "")
})

test("differences are in the 255 levels of a picture's channel", () => {
  assert.equal(
    apartText({ psnr: 42.26, mean: 0.00196, largest: 0.2 }),
    "PSNR 42.3 dB · difference 0.50 of 255 on average, 51 at most"
  )
  assert.equal(apartText({ psnr: null, mean: 0, largest: 0 }), "The pictures are equal.")
})

test("runs are compared as far as they are known", () => {
  const plain = { label: "plain", count: 1 }
  const slow = { label: "slow", count: 2, seconds: 12, steps: 28, reused: 0 }
  const fast = { label: "fast", count: 2, seconds: 8, steps: 28, reused: 9 }
  assert.deepEqual(runsText(plain, plain), [])
  assert.deepEqual(runsText(plain, { ...fast, count: 1 }), ["fast: 8.0 s, 9 of 28 steps reused"])
  assert.deepEqual(runsText(slow, fast), [
    "slow: 12 s, 28 steps",
    "fast: 8.0 s, 9 of 28 steps reused",
    "fast is 1.50 times as fast"
  ])
  assert.deepEqual(runsText(plain, { ...plain, count: 3 }), ["1 and 3 pictures: the first 1 are compared"])
})
