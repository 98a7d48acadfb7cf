// Calls of @runware/sdk, the newer JavaScript client, over REST and WebSocket.
import { randomUUID } from "node:crypto";
import { finish, outcomes, told } from "./outcomes.mjs";

const { createClient } = await import(told.module);
const { plain, files } = told;

const connect = async (apiKey) => {
  const client = await createClient({
    apiKey,
    transport: told.transport,
    httpBaseUrl: told.http,
    wsBaseUrl: told.ws,
    maxReconnectAttempts: 1,
  });
  await client.connect();
  return client;
};

const client = await connect(told.key);
const paint = (fields = {}) => client.run({ ...plain, ...fields });
const inputs = { seedImage: files.seed };

const unknownKey = async () => (await connect("wrong".repeat(8))).run(plain);

const uploadThenUse = async () => {
  const [uploaded] = await client.imageUpload({ image: files.seed });
  return [uploaded, ...(await paint({ inputs: { seedImage: uploaded.imageUUID }, strength: 0.6 }))];
};

// The client polls by itself; here one task is asked for again after it was done.
const poll = async () => {
  const taskUUID = randomUUID();
  await paint({ taskUUID });
  return { polled: await client.getResponse({ taskUUID }) };
};

const calls = {
  text: paint(),
  image: paint({ inputs, strength: 0.6 }),
  inpaint: paint({ inputs: { ...inputs, maskImage: files.mask } }),
  lora: paint({ lora: [{ model: told.lora, weight: 1 }] }),
  controlNet: paint({ controlNet: [{ model: told.controlNet, guideImage: files.guide, weight: 1 }] }),
  accelerator: paint({ acceleratorOptions: { fbCache: true, fbCacheThreshold: told.threshold } }),
  ...Object.fromEntries(
    Object.entries(told.kinds).flatMap(([outputType, outputFormat]) =>
      ["sync", "async"].map((deliveryMethod) => [
        `${outputType} ${outputFormat} ${deliveryMethod}`,
        paint({ outputType, outputFormat, deliveryMethod }),
      ]),
    ),
  ),
  "four sync": paint({ numberResults: 4, deliveryMethod: "sync" }),
  poll: poll(),
  "poll four": paint({ numberResults: 4, deliveryMethod: "async" }).then((polled) => ({ polled })),
  upload: uploadThenUse(),
  cost: paint({ includeCost: true }),
  models: client.modelSearch({ search: "nano", category: "checkpoint", limit: 3 }).then(([{ results }]) => results),
  "unknown model": paint({ model: "runware:999@1" }),
  "bad parameter": paint({ steps: 0 }),
  "short prompt": paint({ positivePrompt: "a" }),
  "unknown task": client.getResponse({ taskUUID: randomUUID() }),
  "bad key": unknownKey(),
};

const ended = await outcomes(calls, ({ name, code, parameter, message }) => ({ type: name, code, parameter, message }));
await client.disconnect();
finish(ended);
