/** The pack's part of ComfyUI's editor: one extension a feature. */

import { colours } from "./editor/colours.mjs"
import { app } from "./editor/comfy.mjs"
import { language } from "./editor/language.mjs"
import { models } from "./editor/models.mjs"
import { sidebar } from "./editor/panel.mjs"
import { pictures } from "./editor/pictures.mjs"
import { presets } from "./editor/presets.mjs"
import { requests } from "./editor/requests.mjs"
import { results } from "./editor/results.mjs"
import { widgets } from "./editor/widgets.mjs"

const features = [language, colours, models, widgets, pictures, presets, requests, results, sidebar]

for (const extension of features) app.registerExtension(extension)
