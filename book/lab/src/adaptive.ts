/**
 * Slots that are kept or dropped (chapter 09), as in `slotlib/adaptive.py`: Fan et al., 2024, arXiv 2406.09196.
 *
 * A dropped slot paints nothing, the others share its pixels, and each that is kept costs a price.
 */
import { SlotAutoencoder, weighted, type Answer, type Drawing, type Found, type Prepared, type Question } from "./autoencoder.ts";
import { Generator } from "./random.ts";
import { columns, layerNorm, mlp, type Rows } from "./tensor.ts";
import type { Made, Weights } from "./weights.ts";

export interface AdaptiveAnswer extends Answer {
  /** Of each slot the log odds of keeping it. */
  logits: number[];
  /** What all slots draw, before any is dropped. */
  drawing: Drawing;
  /** What the image would cost without each slot, less what it costs with all (equation 9.2). */
  saved: number[];
}

export class AdaptiveAutoencoder extends SlotAutoencoder {
  readonly #decision: Weights;
  readonly #price: number;
  readonly #target: number;

  constructor(model: Made, weights: Weights) {
    super(model, weights);
    this.#decision = weights.part("keep_or_drop");
    [this.#price, this.#target] = [model.init_args.price, model.init_args.target];
  }

  override answer(prepared: Prepared, question: Question): AdaptiveAnswer {
    const found = super.answer(prepared, question);
    const bound = columns(found.slots, 0, this.width); // an outline may follow
    const { drawing } = super.draw(bound, prepared.target);
    return { ...found, logits: this.#logits(bound), drawing, saved: this.#saved(drawing, prepared.target) };
  }

  /** As evaluation does: what is dropped is not drawn, and of several starts the least in cost and prices is kept. */
  protected override draw(slots: Rows, target: Float32Array): Found {
    const { keep } = decide(this.#logits(slots), 1);
    const found = super.draw(slots, target, keep);
    return { ...found, cost: found.cost + this.#price * Math.abs(total(keep) - this.#target) };
  }

  #logits(slots: Rows): number[] {
    return [...mlp(layerNorm(slots, this.#decision.layer("norm"), 1e-5), this.#decision.part("logit")).data];
  }

  #saved(drawing: Drawing, target: Float32Array): number[] {
    const all = new Array<number>(drawing.logits.count).fill(1);
    const cost = (keep: number[]): number => this.likelihood(weighted(drawing, keep), target).cost;
    const whole = cost(all);
    return all.map((_, k) => cost(all.map((one, other) => (other === k ? 0 : one))) - whole);
  }
}

export interface Decision {
  /** 1 or 0, at least one 1. */
  keep: number[];
  /** The logits, or with noise those that a coin is decided by. */
  noisy: number[];
  /** What the gradient takes each coin for, from 0 to 1. */
  soft: number[];
}

/** Keep or drop: by coins whose noise is drawn from a seed, or without one where the logit is above 0. */
export function decide(logits: number[], temperature: number, seed?: number): Decision {
  const noise = seed === undefined ? undefined : gumbels(seed, 3 * logits.length);
  const noisy = logits.map((logit, k) => (noise ? logit + noise[3 * k] - noise[3 * k + 1] : logit));
  const rivals = logits.map((logit, k) => (noise ? logit + noise[3 * k + 2] : logit));
  const keep = noisy.map((value) => Number(value > 0));
  if (!total(keep)) keep[rivals.indexOf(Math.max(...rivals))] = 1;
  return { keep, noisy, soft: noisy.map((value) => sigmoid(value / temperature)) };
}

function gumbels(seed: number, count: number): number[] {
  return [...new Generator(seed).exponential(count)].map((value) => -Math.log(value));
}

/** The chance that coins keep each slot, at any temperature (equation 9.5). */
export function chances(logits: number[]): number[] {
  const none = logits.reduce((all, logit) => all * sigmoid(-logit), 1);
  const most = Math.max(...logits);
  const odds = logits.map((logit) => Math.exp(logit - most));
  return logits.map((logit, k) => sigmoid(logit) + (none * odds[k]) / total(odds));
}

/** Keep what saves more than its price, or else what saves most. */
export function worth(saved: number[], price: number): number[] {
  const keep = saved.map((value) => Number(value > price));
  if (!total(keep)) keep[saved.indexOf(Math.max(...saved))] = 1;
  return keep;
}

export function sigmoid(value: number): number {
  return 1 / (1 + Math.exp(-value));
}

export function total(numbers: number[]): number {
  return numbers.reduce((sum, value) => sum + value, 0);
}
