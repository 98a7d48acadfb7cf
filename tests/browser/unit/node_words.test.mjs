import assert from "node:assert/strict"
import { test } from "node:test"

import { define, label, ours } from "../../../web/editor/node_words.mjs"

const WORDS = {
  display_name: "SD3 Modèle",
  description: "Charge.",
  inputs: { model: { name: "modèle", tooltip: "Un fichier." }, lora: { name: "LoRA", tooltip: "Avant." } },
  outputs: { 0: { name: "image", tooltip: "Le résultat." } }
}

test("only this pack's nodes are put into words", () => {
  assert.deepEqual(Object.keys(ours({ SD3LocalModel: WORDS, KSampler: WORDS })), ["SD3LocalModel"])
})

test("a definition says everything in the user's language", () => {
  /** @type {import("../../../web/editor/node_words.mjs").Definition} */
  const definition = {
    display_name: "SD3 Model",
    description: "Loads.",
    input: {
      required: {
        model: ["COMBO", { display_name: "model", tooltip: "A file." }],
        other: ["INT", { tooltip: "New." }]
      },
      optional: { lora: ["SD3_LORA", { display_name: "lora", tooltip: "Earlier." }] }
    },
    output_tooltips: ["The result.", "New."]
  }
  define(definition, WORDS)
  assert.deepEqual(definition, {
    display_name: "SD3 Modèle",
    description: "Charge.",
    input: {
      required: {
        model: ["COMBO", { display_name: "modèle", tooltip: "Un fichier." }],
        // What has no translation yet stays.
        other: ["INT", { tooltip: "New." }]
      },
      optional: { lora: ["SD3_LORA", { display_name: "LoRA", tooltip: "Avant." }] }
    },
    output_tooltips: ["Le résultat.", "New."]
  })
})

test("a node's widgets and slots get names, and keep their ids", () => {
  /** @type {import("../../../web/editor/node_words.mjs").Node} */
  const node = {
    widgets: [{ name: "model" }, { name: "control_after_generate", label: "contrôle" }],
    inputs: [{ name: "lora", localized_name: "lora" }],
    outputs: [{ name: "image", localized_name: "picture" }]
  }
  label(node, WORDS)
  assert.deepEqual(node, {
    widgets: [
      { name: "model", label: "modèle" },
      { name: "control_after_generate", label: "contrôle" }
    ],
    inputs: [{ name: "lora", localized_name: "LoRA" }],
    outputs: [{ name: "image", localized_name: "image" }]
  })
  label({}, WORDS)
})
