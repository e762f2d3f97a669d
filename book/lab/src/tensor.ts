/** The few operations that the models need, on typed arrays. A `Rows` is a matrix, a vector per row. */
import type { Weights } from "./weights.ts";

/** What is used of `Float32Array`, and of `Float64Array` where a lab computes in double precision. */
export interface Numbers {
  readonly length: number;
  [i: number]: number;
  subarray(from: number, to: number): Numbers;
  map(change: (value: number, i: number) => number): Numbers;
  reduce(join: (all: number, value: number) => number, first: number): number;
  forEach(visit: (value: number, i: number) => void): void;
}

export interface Rows<N extends Numbers = Float32Array> {
  data: N;
  count: number;
  width: number;
}

/** A layer's parameters as torch stores them: `weight` is `[output, input]`, or `[…, blocks, output, input]`. */
export interface Layer {
  weight: Float32Array;
  bias?: Float32Array;
  shape: number[];
}

export function rows(count: number, width: number, data: Float32Array = new Float32Array(count * width)): Rows {
  return { data, count, width };
}

/** The same in double precision. */
export function double(x: Rows): Rows<Float64Array> {
  return { ...x, data: Float64Array.from(x.data) };
}

/** Rows of zeros, in the precision of `like`. */
function blank<N extends Numbers>(like: Rows<N>, count: number, width: number): Rows<N> {
  const Kind = like.data.constructor as new (size: number) => N;
  return { data: new Kind(count * width), count, width };
}

export function row<N extends Numbers>({ data, width }: Rows<N>, k: number): N {
  return data.subarray(k * width, (k + 1) * width) as N;
}

/** All rows, as a list. */
export function vectors(x: Rows): Float32Array[] {
  return Array.from({ length: x.count }, (_, k) => row(x, k));
}

/** Some columns of a matrix. */
export function columns(x: Rows, first: number, width: number): Rows {
  const out = rows(x.count, width);
  for (let i = 0; i < x.count; i++) row(out, i).set(row(x, i).subarray(first, first + width));
  return out;
}

/** x · weightᵀ + bias, for every row. */
export function linear<N extends Numbers>(x: Rows<N>, { weight, bias, shape }: Layer): Rows<N> {
  const out = shape.length > 2 ? blockProduct(x, weight, shape) : product(x, rows(shape[0], shape[1], weight));
  const to: Numbers = out.data;
  if (bias) for (let at = 0; at < to.length; at += out.width) for (let i = 0; i < out.width; i++) to[at + i] += bias[i];
  return out;
}

/**
 * a · bᵀ: every row of `a` with every row of `b`.
 *
 * Nearly all of a model's time is spent here. Two rows times four at once: each number that is read is used in several
 * products, and eight sums fit into the processor's registers.
 */
export function product<N extends Numbers>(a: Rows<N>, b: Rows<Numbers>): Rows<N> {
  const out = blank(a, a.count, b.count);
  const [x, y, to]: Numbers[] = [a.data, b.data, out.data];
  const width = a.width;
  for (let i = 0; i < a.count; i += 2) {
    const p = i * width;
    const q = Math.min(i + 1, a.count - 1) * width; // a last row alone is computed twice
    for (let j = 0; j < b.count; j += 4) {
      const last = b.count - 1;
      const r = j * width;
      const s = Math.min(j + 1, last) * width;
      const t = Math.min(j + 2, last) * width;
      const u = Math.min(j + 3, last) * width;
      let pr = 0, ps = 0, pt = 0, pu = 0, qr = 0, qs = 0, qt = 0, qu = 0;
      for (let k = 0; k < width; k++) {
        const left = x[p + k];
        const right = x[q + k];
        const first = y[r + k];
        const second = y[s + k];
        const third = y[t + k];
        const fourth = y[u + k];
        pr += left * first;
        ps += left * second;
        pt += left * third;
        pu += left * fourth;
        qr += right * first;
        qs += right * second;
        qt += right * third;
        qu += right * fourth;
      }
      const [above, below] = [i * b.count, (q / width) * b.count];
      to[above + j] = pr;
      to[above + s / width] = ps;
      to[above + t / width] = pt;
      to[above + u / width] = pu;
      to[below + j] = qr;
      to[below + s / width] = qs;
      to[below + t / width] = qt;
      to[below + u / width] = qu;
    }
  }
  return out;
}

/** The same for a matrix of blocks, `[…, blocks, out, in]`, of which each sees its own part of a row. */
function blockProduct<N extends Numbers>(x: Rows<N>, weight: Float32Array, shape: number[]): Rows<N> {
  const [blocks, size, width] = shape.slice(-3);
  const out = blank(x, x.count, weight.length / width);
  const [from, to]: Numbers[] = [x.data, out.data];
  for (let k = 0; k < x.count; k++) {
    for (let o = 0; o < out.width; o++) {
      const part = k * x.width + (Math.floor(o / size) % blocks) * width;
      let sum = 0;
      for (let i = 0; i < width; i++) sum += from[part + i] * weight[o * width + i];
      to[k * out.width + o] = sum;
    }
  }
  return out;
}

/** Rows and columns exchanged. */
export function transposed<N extends Numbers>(x: Rows<N>): Rows<N> {
  const out = blank(x, x.width, x.count);
  const to: Numbers = out.data;
  for (let i = 0; i < x.count; i++) for (let j = 0; j < x.width; j++) to[j * x.count + i] = x.data[i * x.width + j];
  return out;
}

export function map<N extends Numbers>(x: Rows<N>, change: (value: number) => number): Rows<N> {
  return { ...x, data: x.data.map(change) as N };
}

export function relu<N extends Numbers>(x: Rows<N>): Rows<N> {
  const out = blank(x, x.count, x.width);
  const [from, to]: Numbers[] = [x.data, out.data];
  for (let i = 0; i < to.length; i++) to[i] = from[i] > 0 ? from[i] : 0;
  return out;
}

export function plus<N extends Numbers>(a: Rows<N>, b: Rows<N>): Rows<N> {
  const out = blank(a, a.count, a.width);
  const [x, y, to]: Numbers[] = [a.data, b.data, out.data];
  for (let i = 0; i < to.length; i++) to[i] = x[i] + y[i];
  return out;
}

/** Every row less its mean, over its standard deviation, then scaled and shifted, if the layer does. */
export function layerNorm<N extends Numbers>(x: Rows<N>, layer: Layer | undefined, eps = 1e-3): Rows<N> {
  const out = blank(x, x.count, x.width);
  for (let k = 0; k < x.count; k++) {
    const [from, to]: Numbers[] = [row(x, k), row(out, k)];
    const mean = from.reduce((sum, value) => sum + value, 0) / x.width;
    const variance = from.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.width;
    for (let i = 0; i < x.width; i++) {
      const normal = (from[i] - mean) / Math.sqrt(variance + eps);
      to[i] = layer ? normal * layer.weight[i] + layer.bias![i] : normal;
    }
  }
  return out;
}

/** A layer, ReLU, another layer: entries 0 and 2 of a `torch.nn.Sequential`. */
export function mlp<N extends Numbers>(x: Rows<N>, layers: Weights): Rows<N> {
  return linear(relu(linear(x, layers.layer("0"))), layers.layer("2"));
}

/** Softmax of every column: over the slots, if a row is a slot. */
export function softmaxOverRows<N extends Numbers>(x: Rows<N>): Rows<N> {
  const out = blank(x, x.count, x.width);
  const to: Numbers = out.data;
  for (let j = 0; j < x.width; j++) {
    let most = -Infinity;
    for (let i = j; i < x.data.length; i += x.width) most = Math.max(most, x.data[i]);
    let sum = 0;
    for (let i = j; i < x.data.length; i += x.width) sum += to[i] = Math.exp(x.data[i] - most);
    for (let i = j; i < x.data.length; i += x.width) to[i] /= sum;
  }
  return out;
}

/** torch's GRUCell: new states from inputs and states; gates in the order reset, update, new. */
export function gru<N extends Numbers>(input: Rows<N>, state: Rows<N>, fromInput: Layer, fromState: Layer): Rows<N> {
  const [x, h] = [linear(input, fromInput), linear(state, fromState)];
  const out = blank(state, state.count, state.width);
  const sigmoid = (value: number): number => 1 / (1 + Math.exp(-value));
  for (let k = 0; k < state.count; k++) {
    const [a, b, old, next]: Numbers[] = [row(x, k), row(h, k), row(state, k), row(out, k)];
    for (let i = 0; i < state.width; i++) {
      const [j, l] = [i + state.width, i + 2 * state.width];
      const reset = sigmoid(a[i] + b[i]);
      const update = sigmoid(a[j] + b[j]);
      const fresh = Math.tanh(a[l] + reset * b[l]);
      next[i] = fresh + update * (old[i] - fresh);
    }
  }
  return out;
}

/** An image or feature maps, a pixel per row, its channels side by side. */
export interface Grid extends Rows {
  side: number;
}

/** A square convolution with zero padding of half its kernel, as `torch.nn.Conv2d(…, padding=kernel // 2)`. */
export function convolution(x: Grid, { weight, bias, shape }: Layer, stride: number): Grid {
  const [maps, channels, kernel] = shape;
  const half = Math.floor(kernel / 2);
  const side = Math.floor((x.side + 2 * half - kernel) / stride) + 1;
  // Every output pixel sees a patch; patches times weights are the convolution.
  const patches = rows(side * side, channels * kernel * kernel);
  const [from, to, area] = [x.data, patches.data, kernel * kernel];
  for (let y = 0; y < side; y++) {
    for (let column = 0; column < side; column++) {
      const patch = (y * side + column) * patches.width;
      for (let tap = 0; tap < area; tap++) {
        const down = y * stride + Math.floor(tap / kernel) - half;
        const across = column * stride + (tap % kernel) - half;
        if (down < 0 || across < 0 || down >= x.side || across >= x.side) continue;
        const pixel = (down * x.side + across) * channels;
        for (let c = 0; c < channels; c++) to[patch + c * area + tap] = from[pixel + c];
      }
    }
  }
  const out = linear(patches, { weight, bias, shape: [maps, patches.width] });
  return { ...out, side };
}
