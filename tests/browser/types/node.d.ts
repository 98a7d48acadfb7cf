/** What the unit tests use of Node.js. */

declare module "node:test" {
  export function test(name: string, body: () => void | Promise<void>): void
}

declare module "node:fs" {
  export function readFileSync(path: string | URL, encoding: "utf8"): string
  export function readdirSync(path: string | URL): string[]
}

declare module "node:assert/strict" {
  const assert: {
    (value: unknown, message?: string): asserts value
    equal(found: unknown, wanted: unknown, message?: string): void
    notEqual(found: unknown, other: unknown, message?: string): void
    deepEqual(found: unknown, wanted: unknown, message?: string): void
    match(found: string, wanted: RegExp): void
    ok(value: unknown, message?: string): asserts value
    throws(body: () => unknown, wanted?: RegExp | object): void
    rejects(body: (() => Promise<unknown>) | Promise<unknown>, wanted?: RegExp | object): Promise<void>
  }
  export default assert
}
