// Calls of @runware/sdk-js, the older JavaScript client: WebSocket alone, with the names that the API had before.
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { finish, outcomes, told } from "./outcomes.mjs";

const { Runware } = await import(told.module);
const { taskType, ...plain } = told.plain;
const base64 = (path) => readFileSync(path).toString("base64");
const dataURI = (path) => `data:image/png;base64,${base64(path)}`;
const { seed, mask, guide } = told.files;

const runware = await Runware.initialize({ apiKey: told.key, url: told.ws });
const paint = (fields = {}) => runware.requestImages({ ...plain, ...fields });

const unknownKey = async () => {
  const other = await Runware.initialize({ apiKey: "wrong".repeat(8), url: told.ws });
  return other.requestImages(plain);
};

const uploadThenUse = async () => {
  const uploaded = await runware.imageUpload({ image: dataURI(seed) });
  return [uploaded, ...(await paint({ seedImage: uploaded.imageUUID, strength: 0.6 }))];
};

// As the client itself polls for other media: what is told twice counts once.
const poll = async (numberResults) => {
  const accepted = await paint({ numberResults, deliveryMethod: "async" });
  const polled = new Map();
  while (polled.size < numberResults) {
    const items = await runware.getResponse({ taskUUID: accepted[0].taskUUID });
    for (const item of items) if (item.status === "success") polled.set(item.imageUUID, item);
  }
  return { accepted, polled: [...polled.values()] };
};

const parts = [];
const calls = {
  text: paint(),
  image: paint({ seedImage: dataURI(seed), strength: 0.6 }),
  inpaint: paint({ seedImage: dataURI(seed), maskImage: base64(mask) }),
  lora: paint({ lora: [{ model: told.lora, weight: 1 }] }),
  controlNet: paint({
    controlNet: [{ model: told.controlNet, guideImage: dataURI(guide), weight: 1, controlMode: "balanced" }],
  }),
  accelerator: paint({ acceleratorOptions: { fbCache: true, fbCacheThreshold: told.threshold } }),
  ...Object.fromEntries(
    Object.entries(told.kinds).map(([outputType, outputFormat]) => [
      `${outputType} ${outputFormat} sync`,
      paint({ outputType, outputFormat }),
    ]),
  ),
  "four sync": paint({ numberResults: 4, onPartialImages: (some) => parts.push(...some.map((one) => one.imageUUID)) }),
  poll: poll(1),
  "poll four": poll(4),
  upload: uploadThenUse(),
  cost: paint({ includeCost: true, checkNSFW: false }),
  models: runware.modelSearch({ search: "nano", category: "checkpoint", limit: 3 }).then(({ results }) => results),
  "unknown model": paint({ model: "runware:999@1" }),
  "bad parameter": paint({ steps: 0 }),
  "short prompt": paint({ positivePrompt: "a" }),
  "unknown task": runware.getResponse({ taskUUID: randomUUID() }),
  "bad key": unknownKey(),
};

const ended = await outcomes(calls, (error) => error?.error ?? { message: String(error) });
ended.parts = { result: parts };
await runware.disconnect();
finish(ended);
