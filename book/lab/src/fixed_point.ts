/**
 * Fixed points on a line, and their gradients: slotlib/implicit.py in one dimension.
 *
 * An update z ← f(z, x) is repeated until z stops moving: z* = f(z*, x). J is its slope in z, a number here.
 */

export interface Update {
  value(z: number, x: number): number;
  /** ∂f/∂z, the Jacobian. */
  slope(z: number): number;
}

/** x + a (z − 1): the straight line of slope a through (1, x). */
export function line(a: number): Update {
  return { value: (z, x) => x + a * (z - 1), slope: () => a };
}

/** x + tanh a (z − 1): as steep at 1, and flatter everywhere else. */
export function bend(a: number): Update {
  return { value: (z, x) => x + Math.tanh(a * (z - 1)), slope: (z) => a / Math.cosh(a * (z - 1)) ** 2 };
}

export interface Solution {
  z: number;
  /** |f(z) − z| / |f(z)| where f was evaluated last; `z` is the f(z) of that evaluation. */
  residual: number;
  converged: boolean;
  /** The start, and z after each evaluation. */
  trail: number[];
}

/** How far from fixed: |value − z| / |value| with value = f(z), and 0 where nothing moved. */
export function residual(value: number, z: number): number {
  return value === z ? 0 : Math.abs(value - z) / Math.abs(value);
}

/** Plain iteration from z, until the residual is at most `tolerance`. */
export function solve(f: Update, z: number, x: number, tolerance = 1e-6, maxIterations = 100): Solution {
  const trail = [z];
  let now = Infinity;
  while (trail.length <= maxIterations && !(now <= tolerance)) {
    const value = f.value(z, x);
    now = residual(value, z);
    z = value;
    trail.push(z);
  }
  return { z, residual: now, converged: now <= tolerance, trail };
}

// --- gradients: dz/dx, where ∂f/∂x = 1 ---

/** Through every iteration, from z on (equation 6.3). From a fixed point on: through the last steps alone. */
export function unrolled(f: Update, z: number, x: number, iterations: number): number {
  let gradient = 0;
  for (let i = 0; i < iterations; i++) {
    gradient = 1 + f.slope(z) * gradient;
    z = f.value(z, x);
  }
  return gradient;
}

/** So many terms of 1 + J + J² + …, at one z (equation 6.6). */
export function neumann(f: Update, z: number, terms: number): number {
  let [gradient, term] = [0, 1];
  for (let i = 0; i < terms; i++) {
    gradient += term;
    term *= f.slope(z);
  }
  return gradient;
}

/** All terms, 1 / (1 − J), also where the series diverges (equation 6.4). NaN if J is 1: no derivative exists. */
export function exact(f: Update, z: number): number {
  const slope = f.slope(z);
  return slope === 1 ? NaN : 1 / (1 - slope);
}

/**
 * Banach's bound on |z − z*| after so many iterations of an f that shrinks every distance to a share `rate` at most,
 * from the first move alone. NaN if it need not shrink.
 */
export function banach(rate: number, firstMove: number, iterations: number): number {
  return rate < 1 ? (rate ** iterations / (1 - rate)) * Math.abs(firstMove) : NaN;
}
