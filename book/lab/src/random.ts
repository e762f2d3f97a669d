/**
 * Random numbers exactly as torch draws them on a CPU: `new Generator(7)` is `torch.Generator().manual_seed(7)`.
 *
 * What a reader finds with a seed in the page is then found with the same seed in Python. The numbers come from the
 * Mersenne Twister (Matsumoto and Nishimura, 1998), normal ones by Box and Muller's transform, which torch does in two
 * ways: for few numbers one pair after another, for sixteen and more in blocks.
 */

const SIZE = 624;
const SHIFT = 397;
const BLOCK = 16;

export class Generator {
  #state = new Uint32Array(SIZE);
  #next = SIZE;
  #spare: number | undefined; // of a pair of normal numbers the one that was not asked for yet

  constructor(seed: number) {
    this.#state[0] = seed;
    for (let i = 1; i < SIZE; i++) {
      const before = this.#state[i - 1];
      this.#state[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
    }
  }

  /** 32 random bits. */
  bits(): number {
    if (this.#next === SIZE) this.#twist();
    let y = this.#state[this.#next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    y ^= y >>> 18;
    return y >>> 0;
  }

  #twist(): void {
    const state = this.#state;
    for (let i = 0; i < SIZE; i++) {
      const y = (state[i] & 0x80000000) | (state[(i + 1) % SIZE] & 0x7fffffff);
      state[i] = state[(i + SHIFT) % SIZE] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
    }
    this.#next = 0;
  }

  /** `torch.rand(count)`: in [0, 1), multiples of 2⁻²⁴. */
  uniform(count: number): Float32Array {
    return Float32Array.from({ length: count }, () => this.#single());
  }

  /** `torch.rand(count, dtype=torch.float64)`: in [0, 1), multiples of 2⁻⁵³. */
  uniform64(count: number): Float64Array {
    return Float64Array.from({ length: count }, () => this.#double());
  }

  /** `torch.randint(below, (count,))`. */
  integers(below: number, count: number): Uint32Array {
    return Uint32Array.from({ length: count }, () => this.bits() % below);
  }

  /** `torch.empty(count).exponential_()`. */
  exponential(count: number): Float32Array {
    return Float32Array.from({ length: count }, () => -Math.log1p(-this.#double()));
  }

  /** `torch.randn(count)`. */
  normal(count: number): Float32Array {
    if (count < BLOCK) return Float32Array.from({ length: count }, () => this.#oneNormal());
    const numbers = transformed(this.uniform(count));
    // The last block begins before the end of the one before it, and is drawn anew.
    if (count % BLOCK) numbers.set(transformed(this.uniform(BLOCK)), count - BLOCK);
    return numbers;
  }

  /** `torch.randn(count, dtype=torch.float64)` for a multiple of 16. */
  normal64(count: number): Float64Array {
    return transformed(this.uniform64(count));
  }

  #single(): number {
    return (this.bits() & 0xffffff) / 2 ** 24;
  }

  /** In [0, 1), a multiple of 2⁻⁵³. */
  #double(): number {
    const high = this.bits() & 0x1fffff;
    return (high * 2 ** 32 + this.bits()) / 2 ** 53;
  }

  #oneNormal(): number {
    if (this.#spare !== undefined) {
      const spare = this.#spare;
      this.#spare = undefined;
      return spare;
    }
    const angle = 2 * Math.PI * this.#double();
    const radius = Math.sqrt(-2 * Math.log1p(-this.#double()));
    this.#spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  }
}

/** Every sixteen uniform numbers become sixteen normal ones: the first half gives radii, the second angles. */
function transformed<N extends Float32Array | Float64Array>(numbers: N): N {
  const half = BLOCK / 2;
  for (let at = 0; at + BLOCK <= numbers.length; at += BLOCK) {
    for (let i = at; i < at + half; i++) {
      const radius = Math.sqrt(-2 * Math.log(1 - numbers[i]));
      const angle = 2 * Math.PI * numbers[i + half];
      numbers[i] = radius * Math.cos(angle);
      numbers[i + half] = radius * Math.sin(angle);
    }
  }
  return numbers;
}
