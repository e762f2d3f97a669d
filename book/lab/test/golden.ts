/** What `golden.py` packed. */
import { inflateSync } from "node:zlib";
import { readFileSync } from "node:fs";

export function bytes(packed: string): Uint8Array {
  return new Uint8Array(inflateSync(Buffer.from(packed, "base64")));
}

export function floats(packed: string): Float32Array {
  return new Float32Array(bytes(packed).buffer);
}

/** What a script of weights puts on the page. */
export function exported(name: string): any {
  const script = readFileSync(new URL(`../../assets/lab/weights/${name}.js`, import.meta.url), "utf8");
  const slotlab: { weights?: Record<string, unknown> } = {};
  new Function("slotlab", script)(slotlab);
  return slotlab.weights![name];
}

/** The largest difference of two lists of numbers. */
export function largest(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return Array.from(a).reduce((most, value, i) => Math.max(most, Math.abs(value - b[i])), 0);
}
