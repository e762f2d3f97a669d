/**
 * Set prediction (chapter 05), as in `slotlib/set_prediction.py`: image → slots → 19 values a slot; and its score.
 *
 * Values: position, one-hot size, material, shape and colour, and how sure a slot is that there is an object.
 */
import { encoder, fromUnits } from "./autoencoder.ts";
import * as slotAttention from "./slot_attention.ts";
import { map, mlp, type Grid, type Rows } from "./tensor.ts";
import type { Made, Weights } from "./weights.ts";

export const KINDS = { size: [3, 5], material: [5, 7], shape: [7, 10], colour: [10, 18] } as const;
export const PRESENCE = 18;
const SCENE_SIZE = 6; // metres between 0 and 1

export type Kind = Record<keyof typeof KINDS, number>;

export class SetPredictor {
  readonly #attention: Weights;
  readonly #encode: (image: Float32Array) => Grid;
  readonly #head: Weights;

  constructor({ class_path: kind, init_args: config }: Made, weights: Weights) {
    if (kind !== "SetPredictor" || config.kind !== "slot_attention" || config.encoder.class_path !== "Strided") {
      throw new Error(`The page cannot compute this ${kind}.`);
    }
    this.#attention = weights.part("slot_attention");
    this.#encode = encoder(weights.part("encoder"), config.resolution);
    this.#head = weights.part("head");
  }

  /** An image, channel by channel in [0, 1], as slot attention takes it. */
  prepare(image: Float32Array): slotAttention.Prepared {
    return slotAttention.prepare(this.#attention, this.#encode(fromUnits(image)));
  }

  /** What every slot says: `[slots, 19]`. */
  describe(prepared: slotAttention.Prepared, slots: number, iterations: number, seed: number): Rows {
    const [start] = slotAttention.starts(this.#attention, 1, slots, seed);
    const found = slotAttention.attend(this.#attention, prepared, start, iterations).slots[iterations];
    return map(mlp(found, this.#head), (value) => 1 / (1 + Math.exp(-value)));
  }
}

/** The likeliest of each property. */
export function kindOf(values: ArrayLike<number>): Kind {
  const likeliest = ([from, to]: readonly [number, number]): number => {
    let best = from;
    for (let i = from; i < to; i++) if (values[i] > values[best]) best = i;
    return best - from;
  };
  return {
    size: likeliest(KINDS.size),
    material: likeliest(KINDS.material),
    shape: likeliest(KINDS.shape),
    colour: likeliest(KINDS.colour),
  };
}

/** The values that an object has: its place from 0 to 1, and its properties by number. */
export function target(place: readonly number[], kind: Kind): Float32Array {
  const values = new Float32Array(PRESENCE + 1);
  values.set(place);
  for (const name of Object.keys(KINDS) as (keyof Kind)[]) values[KINDS[name][0] + kind[name]] = 1;
  values[PRESENCE] = 1;
  return values;
}

/**
 * Average precision of predicted sets, over all scenes together, within so many metres: predictions are lined up, the
 * surest first. One is a hit if the nearest object of its kind is closer, and no surer one has hit that object.
 */
export function averagePrecision(
  pred: readonly (readonly ArrayLike<number>[])[],
  truth: readonly (readonly ArrayLike<number>[])[],
  within: number,
): number {
  const same = (a: Kind, b: Kind): boolean => (Object.keys(a) as (keyof Kind)[]).every((name) => a[name] === b[name]);
  const distance = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
    SCENE_SIZE * Math.hypot(...[0, 1, 2].map((axis) => a[axis] - b[axis]));
  const line = pred.flatMap((said, scene) => said.map((values) => ({ values, scene })));
  line.sort((a, b) => b.values[PRESENCE] - a.values[PRESENCE]);
  const taken = new Set<ArrayLike<number>>();
  const precision: number[] = [];
  line.forEach(({ values, scene }, rank) => {
    let [nearest, least]: [ArrayLike<number> | undefined, number] = [undefined, within];
    for (const object of truth[scene]) {
      if (!same(kindOf(values), kindOf(object))) continue;
      const far = distance(values, object);
      if (far < least) [nearest, least] = [object, far];
    }
    if (!nearest || taken.has(nearest)) return;
    taken.add(nearest);
    precision.push(taken.size / (rank + 1));
  });
  const total = truth.reduce((sum, objects) => sum + objects.length, 0);
  return precision.reduce((sum, _, i) => sum + Math.max(...precision.slice(i)), 0) / total;
}
