/** A trained model as `slotlib export lab` writes it: its configuration, its parameters, and the scenes it knows. */
import type { Written } from "./scenes.ts";
import type { Layer } from "./tensor.ts";

export const DAMAGED = "This experiment could not start: its trained model arrived damaged.";

/** What stands in `lab/weights/NAME.js`. */
export interface Exported {
  /** Class and configuration, as in a YAML file. */
  model: Made;
  /** Shapes of the parameters, in the order of `data`. */
  tensors: Record<string, number[]>;
  /** All numbers in single precision, in base64: their lowest bytes first, then their second ones, and so on. */
  data: string;
  crc32: number;
  /** How scenes are drawn that the model was trained on; null if the page does not draw them. */
  stage: Written | null;
}

export interface Made {
  class_path: string;
  init_args: Record<string, any>;
}

export interface Tensor {
  shape: number[];
  data: Float32Array;
}

/** Parameters by torch's names. */
export class Weights {
  readonly #tensors: Map<string, Tensor>;
  readonly #prefix: string;

  constructor(tensors: Map<string, Tensor>, prefix = "") {
    this.#tensors = tensors;
    this.#prefix = prefix;
  }

  /** Those whose names begin with `name`. */
  part(name: string): Weights {
    return new Weights(this.#tensors, `${this.#prefix}${name}.`);
  }

  /** The same, and others besides or in their place. */
  with(others: Record<string, Tensor>): Weights {
    const named = Object.entries(others).map(([name, tensor]): [string, Tensor] => [this.#prefix + name, tensor]);
    return new Weights(new Map([...this.#tensors, ...named]), this.#prefix);
  }

  shape(name: string): number[] {
    return this.#named(name).shape;
  }

  tensor(name: string): Float32Array {
    return this.#named(name).data;
  }

  has(name: string): boolean {
    return this.#tensors.has(this.#prefix + name);
  }

  layer(name: string): Layer {
    return this.pair(`${name}.weight`, `${name}.bias`);
  }

  /** A layer whose weight and bias have names of their own. */
  pair(weight: string, bias: string): Layer {
    const { data, shape } = this.#named(weight);
    return { weight: data, shape, bias: this.has(bias) ? this.tensor(bias) : undefined };
  }

  #named(name: string): Tensor {
    const found = this.#tensors.get(this.#prefix + name);
    if (!found) throw new Error(`The model has no parameter ${this.#prefix}${name}.`);
    return found;
  }
}

/** The numbers of a file of weights. Throws a sentence for the reader if they are not what was written. */
export function decode({ data, crc32: expected }: Pick<Exported, "data" | "crc32">): Float32Array<ArrayBuffer> {
  const broken = new Error(DAMAGED);
  let text: string;
  try {
    text = atob(data);
  } catch {
    throw broken;
  }
  const planes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) planes[i] = text.charCodeAt(i);
  if (planes.length % 4 || crc32(planes) !== expected) throw broken;
  const bytes = new Uint8Array(planes.length);
  const count = planes.length / 4;
  for (let i = 0; i < count; i++) for (let b = 0; b < 4; b++) bytes[4 * i + b] = planes[b * count + i];
  return new Float32Array(bytes.buffer);
}

/** The parameters in a file of weights. Throws as `decode`. */
export function weightsOf(exported: Exported): Weights {
  return weights(exported.tensors, decode(exported));
}

/** Tensors of these shapes from all their numbers, one after another. */
export function weights(shapes: Record<string, number[]>, numbers: Float32Array): Weights {
  const tensors = new Map<string, Tensor>();
  let at = 0;
  for (const [name, shape] of Object.entries(shapes)) {
    const size = shape.reduce((all, extent) => all * extent, 1);
    tensors.set(name, { shape, data: numbers.subarray(at, (at += size)) });
  }
  return new Weights(tensors);
}

/** As Python's `zlib.crc32`. */
export function crc32(bytes: Uint8Array): number {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}
