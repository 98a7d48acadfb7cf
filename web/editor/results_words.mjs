/** What is said of a run while it goes on and after it, and of two that are compared. */

import { t } from "./words.mjs"

/**
 * What the server tells of a run: steps of all results, and the seconds left where they can be told. `aside` are steps
 * of a face that is painted again.
 * @typedef {{ done: number, total: number, reused: number, left: number | null, aside: boolean }} Progress
 *
 * A picture that the server keeps for as long as it runs.
 * @typedef {{ filename: string, subfolder: string, type: string }} File
 *
 * What came of a run, as pipelines/summary.py gives it. The `drawings` are the results with the faces that were found in
 * them and, last, what an accelerator decided about each step.
 * @typedef {{
 *   width: number, height: number, steps: number, reused: number, accelerator: string | null, speedup: number | null,
 *   seconds: number, seeds: string[], unsafe: number[], notes: string[], details: string,
 *   drawings: (File & { width: number, height: number })[]
 * }} Summary
 *
 * One of two batches that are compared: with its run's time and steps where they are known.
 * @typedef {{ label: string, count: number, seconds?: number, steps?: number, reused?: number }} Side
 *
 * How far two pictures are apart; `psnr` is null where they are equal, `mean` and `largest` go from 0 to 1.
 * @typedef {{ psnr: number | null, mean: number, largest: number }} Apart
 */

const SHOWN_SEEDS = 3

/**
 * @param {number} seconds
 * @returns {string} as people say it
 */
export function duration(seconds) {
  if (seconds < 10) return t("{seconds} s", { seconds: seconds.toFixed(1) })
  const whole = Math.round(seconds)
  if (whole < 100) return t("{seconds} s", { seconds: whole })
  return t("{minutes} min {seconds} s", { minutes: Math.floor(whole / 60), seconds: whole % 60 })
}

/**
 * @param {Progress} progress
 * @returns {string}
 */
export function progressText({ done, total, reused, left, aside }) {
  if (aside) return t("a face: step {done} of {total}", { done, total })
  const parts = [t("step {done} of {total}", { done, total })]
  if (reused > 0) parts.push(t("{count} reused", { count: reused }))
  // To the whole second: what is left is a guess.
  if (left !== null)
    parts.push(t("{time} left", { time: duration(left < 10 ? Math.ceil(left) : left).replace(".0", "") }))
  return parts.join(" · ")
}

/**
 * @param {Summary} summary
 * @returns {string} what a glance is for
 */
export function headline({ width, height, steps, seconds, seeds }) {
  const parts = [`${width} x ${height}`, t("{count} steps", { count: steps }), duration(seconds)]
  if (seeds.length === 1) parts.push(t("seed {seed}", { seed: seeds[0] }))
  else if (seeds.length <= SHOWN_SEEDS) parts.push(t("seeds {seeds}", { seeds: seeds.join(", ") }))
  else parts.push(t("seeds {first} to {last}", { first: seeds[0], last: seeds[seeds.length - 1] }))
  return parts.join(" · ")
}

/**
 * @param {Summary} summary
 * @returns {string} what the accelerator did; nothing where none was on
 */
export function savings({ accelerator, steps, reused, speedup }) {
  if (accelerator === null) return ""
  const values = { name: accelerator, reused, steps }
  if (reused === 0 || speedup === null) return t("{name}: none of {steps} steps reused", values)
  const factor = speedup.toFixed(2)
  return t("{name}: {reused} of {steps} steps reused, {factor} times as fast by count", { ...values, factor })
}

/**
 * @param {Apart} apart
 * @returns {string}
 */
export function apartText({ psnr, mean, largest }) {
  if (psnr === null) return t("The pictures are equal.")
  const values = { psnr: psnr.toFixed(1), mean: (255 * mean).toFixed(2), largest: Math.round(255 * largest) }
  return t("PSNR {psnr} dB · difference {mean} of 255 on average, {largest} at most", values)
}

/**
 * @param {Side} a
 * @param {Side} b
 * @returns {string[]} lines about the runs, as far as they are known
 */
export function runsText(a, b) {
  const lines = []
  for (const { label, seconds, steps, reused } of [a, b]) {
    if (seconds === undefined || steps === undefined || reused === undefined) continue
    const values = { label, time: duration(seconds), steps, reused }
    lines.push(
      reused > 0
        ? t("{label}: {time}, {reused} of {steps} steps reused", values)
        : t("{label}: {time}, {steps} steps", values)
    )
  }
  if (a.seconds !== undefined && b.seconds) {
    const factor = (a.seconds / b.seconds).toFixed(2)
    lines.push(t("{b} is {factor} times as fast", { b: b.label, factor }))
  }
  if (a.count !== b.count) {
    const values = { a: a.count, b: b.count, count: Math.min(a.count, b.count) }
    lines.push(t("{a} and {b} pictures: the first {count} are compared", values))
  }
  return lines
}
