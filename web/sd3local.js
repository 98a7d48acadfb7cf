/** The pack's part of ComfyUI's editor: one extension a feature. */

import { app } from "./editor/comfy.mjs"
import { language } from "./editor/language.mjs"
import { models } from "./editor/models.mjs"

for (const extension of [language, models]) app.registerExtension(extension)
