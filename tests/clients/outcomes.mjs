// What the JavaScript programs of this folder share: calls made side by side, and how each ended.
import { text } from "node:stream/consumers";

/** What the test gave on the input. */
export const told = JSON.parse(await text(process.stdin));

/** Each call's result, or its error as `describe` tells it. */
export async function outcomes(calls, describe) {
  const ended = {};
  await Promise.all(
    Object.entries(calls).map(async ([name, call]) => {
      try {
        ended[name] = { result: await call };
      } catch (error) {
        ended[name] = { error: describe(error) };
      }
    }),
  );
  return ended;
}

/** Tells the test, and ends whatever a client still has open. */
export function finish(ended) {
  process.stdout.write(JSON.stringify(ended), () => process.exit(0));
}
