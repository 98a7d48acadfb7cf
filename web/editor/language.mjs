import { app } from "./comfy.mjs"
import { useStyles } from "./dom.mjs"
import { define, label, ours } from "./node_words.mjs"
import { speak } from "./words.mjs"

/** @type {Record<string, import("./node_words.mjs").Words>} */
let nodes = {}

/** What the other features need first: the user's language, and the pack's styles. */
export const language = {
  name: "sd3local.language",
  async init() {
    useStyles()
    const locale = app.extensionManager.setting.get("Comfy.Locale") ?? "en"
    const response = await app.api.fetchApi("/i18n")
    // All packs' texts, by language; the interface stays English where there are none.
    const texts = response.ok ? await response.json() : {}
    speak(texts[locale]?.sd3local ?? {})
    nodes = ours(texts[locale]?.nodeDefs ?? {})
  },
  /** @param {Record<string, import("./node_words.mjs").Definition>} definitions */
  addCustomNodeDefs(definitions) {
    for (const [node, words] of Object.entries(nodes)) if (definitions[node]) define(definitions[node], words)
  },
  /** @param {import("./node_words.mjs").Node} node */
  nodeCreated(node) {
    const words = nodes[node.comfyClass ?? ""]
    if (words) label(node, words)
  }
}
