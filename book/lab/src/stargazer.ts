/**
 * The model of chapter 02: dots → slots → for each slot a drawing of the sky, 16 × 16 cells; and the skies it looks at.
 *
 * A row is a dot, a slot or a place. What a slot draws are logarithms of probabilities.
 */
import { adjustedRandIndex, contingency } from "./metrics.ts";
import { owners } from "./pictures.ts";
import type { Generator } from "./random.ts";
import * as slotAttention from "./slot_attention.ts";
import { layerNorm, linear, map, product, row, rows, softmaxOverRows, type Rows } from "./tensor.ts";
import type { Weights } from "./weights.ts";

export const REACH = 3.6; // a sky reaches from -REACH to REACH both ways
export const CELLS = 16; // per side
export const DOTS = 48;

export interface Question extends slotAttention.Change {
  slots: number;
  iterations: number;
  /** Of the slots' start, as in `torch.Generator().manual_seed(start)`. */
  start: number;
  /** What the learned σ of the start is multiplied with; at 0 all slots start alike. */
  noise: number;
}

export class Stargazer {
  readonly #weights: Weights;
  readonly #attention: Weights;

  constructor(weights: Weights) {
    this.#weights = weights;
    this.#attention = weights.part("slot_attention");
  }

  look(dots: Rows, { slots, iterations, start, noise, ...change }: Question): slotAttention.History {
    const prepared = slotAttention.prepare(this.#attention, this.#encode(dots));
    const [begin] = slotAttention.starts(this.#attention, 1, slots, start, noise);
    return slotAttention.attend(this.#attention, prepared, begin, iterations, change);
  }

  /** What slots draw: `[slots, cells]`, the cells row by row, from below. */
  draw(slots: Rows): Rows {
    const drawings = linear(slots, this.#weights.layer("decoder"));
    for (let k = 0; k < slots.count; k++) logSoftmax(row(drawings, k));
    return drawings;
  }

  /** The keys of places, for `territories`. */
  keys(places: Rows): Rows {
    return slotAttention.prepare(this.#attention, this.#encode(places)).k;
  }

  /** Who would win a dot at each place: `[slots, places]`. */
  territories(slots: Rows, keys: Rows): Rows {
    const q = linear(layerNorm(slots, this.#attention.layer("norm_slots")), this.#attention.layer("project_q"));
    return softmaxOverRows(map(product(q, keys), (score) => score / Math.sqrt(q.width)));
  }

  #encode(dots: Rows): Rows {
    const hidden = map(linear(dots, this.#weights.layer("encoder.0")), silu);
    return linear(hidden, this.#weights.layer("encoder.2"));
  }
}

const silu = (value: number): number => value / (1 + Math.exp(-value));

function logSoftmax(values: Float32Array): void {
  const most = values.reduce((a, b) => Math.max(a, b));
  const total = most + Math.log(values.reduce((sum, value) => sum + Math.exp(value - most), 0));
  values.forEach((value, i) => (values[i] = value - total));
}

// --- how good it is ---

/** How unlikely the slots find the dots (equation 2.1). */
export function loss(dots: Rows, drawings: Rows): number {
  const cell = (value: number): number =>
    Math.min(Math.max(Math.trunc(((value + REACH) * CELLS) / (2 * REACH)), 0), CELLS - 1);
  let total = 0;
  for (let j = 0; j < dots.count; j++) {
    const [x, y] = row(dots, j);
    let likelihood = 0;
    for (let k = 0; k < drawings.count; k++) likelihood += Math.exp(row(drawings, k)[cell(y) * CELLS + cell(x)]);
    total -= Math.log(likelihood / drawings.count);
  }
  return total / dots.count;
}

/** How much of a dot its owner has, on average. */
export function sureness(attention: Rows): number {
  const own = owners(attention);
  return own.reduce((sum, k, j) => sum + row(attention, k)[j], 0) / own.length;
}

/** How alike the slots' drawings are: the mean cosine of two of them; 0 for a single slot. */
export function likeness({ data, count, width }: Rows): number {
  const chance = rows(count, width, data.map(Math.exp));
  const inner = product(chance, chance);
  const length = (k: number): number => Math.sqrt(row(inner, k)[k]);
  let total = 0;
  for (let i = 0; i < count; i++) for (let j = 0; j < i; j++) total += row(inner, i)[j] / (length(i) * length(j));
  return (2 * total) / Math.max(count * (count - 1), 1);
}

/** The adjusted Rand index of the dots' owners with their orbits. */
export function ari(orbit: number[], attention: Rows): number {
  return adjustedRandIndex(contingency(orbit, owners(attention)));
}

/** How far slots are from their mean, on average. */
export function spread(slots: Rows): number {
  const mean = Array.from({ length: slots.width }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < slots.count; k++) sum += row(slots, k)[i];
    return sum / slots.count;
  });
  let total = 0;
  for (let k = 0; k < slots.count; k++) total += Math.hypot(...row(slots, k).map((value, i) => value - mean[i]));
  return total / slots.count;
}

// --- skies, drawn as the chapter draws them ---

/** A sky with so many orbits: the dots and each dot's orbit. */
export function sky(orbits: number, generator: Generator): { dots: Rows; orbit: number[] } {
  generator.bits(); // the chapter draws how many orbits there are; here it has no choice
  const free = generator.uniform(orbits).sort();
  const radii = Array.from(free, (value, i) => 0.6 + value * (2.4 - 0.48 * (orbits - 1)) + 0.48 * i);
  const noise = generator.normal(DOTS);
  const angles = generator.uniform(DOTS);
  const orbit = Array.from({ length: DOTS }, (_, j) => j % orbits);
  const dots = rows(DOTS, 2);
  orbit.forEach((of, j) => {
    const radius = radii[of] + 0.06 * noise[j];
    const angle = 2 * Math.PI * angles[j];
    row(dots, j).set([radius * Math.cos(angle), radius * Math.sin(angle)]);
  });
  return { dots, orbit };
}
