/**
 * The user's presets, one file each in ComfyUI's userdata, and those that come with the pack.
 *
 * @typedef {import("./preset_plan.mjs").Preset} Preset
 * @typedef {{ preset: Preset, file: string | null, problems: string[] }} Kept `file` is null for the pack's own;
 *   `problems` tells what in it is none of today's inputs or values
 */

import { app } from "./comfy.mjs"
import { slug } from "./preset_plan.mjs"
import { Refused, call } from "./server.mjs"
import { t } from "./words.mjs"

export const FORMAT = "sd3local.preset"
const FOLDER = "sd3local/presets"

/** Tells whoever shows presets that there are others now. */
export const changed = new EventTarget()

/** @returns {Promise<Kept[]>} all of them, the user's first, by name; a file that is no preset is told, and kept */
export async function list() {
  /** @type {{ shipped: Preset[], files: string[] }} */
  const { shipped, files } = await call("/presets")
  const own = await Promise.all(files.map(read))
  own.sort((one, other) => one.preset.name.localeCompare(other.preset.name))
  return [...own, ...shipped.map((preset) => ({ preset, file: null, problems: [] }))]
}

/**
 * @param {string} file
 * @returns {Promise<Kept>}
 */
async function read(file) {
  try {
    const response = await app.api.getUserData(`${FOLDER}/${file}`)
    if (!response.ok) throw new Refused([t("The server answered {status}.", { status: response.status })])
    return { ...(await judge(await response.json())), file }
  } catch (error) {
    const name = file.replace(/\.json$/, "")
    const problems = error instanceof Refused ? error.messages : [String(error)]
    return { preset: { format: FORMAT, version: 1, name, nodes: [] }, file, problems }
  }
}

/**
 * A preset as the server understands it, and what in it is wrong. Throws Refused for what is no preset.
 * @param {unknown} given
 * @returns {Promise<Kept>}
 */
export async function judge(given) {
  const { preset, problems } = await call("/presets/check", { body: given })
  return { preset, file: null, problems: problems.map((/** @type {{ message: string }} */ one) => one.message) }
}

/**
 * Keeps a preset in a new file. What is wrong with its values stays in it, so that nothing is lost where another
 * version of the pack wrote it.
 * @param {Preset} preset
 */
export async function add(preset) {
  const taken = new Set((await call("/presets")).files)
  const base = slug(preset.name)
  let file = `${base}.json`
  for (let number = 2; taken.has(file); number++) file = `${base}-${number}.json`
  await write(file, preset, false)
}

/**
 * Replaces one.
 * @param {string} file
 * @param {Preset} preset
 */
export async function replace(file, preset) {
  await write(file, preset, true)
}

/**
 * The file of a preset as it is, with all that is wrong with it.
 * @param {Kept} kept
 * @returns {Promise<any>}
 */
export async function written(kept) {
  if (kept.file === null) return kept.preset
  return (await app.api.getUserData(`${FOLDER}/${kept.file}`)).json()
}

/** @param {string} file */
export async function remove(file) {
  const response = await app.api.deleteUserData(`${FOLDER}/${file}`)
  if (!response.ok && response.status !== 404) throw new Refused([refusal(response)])
  changed.dispatchEvent(new Event("change"))
}

/**
 * @param {string} file
 * @param {Preset} preset
 * @param {boolean} overwrite
 */
async function write(file, preset, overwrite) {
  const options = { overwrite, stringify: false, throwOnError: false }
  const response = await app.api.storeUserData(`${FOLDER}/${file}`, JSON.stringify(preset, null, 1), options)
  if (!response.ok) throw new Refused([refusal(response)])
  changed.dispatchEvent(new Event("change"))
}

/** @param {Response} response */
function refusal(response) {
  return t("The server answered {status}.", { status: `${response.status} ${response.statusText}` })
}
