/** The few operations that the models need, on typed arrays. A `Rows` is a matrix, a vector per row. */
import type { Weights } from "./weights.ts";

export interface Rows {
  data: Float32Array;
  count: number;
  width: number;
}

/** A layer's parameters as torch stores them: `weight` is `[output, input, …]`. */
export interface Layer {
  weight: Float32Array;
  bias?: Float32Array;
  shape: number[];
}

export function rows(count: number, width: number, data: Float32Array = new Float32Array(count * width)): Rows {
  return { data, count, width };
}

export function row({ data, width }: Rows, k: number): Float32Array {
  return data.subarray(k * width, (k + 1) * width);
}

/** All rows, as a list. */
export function vectors(x: Rows): Float32Array[] {
  return Array.from({ length: x.count }, (_, k) => row(x, k));
}

/** x · weightᵀ + bias, for every row. */
export function linear(x: Rows, { weight, bias, shape }: Layer): Rows {
  const out = product(x, rows(shape[0], shape[1], weight));
  if (bias) for (let at = 0; at < out.data.length; at += out.width) for (let i = 0; i < out.width; i++) out.data[at + i] += bias[i];
  return out;
}

/**
 * a · bᵀ: every row of `a` with every row of `b`.
 *
 * Nearly all of a model's time is spent here. Two rows times four at once: each number that is read is used in several
 * products, and eight sums fit into the processor's registers.
 */
export function product(a: Rows, b: Rows): Rows {
  const out = rows(a.count, b.count);
  const [x, y, to] = [a.data, b.data, out.data];
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

/** Rows and columns exchanged. */
export function transposed(x: Rows): Rows {
  const out = rows(x.width, x.count);
  for (let i = 0; i < x.count; i++) for (let j = 0; j < x.width; j++) out.data[j * x.count + i] = x.data[i * x.width + j];
  return out;
}

export function map(x: Rows, change: (value: number) => number): Rows {
  return rows(x.count, x.width, x.data.map(change));
}

export function relu(x: Rows): Rows {
  return map(x, (value) => (value > 0 ? value : 0));
}

export function plus(a: Rows, b: Rows): Rows {
  return rows(a.count, a.width, a.data.map((value, i) => value + b.data[i]));
}

/** Every row less its mean, over its standard deviation, then scaled and shifted, if the layer does. */
export function layerNorm(x: Rows, layer: Layer | undefined, eps = 1e-3): Rows {
  const out = rows(x.count, x.width);
  for (let k = 0; k < x.count; k++) {
    const [from, to] = [row(x, k), row(out, k)];
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
export function mlp(x: Rows, layers: Weights): Rows {
  return linear(relu(linear(x, layers.layer("0"))), layers.layer("2"));
}

/** Softmax of every column: over the slots, if a row is a slot. */
export function softmaxOverRows(x: Rows): Rows {
  const out = rows(x.count, x.width);
  for (let j = 0; j < x.width; j++) {
    let most = -Infinity;
    for (let i = j; i < x.data.length; i += x.width) most = Math.max(most, x.data[i]);
    let sum = 0;
    for (let i = j; i < x.data.length; i += x.width) sum += out.data[i] = Math.exp(x.data[i] - most);
    for (let i = j; i < x.data.length; i += x.width) out.data[i] /= sum;
  }
  return out;
}

/** torch's GRUCell: new states from inputs and states; gates in the order reset, update, new. */
export function gru(input: Rows, state: Rows, fromInput: Layer, fromState: Layer): Rows {
  const [x, h] = [linear(input, fromInput), linear(state, fromState)];
  const out = rows(state.count, state.width);
  const sigmoid = (value: number): number => 1 / (1 + Math.exp(-value));
  for (let k = 0; k < state.count; k++) {
    const [a, b, old, next] = [row(x, k), row(h, k), row(state, k), row(out, k)];
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
