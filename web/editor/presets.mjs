/** Presets in the editor's menus: of a node, of a selection, and of the whole graph. */

import { isOurs } from "./graph.mjs"
import { apply, choose, meant, save } from "./preset_actions.mjs"
import { changed, list } from "./preset_store.mjs"
import { attempt } from "./tell.mjs"
import { t } from "./words.mjs"

/** @typedef {import("./preset_store.mjs").Kept} Kept */

/**
 * What there is: menus are made at once, so it is kept here.
 * @type {Kept[]}
 */
let known = []

/** @returns {Promise<Kept[]>} */
async function refresh() {
  known = await list()
  return known
}

/** @type {import("../../../scripts/app.js").ComfyExtension} */
export const presets = {
  name: "sd3local.presets",
  commands: [
    {
      id: "sd3local.savePreset",
      label: "Save as SD3 preset",
      icon: "pi pi-bookmark",
      function: () => save(meant())
    },
    {
      id: "sd3local.applyPreset",
      label: "Apply an SD3 preset",
      icon: "pi pi-bookmark-fill",
      function: () => attempt(t("Presets"), async () => choose(await refresh(), meant()))
    }
  ],
  menuCommands: [{ path: ["SD3 Local"], commands: ["sd3local.savePreset", "sd3local.applyPreset"] }],
  async setup() {
    changed.addEventListener("change", () => void attempt(t("Presets"), refresh))
    await attempt(t("Presets"), refresh)
  },
  getSelectionToolboxCommands(item) {
    return isOurs(/** @type {any} */ (item)) ? ["sd3local.savePreset", "sd3local.applyPreset"] : []
  },
  getNodeMenuItems(node) {
    if (!isOurs(node)) return []
    const fitting = known.filter(({ preset }) => preset.nodes.some((one) => one.node === node.comfyClass))
    return [
      null,
      {
        content: t("Apply a preset"),
        has_submenu: true,
        disabled: !fitting.length,
        submenu: {
          options: fitting.map((kept) => ({ content: kept.preset.name, callback: () => apply(kept, [node]) }))
        }
      },
      { content: t("Save as preset"), callback: () => save([node]) }
    ]
  }
}
