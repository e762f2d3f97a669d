/** Texts of scenes: in the page's address, and beside one another. */
import { owners } from "./pictures.ts";
import type { Codes } from "./svq.ts";
import type { Rows } from "./tensor.ts";

/** One character for each code, as in an address. */
export function writeCodes(codes: Codes): string {
  return codes.map((code) => code.toString(36)).join("");
}

/** What `writeCodes` wrote; undefined unless it has this length and codes below `size`. */
export function readCodes(text: string, length: number, size: number): Codes | undefined {
  const codes = [...text].map((digit) => parseInt(digit, 36));
  return codes.length === length && codes.every((code) => code < size) ? codes : undefined;
}

/** Where two texts differ. */
export function exchanged(one: Codes, other: Codes): number[] {
  return one.flatMap((code, i) => (code === other[i] ? [] : [i]));
}

/**
 * What a drawing was read as, in the order of the text that it was drawn from: for each slot that owns pixels the codes
 * of the slot of `seen` that overlaps it most, as intersection over union. Undefined for slots that own none.
 */
export function agreement(drawn: Rows, seen: Rows, codes: Codes, read: Codes): (number | undefined)[] {
  const overlap = Array.from({ length: drawn.count }, () => new Array<number>(seen.count).fill(0));
  const [own, other] = [owners(drawn), owners(seen)];
  own.forEach((slot, i) => overlap[slot][other[i]]++);
  const sizes = overlap.map((counts) => counts.reduce((sum, count) => sum + count, 0));
  const others = overlap[0].map((_, j) => overlap.reduce((sum, counts) => sum + counts[j], 0));
  const blocks = codes.length / drawn.count;
  return overlap.flatMap((counts, k) => {
    if (!sizes[k]) return new Array<undefined>(blocks).fill(undefined);
    const shares = counts.map((both, j) => both / (sizes[k] + others[j] - both));
    const best = shares.indexOf(Math.max(...shares));
    return read.slice(best * blocks, (best + 1) * blocks);
  });
}
