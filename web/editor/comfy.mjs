/** ComfyUI's own modules: the two that its frontend offers to extensions. */

export { app } from "../../../scripts/app.js"
