/** The faults of chapter 04: a true segmentation, spoiled in ways in which networks fail. */
import type { Labels } from "./metrics.ts";
import { Generator } from "./random.ts";

export interface Faults {
  /** The largest object falls into that many parts, 1 for none. */
  split: number;
  /** That many objects share one slot, 1 for none. */
  merge: number;
  /** Every mask takes that many pixels of the background around it. */
  swallow: number;
  /** The background is cut into that many parts. */
  background: number;
  /** That share of the pixels goes to random slots. */
  noise: number;
}

export const PERFECT: Faults = { split: 1, merge: 1, swallow: 0, background: 1, noise: 0 };
/** Parts of the largest object are labelled from here on, parts of the background from the next. */
export const PART = 20;
export const GROUND = 30;
const SLOTS = 7;

/** The chapter's `damage`, with seed 0, of an image that is `side` pixels wide and high. */
export function damage(truth: Labels, side: number, faults: Partial<Faults> = {}): Uint8Array {
  const { split, merge, swallow, background, noise } = { ...PERFECT, ...faults };
  let pred = Uint8Array.from(truth);
  for (let i = 0; i < swallow; i++) pred = grown(pred, side);

  const { label, area } = largest(truth);
  let rank = 0; // of the object's pixels, counted from left to right
  for (let x = 0; x < side; x++) {
    for (let pixel = x; pixel < side * side; pixel += side) {
      if (truth[pixel] !== label) continue;
      const part = Math.floor((rank++ * split) / area);
      if (part > 0) pred[pixel] = PART + part;
    }
  }
  pred = pred.map((label) => (label >= 1 && label <= merge ? 1 : label));
  if (background > 1) {
    pred = pred.map((label, pixel) => label || GROUND + Math.floor(((pixel % side) * background) / side));
  }
  if (noise === 0) return pred;
  const generator = new Generator(0);
  const chance = generator.uniform(pred.length);
  const random = generator.integers(SLOTS, pred.length);
  return pred.map((label, pixel) => (chance[pixel] < Math.fround(noise) ? random[pixel] : label));
}

/** One pixel more all around, of what is still background; where two meet, the higher label wins. */
function grown(labels: Uint8Array, side: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(labels, (label, pixel) => {
    if (label > 0) return label;
    const [x, y] = [pixel % side, Math.floor(pixel / side)];
    for (let v = Math.max(y - 1, 0); v <= Math.min(y + 1, side - 1); v++) {
      for (let u = Math.max(x - 1, 0); u <= Math.min(x + 1, side - 1); u++) {
        label = Math.max(label, labels[v * side + u]);
      }
    }
    return label;
  });
}

function largest(truth: Labels): { label: number; area: number } {
  const areas: number[] = [];
  for (const label of Array.from(truth)) if (label > 0) areas[label] = (areas[label] ?? 0) + 1;
  return areas.reduce((best, area, label) => (area > best.area ? { label, area } : best), { label: 0, area: 0 });
}
