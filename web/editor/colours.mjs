/**
 * The colour of each kind of node, from dark to light: also without telling hues apart one can tell neighbours apart.
 * All are dark, because ComfyUI makes node colours lighter itself where the theme is light.
 * @type {Record<string, { color: string, bgcolor: string }>} of the title and of the body
 */
export const KINDS = {
  loading: { color: "#1b1220", bgcolor: "#25192c" },
  delivery: { color: "#1b1d23", bgcolor: "#23272f" },
  afterwork: { color: "#31151c", bgcolor: "#4d212c" },
  sampling: { color: "#11243b", bgcolor: "#1a385b" },
  addOns: { color: "#3b2416", bgcolor: "#593622" },
  pictures: { color: "#183235", bgcolor: "#244c50" },
  text: { color: "#1c3a21", bgcolor: "#2a5731" },
  acceleration: { color: "#433813", bgcolor: "#64531d" }
}

/** @type {Record<string, keyof typeof KINDS>} */
export const KIND_OF = {
  SD3LocalModel: "loading",
  SD3LocalPrompt: "text",
  SD3LocalPicture: "pictures",
  SD3LocalInputs: "pictures",
  SD3LocalOutpaint: "pictures",
  SD3LocalLora: "addOns",
  SD3LocalControlNet: "addOns",
  SD3LocalIPAdapter: "addOns",
  SD3LocalAccelerator: "acceleration",
  SD3LocalNativeAccelerator: "acceleration",
  SD3LocalCalibrate: "acceleration",
  SD3LocalFaceFix: "afterwork",
  SD3LocalSafety: "afterwork",
  SD3LocalSampler: "sampling",
  SD3LocalDelivery: "delivery",
  SD3LocalCompare: "delivery"
}

/** Gives the pack's nodes the colours of their kinds; those that a workflow brings come after and stay. */
export const colours = {
  name: "sd3local.colours",
  /** @param {{ comfyClass?: string, color?: string, bgcolor?: string }} node */
  nodeCreated(node) {
    const kind = KINDS[KIND_OF[node.comfyClass ?? ""]]
    if (!kind) return
    node.color ??= kind.color
    node.bgcolor ??= kind.bgcolor
  }
}
