/**
 * A prior over scenes (chapter 08), as in `slotlib/prior.py`: a causal transformer that continues a scene's text token
 * by token. Every block has a vocabulary of its own. One text at a time; a row is a token.
 */
import type { Drawn, Prepared, Question } from "./autoencoder.ts";
import { pixelsOwned } from "./pictures.ts";
import { Generator } from "./random.ts";
import { SVQAutoencoder, type CodedAnswer, type Codes, type Word } from "./svq.ts";
import { columns, layerNorm, linear, map, plus, product, row, rows, type Rows } from "./tensor.ts";
import type { Made, Weights } from "./weights.ts";

const EPS = 1e-5;

// --- the transformer ---

/** Keys and values of the tokens read so far, one pair for each layer; empty at first. Reading on makes a new one. */
export type Cache = { k: Rows; v: Rows }[];

/** Causal self-attention, MLP; each normalised before and added. */
function layer(
  weights: Weights,
  heads: number,
  x: Rows,
  past: Cache[number] | undefined,
): { x: Rows; seen: Cache[number] } {
  const dim = x.width;
  const qkv = linear(layerNorm(x, weights.layer("norm_self"), EPS), weights.layer("project_qkv"));
  const [q, newK, newV] = [0, 1, 2].map((part) => columns(qkv, part * dim, dim));
  const [k, v] = [below(past?.k, newK), below(past?.v, newV)];
  const read = rows(x.count, dim);
  const before = k.count - x.count;
  const width = dim / heads;
  for (let head = 0; head < heads; head++) {
    const [own, keys, values] = [q, k, v].map((each) => columns(each, head * width, width));
    const scores = map(product(own, keys), (score) => score / Math.sqrt(width));
    for (let i = 0; i < x.count; i++) {
      const seen = softmax(row(scores, i).subarray(0, before + i + 1)); // a token looks back only
      const to = row(read, i).subarray(head * width, (head + 1) * width);
      seen.forEach((weight, j) => row(values, j).forEach((value, c) => (to[c] += weight * value)));
    }
  }
  x = plus(x, linear(read, weights.layer("project_out")));
  const hidden = map(linear(layerNorm(x, weights.layer("norm_mlp"), EPS), weights.layer("mlp.0")), gelu);
  return { x: plus(x, linear(hidden, weights.layer("mlp.2"))), seen: { k, v } };
}

function below(above: Rows | undefined, x: Rows): Rows {
  if (!above) return x;
  const out = rows(above.count + x.count, x.width);
  out.data.set(above.data);
  out.data.set(x.data, above.data.length);
  return out;
}

export function softmax(scores: ArrayLike<number>): number[] {
  const most = Math.max(...Array.from(scores));
  const powers = Array.from(scores, (score) => Math.exp(score - most));
  const sum = powers.reduce((all, power) => all + power, 0);
  return powers.map((power) => power / sum);
}

/** x · Φ(x). Φ by Abramowitz and Stegun's formula 7.1.26 for the error function, which is off by at most 1.5e-7. */
function gelu(x: number): number {
  const z = Math.abs(x) * Math.SQRT1_2;
  const t = 1 / (1 + 0.3275911 * z);
  const polynomial = (((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592;
  const tail = polynomial * t * Math.exp(-z * z);
  return x > 0 ? x * (1 - tail / 2) : (x * tail) / 2;
}

// --- sampling ---

/** A token that may be drawn. */
export interface Candidate {
  token: number;
  probability: number;
}

/** All tokens, the most probable first. Of those beyond the fewest that together have `topP` the probability is 0. */
export function nucleus(logits: ArrayLike<number>, temperature: number, topP: number): Candidate[] {
  const ranked = softmax(Array.from(logits, (logit) => logit / temperature))
    .map((probability, token) => ({ token, probability }))
    .sort((a, b) => b.probability - a.probability);
  let before = 0;
  return ranked.map(({ token, probability }, rank) => {
    const kept = rank === 0 || before < topP; // rounding must not forbid the most probable one
    before += probability;
    return { token, probability: kept ? probability : 0 };
  });
}

/** Draw a token just as torch does: its `multinomial` divides probabilities by exponential times; the largest wins. */
export function nucleusSample(
  logits: ArrayLike<number>,
  temperature: number,
  topP: number,
  generator: Generator,
): number {
  const kept = nucleus(logits, temperature, topP);
  const times = generator.exponential(kept.length);
  const speeds = kept.map(({ probability }, i) => Math.fround(Math.fround(probability) / times[i]));
  return kept[speeds.indexOf(Math.max(...speeds))].token;
}

// --- the prior ---

/** A text that has been read, and what may come next. */
export interface Read {
  text: Codes;
  /** −log p of every token, in nats. */
  surprise: number[];
  /** Scores of every code at the next place; undefined at the end of a scene. */
  logits: Float32Array | undefined;
  cache: Cache;
}

export class ScenePrior {
  readonly numSlots: number;
  readonly numBlocks: number;
  readonly numCodes: number;
  readonly #weights: Weights;
  readonly #heads: number;
  readonly #layers: number;
  readonly #dim: number;

  constructor({ num_layers: layers, num_heads: heads }: Record<string, any>, weights: Weights) {
    [this.numBlocks, this.numCodes, this.#dim] = weights.shape("tokens");
    [this.numSlots] = weights.shape("slot_position");
    [this.#weights, this.#heads, this.#layers] = [weights, heads, layers];
  }

  /** Tokens in a scene. */
  get length(): number {
    return this.numSlots * this.numBlocks;
  }

  /** What is known before the first token. */
  begin(): Read {
    const { logits, cache } = this.#predict([this.#weights.tensor("start")], 0, []);
    return { text: [], surprise: [], logits: logits[0], cache };
  }

  /** Read on, all these tokens at once; what was read before is not computed again. */
  more(before: Read, tokens: Codes): Read {
    const first = before.text.length;
    const vectors = tokens
      .slice(0, this.length - 1 - first) // what follows the last one nobody asks
      .map((token, i) => this.#vector((first + i) % this.numBlocks, token));
    const { logits, cache } = this.#predict(vectors, first + 1, before.cache);
    const predicted = [before.logits!, ...logits];
    const surprise = tokens.map((token, i) => -Math.log(softmax(predicted[i])[token]));
    return {
      text: [...before.text, ...tokens],
      surprise: [...before.surprise, ...surprise],
      logits: predicted[tokens.length],
      cache,
    };
  }

  #vector(block: number, token: number): Float32Array {
    const at = (block * this.numCodes + token) * this.#dim;
    return this.#weights.tensor("tokens").subarray(at, at + this.#dim);
  }

  /** Scores of the codes at the places from `first` on, from the vectors of the tokens before each. */
  #predict(vectors: Float32Array[], first: number, past: Cache): { logits: Float32Array[]; cache: Cache } {
    if (!vectors.length) return { logits: [], cache: past };
    const [slots, blocks] = [this.#weights.tensor("slot_position"), this.#weights.tensor("block_position")];
    let x = rows(vectors.length, this.#dim);
    vectors.forEach((vector, i) => {
      const [slot, block] = this.#place(first + i).map((index) => index * this.#dim);
      row(x, i).set(vector.map((value, c) => value + slots[slot + c] + blocks[block + c])); // the place of what is next
    });
    const transformer = this.#weights.part("transformer");
    const cache = Array.from({ length: this.#layers }, (_, i) => {
      const { x: next, seen } = layer(transformer.part(`layers.${i}`), this.#heads, x, past[i]);
      x = next;
      return seen;
    });
    x = layerNorm(x, transformer.layer("norm"), EPS);
    const size = this.numCodes * this.#dim;
    const logits = vectors.map((_, i) => {
      const [, block] = this.#place(first + i);
      const head = this.#weights.tensor("head").subarray(block * size, (block + 1) * size);
      return product(rows(1, this.#dim, row(x, i)), rows(this.numCodes, this.#dim, head)).data;
    });
    return { logits, cache };
  }

  /** Slot and block of the i-th token. */
  #place(i: number): [number, number] {
    return [Math.floor(i / this.numBlocks), i % this.numBlocks];
  }

  /** Go on writing up to so many tokens; `choose` says which one. */
  write(before: Read, until: number, choose: (logits: Float32Array) => number): Read {
    let read = before;
    while (read.text.length < until) read = this.more(read, [choose(read.logits!)]);
    return read;
  }
}

// --- the model ---

/** How tokens are drawn. */
export interface Drawing {
  temperature: number;
  topP: number;
  seed: number;
}

/** What the page shows of a text, whole or not. */
export interface Reading {
  surprise: number[];
  /** How probable each code is to be drawn at the next place; undefined at the end. */
  next: number[] | undefined;
  /** After each whole slot but the last: the probability that the scene ends there; undefined if it has ended. */
  ends: (number | undefined)[];
  /** Of its whole slots, and of the one begun as the prior would finish it at its likeliest. Undefined without any. */
  drawn: Drawn | undefined;
}

/** A trained autoencoder whose latents are codes, and a prior over them: with it scenes can be written. */
export class CodePrior {
  readonly autoencoder: SVQAutoencoder;
  readonly prior: ScenePrior;
  /** How an empty slot is written, if all are written alike. */
  readonly blank: Codes | undefined;

  constructor({ init_args: config }: Made, weights: Weights) {
    this.autoencoder = new SVQAutoencoder(config.autoencoder, weights.part("autoencoder"));
    this.prior = new ScenePrior(config, weights.part("prior"));
    this.blank = weights.has("blank") ? [...weights.tensor("blank")] : undefined;
  }

  get resolution(): number {
    return this.autoencoder.resolution;
  }

  prepare(image: Float32Array): Prepared {
    return this.autoencoder.prepare(image);
  }

  answer(prepared: Prepared, question: Question): CodedAnswer {
    return this.autoencoder.answer(prepared, question);
  }

  decode(codes: Codes): Drawn {
    return this.autoencoder.decode(codes);
  }

  words(codes: Codes, slot: number, block: number): Word[] {
    return this.autoencoder.words(codes, slot, block);
  }

  /** The same scene as the prior knows texts: the slot that owns most pixels first, those that own none as blanks. */
  textOf(codes: Codes): Codes {
    const owned = pixelsOwned(this.decode(codes).masks);
    const order = owned.map((_, slot) => slot).sort((a, b) => owned[b] - owned[a]);
    const blocks = this.prior.numBlocks;
    return order.flatMap((slot) => (!owned[slot] && this.blank) || codes.slice(slot * blocks, (slot + 1) * blocks));
  }

  /** A scene that begins with some tokens, the others drawn. */
  sample(given: Codes, { temperature, topP, seed }: Drawing): Codes {
    const generator = new Generator(seed);
    const begun = this.prior.more(this.prior.begin(), given);
    const draw = (logits: Float32Array): number => nucleusSample(logits, temperature, topP, generator);
    return this.prior.write(begun, this.prior.length, draw).text;
  }

  /** What the prior says of a text, and what it draws. */
  read(text: Codes, { temperature, topP }: Drawing): Reading {
    const blocks = this.prior.numBlocks;
    const ends: Reading["ends"] = [];
    let read = this.prior.begin();
    for (let slot = 0; slot * blocks < text.length; slot++) {
      read = this.prior.more(read, text.slice(slot * blocks, (slot + 1) * blocks));
      if (this.blank && read.logits && read.text.length % blocks === 0) ends.push(this.#end(read));
    }
    const { surprise, logits } = read;
    const candidates = logits ? nucleus(logits, temperature, topP) : [];
    const kept = candidates.reduce((sum, { probability }) => sum + probability, 0);
    const whole = Math.ceil(text.length / blocks) * blocks;
    const finished = this.prior.write(read, whole, (scores) => scores.indexOf(Math.max(...scores))).text;
    return {
      surprise,
      next: logits && candidates.sort((a, b) => a.token - b.token).map(({ probability }) => probability / kept),
      ends,
      drawn: whole ? this.decode(finished) : undefined,
    };
  }

  /** The probability that the next slot is a blank; undefined after a blank, where nothing else is to come. */
  #end(read: Read): number | undefined {
    const blocks = this.prior.numBlocks;
    if (read.text.slice(-blocks).join() === this.blank!.join()) return undefined;
    const surprise = this.prior.more(read, this.blank!).surprise.slice(-blocks);
    return Math.exp(-surprise.reduce((sum, each) => sum + each, 0));
  }
}
