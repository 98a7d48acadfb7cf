import { app } from "./comfy.mjs"
import { useStyles } from "./dom.mjs"
import { speak } from "./words.mjs"

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
  }
}
