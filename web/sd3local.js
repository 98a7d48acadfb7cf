/** The pack's part of ComfyUI's editor: one extension a feature. */

import { app } from "./editor/comfy.mjs"
import { language } from "./editor/language.mjs"
import { models } from "./editor/models.mjs"
import { widgets } from "./editor/widgets.mjs"

for (const extension of [language, models, widgets]) app.registerExtension(extension)
