/** The pack's routes of ComfyUI's server. */

import { app } from "./comfy.mjs"
import { t } from "./words.mjs"

/** What the server refused. */
export class Refused extends Error {
  /** @param {string[]} messages one for each thing that is wrong */
  constructor(messages) {
    super(messages.join("\n"))
    this.messages = messages
  }
}

/**
 * What a route answers, as JSON; null where it answers nothing.
 *
 * Throws Refused with what the server said where it did not do it.
 * @param {string} path below /sd3local
 * @param {{ method?: string, body?: unknown }} [options] `body` is sent as JSON, by POST unless `method` says else
 * @returns {Promise<any>}
 */
export async function call(path, { method, body } = {}) {
  /** @type {RequestInit} */
  const options = { cache: "no-store", method: method ?? (body === undefined ? "GET" : "POST") }
  if (body !== undefined) {
    options.headers = { "Content-Type": "application/json" }
    options.body = JSON.stringify(body)
  }
  let response
  try {
    response = await app.api.fetchApi(`/sd3local${path}`, options)
  } catch (error) {
    throw new Refused([t("The server does not answer: {reason}", { reason: String(error) })])
  }
  if (response.status === 204) return null
  const told = await response.json().catch(() => null)
  if (response.ok) return told
  /** @type {{ message: string }[] | undefined} */
  const errors = told?.errors
  const status = `${response.status} ${response.statusText}`
  throw new Refused(errors?.map((error) => error.message) ?? [t("The server answered {status}.", { status })])
}

/**
 * @param {unknown} error
 * @returns {string[]} what it says, in lines for the user
 */
export function messages(error) {
  return error instanceof Refused ? error.messages : [error instanceof Error ? error.message : String(error)]
}

/**
 * A text of the user's as JSON. Throws Refused where it is none.
 * @param {string} text
 * @returns {unknown}
 */
export function parsed(text) {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new Refused([t("This is no JSON: {reason}", { reason: error instanceof Error ? error.message : "" })])
  }
}
