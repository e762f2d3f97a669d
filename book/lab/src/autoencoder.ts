/**
 * The slot attention autoencoder (chapter 03), as in `slotlib/autoencoder.py`, `encoders.py`, `decoders.py` and
 * `likelihoods.py`: image → features → slots → one picture and one mask per slot → image. One image at a time.
 *
 * Images come and go in [0, 1]; inside they live in [-1, 1]. Pixels are numbered row by row.
 */
import { outlines, type Refine } from "./outlined.ts";
import { eigenvalues, walk, type Complex, type Method, type Point, type Update, type Walk } from "./rest.ts";
import * as slotAttention from "./slot_attention.ts";
import {
  columns,
  convolution,
  double,
  layerNorm,
  linear,
  map,
  mlp,
  plus,
  product,
  relu,
  row,
  rows,
  softmaxOverRows,
  transposed,
  type Grid,
  type Rows,
} from "./tensor.ts";
import type { Made, Weights } from "./weights.ts";

const BANDS = { grid: 4, line: 6 };

/** What a decoder returns, before the slots are laid over one another. A row is a slot. */
export interface Drawing {
  /** Three colours, each for all pixels: `[slots, 3 · pixels]`. */
  colours: Rows;
  logits: Rows;
}

/** How the slots of one image are to be found. */
export interface Question {
  slots: number;
  iterations: number;
  /** Of the slots' start, as in `torch.Generator().manual_seed(seed)`. */
  seed: number;
  /** Starts tried; the one of least cost is kept. */
  restarts: number;
  /** What the learned σ of the start is multiplied with; 1 as it was trained. */
  spread: number;
}

export interface Answer {
  slots: Rows;
  /** Of every iteration, `[slots, features]`. */
  attention: Rows[];
  /** Rows and columns of the features' grid. */
  grid: number;
  /** `[slots, pixels]`: as the decoder draws them from the slots alone, and whose pixel it is once the image is known. */
  drawnMasks: Rows;
  masks: Rows;
  /** `[slots, 3 · pixels]` and `[3 · pixels]`, in [0, 1] up to the decoder's errors. */
  slotImages: Rows;
  reconstruction: Float32Array;
  /** Of every restart, as its likelihood counts it, and which was kept. */
  costs: number[];
  best: number;
}

/** sin and cos of π·2^b·position for b < `bands`. */
export function fourierFeatures(position: number, bands: number): number[] {
  const angles = Array.from({ length: bands }, (_, b) => Math.fround(position * Math.fround(Math.PI * 2 ** b)));
  return [...angles.map(Math.sin), ...angles.map(Math.cos)];
}

/** From the units of images, [0, 1], to those of models, [-1, 1]. */
export function fromUnits(image: Float32Array): Float32Array {
  return image.map((value) => value * 2 - 1);
}

/** And back. */
export function inUnits(value: number): number {
  return (value + 1) / 2;
}

/** Brightness in [0, 1] as a photoreceptor answers it: dark is stretched, light compressed. In single precision. */
export function compressed(value: number, amount: number): number {
  const light = Math.max(value, 0);
  return Math.fround(Math.fround((1 + amount) * light) / Math.fround(1 + Math.fround(amount * light)));
}

/** The brightness of which `compressed` makes this value. */
export function expanded(value: number, amount: number): number {
  const seen = Math.min(value, 1 + 0.5 / amount);
  return seen / (1 + amount - amount * seen);
}

/** `count` numbers from 0 to 1 inclusive. */
function line(count: number): number[] {
  return Array.from({ length: count }, (_, i) => Math.fround(i / (count - 1)));
}

// --- encoder: strided convolutions and Fourier positions ---

/** Features of an image that is `side` pixels wide and high, channel by channel in [-1, 1]. */
export function encoder(weights: Weights, side: number): (image: Float32Array) => Grid {
  let positions: Rows | undefined;
  return (image) => {
    let x: Grid = { ...transposed(rows(3, side * side, image)), side };
    for (const [at, stride] of [[0, 2], [2, 2], [4, 1]]) {
      const maps = convolution(x, weights.layer(`convolutions.${at}`), stride);
      x = { ...relu(maps), side: maps.side };
    }
    positions ??= linear(gridFeatures(x.side), weights.layer("position.project"));
    return { ...mlp(layerNorm(plus(x, positions), weights.layer("norm")), weights.part("mlp")), side: x.side };
  };
}

/** The Fourier features of y, then of x, of every place on a grid. */
function gridFeatures(side: number): Rows {
  const along = line(side).map((position) => fourierFeatures(position, BANDS.grid));
  return rows(side * side, 4 * BANDS.grid, Float32Array.from(along.flatMap((y) => along.flatMap((x) => [...y, ...x]))));
}

// --- decoder: masks as short sums of outer products ---

function separableDecoder(weights: Weights, config: Record<string, any>, side: number): (slots: Rows) => Drawing {
  const { channels, rank, colour, colour_dims: colourDims, shading } = config;
  const maps = colour === "slot" ? 1 : 4;
  const along = Float32Array.from(line(side).flatMap((position) => fourierFeatures(position, BANDS.line)));
  const position = linear(rows(side, 2 * BANDS.line, along), weights.layer("from_position"));

  /** What one axis gives to every slot's maps: `[slots · side, maps · rank]`. */
  const factors = (fromSlot: Rows, axis: number): Rows => {
    const hidden = rows(fromSlot.count * side, channels);
    for (let k = 0; k < fromSlot.count; k++) {
      const slot = row(fromSlot, k).subarray(axis * channels, (axis + 1) * channels);
      for (let i = 0; i < side; i++) {
        const place = row(position, i).subarray(axis * channels, (axis + 1) * channels);
        const to = row(hidden, k * side + i);
        for (let c = 0; c < channels; c++) to[c] = Math.max(0, slot[c] + place[c]);
      }
    }
    return linear(relu(linear(hidden, weights.layer(`hidden.${axis}`))), weights.layer(`factors.${axis}`));
  };

  return (slots) => {
    const [figure, painted] = colourDims
      ? [only(slots, (i) => i >= colourDims), only(slots, (i) => i < colourDims)]
      : [slots, slots];
    const fromSlot = linear(figure, weights.layer("from_slot"));
    const [down, across] = [factors(fromSlot, 0), factors(fromSlot, 1)];
    /** The factors of slot k for map c, a place per row. */
    const of = (x: Rows, k: number, c: number): Rows => {
      const own = rows(side, x.width, x.data.subarray(k * side * x.width, (k + 1) * side * x.width));
      return columns(own, c * rank, rank);
    };
    const drawn = Array.from({ length: maps }, (_, c) => {
      const map = rows(slots.count, side * side);
      for (let k = 0; k < slots.count; k++) row(map, k).set(product(of(down, k, c), of(across, k, c)).data);
      return map;
    });
    const logits = drawn.pop()!;
    const slotColour = weights.has("slot_colour.0.weight")
      ? mlp(painted, weights.part("slot_colour"))
      : undefined;
    const share = slotColour ? shading : 1; // of a colour that varies in space
    const colours = rows(slots.count, 3 * side * side);
    for (let k = 0; k < slots.count; k++) {
      for (let c = 0; c < 3; c++) {
        const to = row(colours, k).subarray(c * side * side, (c + 1) * side * side);
        to.fill(slotColour ? slotColour.data[3 * k + c] : 0);
        if (drawn.length) row(drawn[c], k).forEach((change, i) => (to[i] += share * change));
      }
    }
    return { colours, logits };
  };
}

/** Rows with all but some of their numbers put to 0. */
function only(x: Rows, kept: (i: number) => boolean): Rows {
  return rows(x.count, x.width, x.data.map((value, i) => (kept(i % x.width) ? value : 0)));
}

/** Slots lighter or heavier than they are, the others sharing what they leave: masks in proportion to the weights. */
export function weighted({ colours, logits }: Drawing, weights: number[]): Drawing {
  const lighter = rows(logits.count, logits.width);
  weights.map(Math.log).forEach((log, k) => {
    const [from, to] = [row(logits, k), row(lighter, k)];
    for (let i = 0; i < to.length; i++) to[i] = from[i] + log;
  });
  return { colours, logits: lighter };
}

// --- likelihoods ---

/** Lay the slots over one another: masks = softmax of the logits over slots, picture = Σ masks · colours. */
export function compose({ colours, logits }: Drawing): { picture: Float32Array; masks: Rows } {
  const masks = softmaxOverRows(logits);
  const picture = new Float32Array(colours.width);
  for (let k = 0; k < masks.count; k++) {
    const [mask, colour] = [row(masks, k), row(colours, k)];
    for (let i = 0; i < picture.length; i++) picture[i] += mask[i % mask.length] * colour[i];
  }
  return { picture, masks };
}

/** What a drawing costs as an image, and whose each pixel is. `target` is in [-1, 1], channel by channel. */
type Likelihood = (drawing: Drawing, target: Float32Array) => { cost: number; masks: Rows };

const average: Likelihood = (drawing, target) => {
  const { picture, masks } = compose(drawing);
  return { cost: mean(picture.map((value, i) => (value - target[i]) ** 2)), masks };
};

function mixture(noise: number, sparsity: number): Likelihood {
  return ({ colours, logits }, target) => {
    const [slots, pixels] = [logits.count, logits.width];
    const masks = rows(slots, pixels);
    const joint = new Float64Array(slots); // log p(slot k paints this pixel, and in this colour), up to a constant
    let evidence = 0;
    for (let i = 0; i < pixels; i++) {
      let [drawnMost, jointMost] = [-Infinity, -Infinity];
      for (let k = 0; k < slots; k++) {
        const logit = logits.data[k * pixels + i];
        let distance = 0;
        for (let c = 0; c < 3; c++) distance += (target[c * pixels + i] - colours.data[(3 * k + c) * pixels + i]) ** 2;
        joint[k] = logit - distance / (2 * noise ** 2);
        drawnMost = Math.max(drawnMost, logit);
        jointMost = Math.max(jointMost, joint[k]);
      }
      let [drawn, seen] = [0, 0];
      for (let k = 0; k < slots; k++) {
        drawn += Math.exp(logits.data[k * pixels + i] - drawnMost);
        seen += joint[k] = Math.exp(joint[k] - jointMost);
      }
      for (let k = 0; k < slots; k++) masks.data[k * pixels + i] = joint[k] / seen; // Bayes' rule
      evidence += jointMost + Math.log(seen) - drawnMost - Math.log(drawn);
    }
    let inUse = 0;
    for (let k = 0; k < slots; k++) inUse += Math.sqrt(mean(row(masks, k)) + 1e-6);
    return { cost: sparsity * inUse - ((evidence / pixels) * 2 * noise ** 2) / 3, masks };
  };
}

function mean(numbers: Float32Array): number {
  return numbers.reduce((sum, value) => sum + value, 0) / numbers.length;
}

// --- the autoencoder ---

/** A scene as the decoder draws it from slots alone, in [0, 1] up to its errors. */
export interface Drawn {
  image: Float32Array;
  /** `[slots, pixels]` and `[slots, 3 · pixels]`. */
  masks: Rows;
  slotImages: Rows;
}

/** Slots with what they draw, its cost, and whose each pixel is. */
export interface Found {
  found: Rows;
  drawing: Drawing;
  cost: number;
  masks: Rows;
}

const SUPPORTED = { encoder: ["Strided"], decoder: ["Separable"], likelihood: ["Average", "Mixture"] };

/** A part of a configuration. Where only one class may stand there, it is not named: `kind` is that one. */
function part(config: Record<string, any>, name: keyof typeof SUPPORTED, kind: string): Made {
  const found = "class_path" in config[name] ? config[name] : { class_path: kind, init_args: config[name] };
  if (!SUPPORTED[name].includes(found.class_path)) {
    throw new Error(`The page cannot compute a model with the ${name} ${found.class_path}.`);
  }
  return found;
}

export class SlotAutoencoder {
  readonly resolution: number;
  protected readonly attention: Weights;
  /** Whether slots compete for inputs; undefined as in the paper. */
  protected readonly compete: boolean | undefined;
  /** Of a slot, as slot attention has it. */
  protected readonly width: number;
  /** Of brightness, before the model sees or draws it. */
  readonly #compression: number;
  readonly #encode: (image: Float32Array) => Grid;
  protected readonly decoder: (slots: Rows) => Drawing;
  protected readonly likelihood: Likelihood;
  readonly #refine: Refine | undefined;

  constructor({ init_args: config }: Made, weights: Weights) {
    const outlined = "frame" in config; // its slots keep an outline
    part(config, "encoder", "Strided");
    const separable = part(config, "decoder", "Separable").init_args;
    const likelihood = part(config, "likelihood", "Mixture");
    if (config.attention.num_heads !== 1) throw new Error("The page computes attention with one head only.");
    if (config.softness) throw new Error("The page does not soften images.");
    this.resolution = config.resolution;
    this.attention = weights.part("slot_attention");
    this.compete = config.attention.competition;
    this.width = config.attention.slot_dim;
    this.#compression = config.compression;
    this.#encode = encoder(weights.part("encoder"), this.resolution);
    const decoder = weights.part("decoder");
    this.decoder = separableDecoder(outlined ? decoder.part("draft") : decoder, separable, config.resolution);
    this.#refine = outlined ? outlines(decoder, config.frame, config.resolution) : undefined;
    const { noise, sparsity } = likelihood.init_args;
    this.likelihood = likelihood.class_path === "Mixture" ? mixture(noise, sparsity) : average;
  }

  /** An image, channel by channel in [0, 1], as the model sees and draws it, in [-1, 1]. */
  #units(image: Float32Array): Float32Array {
    const amount = this.#compression;
    return fromUnits(amount ? image.map((value) => compressed(value, amount)) : image);
  }

  /** What a drawing shows. */
  shown({ colours, logits }: Drawing): Drawn {
    const slotImages = map(colours, (value) => expanded(inUnits(value), this.#compression));
    const { picture, masks } = compose({ colours: slotImages, logits });
    return { image: picture, slotImages, masks };
  }

  /** An image, channel by channel in [0, 1], as slot attention takes it. */
  prepare(image: Float32Array): Prepared {
    const target = this.#units(image);
    const features = this.#encode(target);
    return { target, grid: features.side, inputs: slotAttention.prepare(this.attention, features) };
  }

  /** Take a prepared image apart and put it together again. */
  answer({ target, grid, inputs }: Prepared, { slots, iterations, seed, restarts, spread }: Question): Answer {
    const tries = slotAttention.starts(this.attention, restarts, slots, seed, spread).map((start) => {
      const history = this.attend(inputs, start, iterations);
      return { history, ...this.draw(history.slots[iterations], target) };
    });
    const costs = tries.map(({ cost }) => cost);
    const best = costs.indexOf(Math.min(...costs));
    const { history, found, drawing, masks } = tries[best];
    const { image: reconstruction, slotImages, masks: drawnMasks } = this.shown(drawing);
    return {
      slots: found,
      attention: history.attention,
      grid,
      drawnMasks,
      masks,
      slotImages,
      reconstruction,
      costs,
      best,
    };
  }

  /** Slot attention from one start. */
  protected attend(inputs: slotAttention.Prepared, start: Rows, iterations: number): slotAttention.History {
    return slotAttention.attend(this.attention, inputs, start, iterations, { compete: this.compete });
  }

  /** From a start towards a fixed point of the iteration, in double precision. */
  walk(image: Float32Array, from: slotAttention.Start, method: Method, maxIterations: number, tolerance: number): Walk {
    const start = slotAttention.startOf(this.attention, from);
    return walk(this.#update(this.prepare(image)), start, method, maxIterations, tolerance);
  }

  /** Whose each pixel is, by these slots. */
  masksOf(image: Float32Array, slots: Point): Rows {
    return this.draw(rows(slots.length / this.width, this.width, Float32Array.from(slots)), this.#units(image)).masks;
  }

  /** The largest eigenvalues of the iteration's Jacobian at these slots. */
  eigenvalues(image: Float32Array, slots: Point): Complex[] {
    return eigenvalues(this.#update(this.prepare(image)), slots);
  }

  #update({ inputs }: Prepared): Update {
    const [k, v] = [double(inputs.k), double(inputs.v)];
    return (z) => {
      const slots = { data: z, count: z.length / this.width, width: this.width };
      return slotAttention.iteration(this.attention, slots, { k, v }, { compete: this.compete }).slots.data;
    };
  }

  /** What bound slots draw, and what that costs; with weights, see `weighted`. */
  protected draw(slots: Rows, target: Float32Array, weights?: number[]): Found {
    const light = (drawing: Drawing): Drawing => (weights ? weighted(drawing, weights) : drawing);
    const draft = this.decoder(slots);
    const refined = this.#refine?.(draft, slots, this.likelihood(light(draft), target).masks);
    const drawing = light(refined?.drawing ?? draft);
    return { found: refined?.slots ?? slots, drawing, ...this.likelihood(drawing, target) };
  }
}

/** An image as slot attention takes it, `grid` rows and columns of features, and in [-1, 1] as it is to be drawn. */
export interface Prepared {
  target: Float32Array;
  grid: number;
  inputs: slotAttention.Prepared;
}
