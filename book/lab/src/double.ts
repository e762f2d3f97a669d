/** More of torch's numbers from one generator: in double precision, as the chapters on points use it, and whole ones. */
import type { Generator } from "./random.ts";

const BLOCK = 16;

/** `torch.rand(count, dtype=torch.float64)`: in [0, 1), multiples of 2⁻⁵³. */
export function uniform(generator: Generator, count: number): number[] {
  return Array.from({ length: count }, () => {
    const high = generator.bits() & 0x1fffff;
    return (high * 2 ** 32 + generator.bits()) / 2 ** 53;
  });
}

/** `torch.randn(count, dtype=torch.float64)` for a multiple of 16: blocks of eight radii and eight angles. */
export function normal(generator: Generator, count: number): number[] {
  const numbers = uniform(generator, count);
  return numbers.map((_, i) => {
    const half = BLOCK / 2;
    const first = i - (i % BLOCK) + (i % half);
    const radius = Math.sqrt(-2 * Math.log(1 - numbers[first]));
    const angle = 2 * Math.PI * numbers[first + half];
    return radius * (i % BLOCK < half ? Math.cos(angle) : Math.sin(angle));
  });
}

/** `torch.randint(below, (count,))`. */
export function integers(generator: Generator, below: number, count: number): number[] {
  return Array.from({ length: count }, () => generator.bits() % below);
}
