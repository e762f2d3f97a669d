/**
 * Slot attention (chapter 02): Locatello et al., 2020, arXiv 2006.15055, Algorithm 1, as in `slotlib/slot_attention.py`.
 *
 * A row is a slot or an input. One image, one head.
 */
import { Generator } from "./random.ts";
import { gru, layerNorm, linear, map, mlp, plus, product, row, rows, softmaxOverRows, transposed, type Numbers, type Rows } from "./tensor.ts";
import type { Weights } from "./weights.ts";

const EPS = 1e-8;

/** Every iteration: entry 0 of `slots` is the start. */
export interface History {
  slots: Rows[];
  attention: Rows[];
}

/** What every iteration needs, computed once. */
export interface Prepared<N extends Numbers = Float32Array> {
  k: Rows<N>;
  v: Rows<N>;
}

export function prepare(layers: Weights, inputs: Rows): Prepared {
  inputs = layerNorm(inputs, layers.layer("norm_inputs"));
  return { k: linear(inputs, layers.layer("project_k")), v: linear(inputs, layers.layer("project_v")) };
}

/** Lines of the algorithm changed; none by default. */
export interface Change<N extends Numbers = Float32Array> {
  /** False: softmax over the inputs, every slot for itself. */
  compete?: boolean;
  /** False: what a slot gathers replaces it. */
  gru?: boolean;
  /** True: the GRU gets the slots after their LayerNorm. */
  normalised?: boolean;
  /** What stands before the MLP. */
  normMlp?(slots: Rows<N>): Rows<N>;
}

/** The slots compete, gather and move. */
export function iteration<N extends Numbers>(
  layers: Weights,
  slots: Rows<N>,
  { k, v }: Prepared<N>,
  change: Change<N> = {},
): { slots: Rows<N>; attention: Rows<N> } {
  const { compete = true, normalised = false, normMlp = (x: Rows<N>) => layerNorm(x, layers.layer("norm_mlp")) } = change;
  const normal = layerNorm(slots, layers.layer("norm_slots"));
  const slotsPrev = normalised ? normal : slots;
  const q = linear(normal, layers.layer("project_q"));
  const scale = 1 / Math.sqrt(q.width);
  const scores = map(product(q, k), (score) => score * scale);
  const attention = compete ? softmaxOverRows(scores) : transposed(softmaxOverRows(transposed(scores)));
  const weights = map(attention, (weight) => weight + EPS);
  for (let slot = 0; slot < weights.count; slot++) {
    const own: Numbers = row(weights, slot);
    const sum = own.reduce((all, weight) => all + weight, 0);
    own.forEach((weight, i) => (own[i] = weight / sum));
  }
  const updates = product(weights, transposed(v)); // weighted mean
  const [fromInput, fromState] = ["ih", "hh"].map((of) => layers.pair(`gru.weight_${of}`, `gru.bias_${of}`));
  slots = change.gru === false ? updates : gru(updates, slotsPrev, fromInput, fromState);
  slots = plus(slots, mlp(normMlp(slots), layers.part("mlp")));
  return { slots, attention };
}

export function attend(
  layers: Weights,
  prepared: Prepared,
  start: Rows,
  numIterations: number,
  change: Change = {},
): History {
  const history: History = { slots: [start], attention: [] };
  for (let i = 0; i < numIterations; i++) {
    const { slots, attention } = iteration(layers, history.slots[i], prepared, change);
    history.slots.push(slots);
    history.attention.push(attention);
  }
  return history;
}

/** One of several starts that slotlib draws at once in double precision: `initial_slots(count, slots, seed)[k]`. */
export interface Start {
  slots: number;
  count: number;
  k: number;
  seed: number;
}

export function startOf(layers: Weights, { slots, count, k, seed }: Start): Float64Array {
  const [mu, logSigma] = [layers.tensor("slots_mu"), layers.tensor("slots_log_sigma")];
  const size = slots * mu.length;
  const noise = new Generator(seed).normal64(count * size).subarray(k * size, (k + 1) * size);
  return noise.map((drawn, i) => mu[i % mu.length] + Math.exp(logSigma[i % mu.length]) * drawn);
}

/**
 * Where the slots of several restarts begin, as slotlib draws them from this seed. `spread` scales the learned σ; at 0 all
 * slots that are drawn begin in one place.
 */
export function starts(layers: Weights, restarts: number, numSlots: number, seed: number, spread = 1): Rows[] {
  const mu = layers.tensor("slots_mu");
  const logSigma = layers.tensor("slots_log_sigma");
  const first = layers.has("slots_first") ? layers.tensor("slots_first") : undefined;
  const width = mu.length;
  const noise = new Generator(seed).normal(restarts * numSlots * width);
  return Array.from({ length: restarts }, (_, restart) => {
    const start = rows(numSlots, width);
    start.data.forEach((_, i) => {
      const drawn = noise[restart * start.data.length + i];
      start.data[i] = mu[i % width] + spread * Math.exp(logSigma[i % width]) * drawn;
    });
    if (first) start.data.set(first);
    return start;
  });
}
