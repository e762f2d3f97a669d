/**
 * Where slots come to rest (chapter 06), as in `slotlib/implicit.py`: of one image, in double precision.
 *
 * Near a fixed point an update is its Jacobian. The largest eigenvalues of that are found from products with it alone
 * (Arnoldi, 1951), each the difference of two updates.
 */
import { Generator } from "./random.ts";

/** All slots, one after another. */
export type Point = Float64Array;
export type Update = (z: Point) => Point;
export type Complex = [real: number, imaginary: number];
export type Method = "plain" | "anderson";

export interface Walk {
  /** f at each point where it was evaluated; the first is the start. */
  values: Point[];
  /** How far each point was from fixed, ‖f(z) − z‖ / ‖f(z)‖. */
  residuals: number[];
  converged: boolean;
}

/** Look for z = f(z) until the residual is at most `tolerance`, or f was evaluated so many times. */
export function walk(f: Update, start: Point, method: Method, maxIterations: number, tolerance: number): Walk {
  const propose = method === "plain" ? (_: Point, value: Point): Point => value : anderson(20);
  const way: Walk = { values: [], residuals: [], converged: false };
  for (let z = start; way.values.length < maxIterations && !way.converged; ) {
    const value = f(z);
    const residual = length(minus(value, z)) / length(value);
    way.values.push(value);
    way.residuals.push(residual);
    way.converged = residual <= tolerance;
    z = propose(z, value);
  }
  return way;
}

/** Which of the first so many evaluations is the result: of plain iteration the last, else that of least residual. */
export function best({ residuals }: Walk, method: Method, iterations: number): number {
  const seen = residuals.slice(0, iterations);
  return method === "plain" ? seen.length - 1 : seen.indexOf(Math.min(...seen));
}

/** Anderson, 1965: go where the last steps, combined so that what moves is shortest, would lead. */
function anderson(memory: number): (z: Point, value: Point) => Point {
  const RIDGE = 1e3 * Number.EPSILON; // changes become parallel: of many good combinations the smallest
  const [changes, gains]: Point[][] = [[], []];
  let last: { value: Point; move: Point } | undefined;
  return (z, value) => {
    const move = minus(value, z);
    const before = last;
    last = { value, move };
    if (!before) return value;
    const change = minus(move, before.move);
    const size = length(change) || 1;
    changes.push(change.map((each) => each / size));
    gains.push(minus(value, before.value).map((each) => each / size));
    if (changes.length > memory) for (const list of [changes, gains]) list.shift();
    const products = changes.map((a, i) => changes.map((b, j) => dot(a, b) + (i === j ? RIDGE : 0)));
    const weights = solved(products, changes.map((each) => dot(each, move)));
    return value.map((each, i) => each - weights.reduce((sum, weight, m) => sum + weight * gains[m][i], 0));
  };
}

/** x with matrix · x = target, by Gauss: a matrix of dot products needs no pivots. */
function solved(matrix: number[][], target: number[]): number[] {
  const rows = matrix.map((row, i) => [...row, target[i]]);
  rows.forEach((row, i) => {
    for (const below of rows.slice(i + 1)) {
      const share = below[i] / row[i];
      for (let j = i; j < row.length; j++) below[j] -= share * row[j];
    }
  });
  const x = new Array<number>(rows.length).fill(0);
  for (let i = rows.length - 1; i >= 0; i--) {
    const known = x.reduce((sum, value, j) => sum + value * rows[i][j], 0);
    x[i] = (rows[i][rows.length] - known) / rows[i][i];
  }
  return x;
}

// --- eigenvalues ---

const STEP = 1e-6; // of a difference, relative to z
const AGREE = 1e-4;

/** The eigenvalues of the Jacobian of f at z that `products` products settle, the largest first. */
export function eigenvalues(f: Update, z: Point, products = 96): Complex[] {
  const step = STEP * (1 + length(z));
  const jacobian = (v: Point): Point => {
    const [ahead, behind] = [1, -1].map((way) => f(z.map((value, i) => value + way * step * v[i])));
    return minus(ahead, behind).map((value) => value / (2 * step));
  };
  const hessenberg = arnoldi(jacobian, new Generator(0).normal64(z.length), Math.min(products, z.length));
  const found = hessenbergEigenvalues(hessenberg);
  if (hessenberg.length === z.length) return found;
  // A quarter of the products less: what that moves is not settled.
  const less = Math.ceil((3 * hessenberg.length) / 4);
  const before = hessenbergEigenvalues(hessenberg.slice(0, less).map((row) => row.slice(0, less)));
  return found.filter(([a, b]) => before.some(([c, d]) => Math.hypot(a - c, b - d) < AGREE));
}

/** The matrix in a basis that products with it have built, `size` vectors, each orthogonal to those before. */
function arnoldi(matrix: (v: Point) => Point, first: Point, size: number): number[][] {
  const basis = [scaled(first, 1 / length(first))];
  const small = Array.from({ length: size }, () => new Array<number>(size).fill(0));
  for (let j = 0; j < size; j++) {
    const v = matrix(basis[j]);
    for (let twice = 0; twice < 2; twice++) {
      basis.forEach((each, i) => {
        const share = dot(each, v);
        small[i][j] += share;
        for (let at = 0; at < v.length; at++) v[at] -= share * each[at];
      });
    }
    if (j + 1 === size) break;
    small[j + 1][j] = length(v);
    basis.push(scaled(v, 1 / small[j + 1][j]));
  }
  return small;
}

/** Eigenvalues of a matrix that is 0 below its subdiagonal, by the QR algorithm with Wilkinson's shifts; the largest first. */
export function hessenbergEigenvalues(matrix: number[][]): Complex[] {
  const re = matrix.map((row) => Float64Array.from(row));
  const im = matrix.map((row) => new Float64Array(row.length));
  const size = (i: number, j: number): number => Math.hypot(re[i][j], im[i][j]);
  const small = (k: number): boolean => size(k, k - 1) <= Number.EPSILON * (size(k, k) + size(k - 1, k - 1));
  const found: Complex[] = [];
  let tries = 0;
  for (let last = matrix.length - 1; last >= 0; ) {
    let first = last;
    while (first > 0 && !small(first)) first--;
    if (first === last) {
      found.push([re[last][last], im[last][last]]);
      last--;
      tries = 0;
    } else {
      const stuck = ++tries % 12 === 0; // another shift leads out of a circle
      const shift: Complex = stuck ? [size(last, last - 1), 0] : wilkinson(re, im, last);
      sweep(re, im, first, last, shift);
    }
  }
  return found.sort((a, b) => Math.hypot(...b) - Math.hypot(...a));
}

/** Of the last two rows' two eigenvalues the one that is nearer to the last entry. */
function wilkinson(re: Float64Array[], im: Float64Array[], last: number): Complex {
  const [a, b, c, d] = [[-1, -1], [-1, 0], [0, -1], [0, 0]].map(
    ([i, j]): Complex => [re[last + i][last + j], im[last + i][last + j]],
  );
  const half: Complex = [(a[0] - d[0]) / 2, (a[1] - d[1]) / 2];
  const [x, y] = [
    half[0] ** 2 - half[1] ** 2 + b[0] * c[0] - b[1] * c[1],
    2 * half[0] * half[1] + b[0] * c[1] + b[1] * c[0],
  ];
  const size = Math.hypot(x, y);
  const root: Complex = [Math.sqrt((size + x) / 2), Math.sign(y || 1) * Math.sqrt((size - x) / 2)];
  const nearer = half[0] * root[0] + half[1] * root[1] > 0 ? -1 : 1;
  return [d[0] + half[0] + nearer * root[0], d[1] + half[1] + nearer * root[1]];
}

/** A − shift = QR, then RQ + shift, for the block of rows and columns from `first` to `last`. */
function sweep(re: Float64Array[], im: Float64Array[], first: number, last: number, [p, q]: Complex): void {
  for (let k = first; k <= last; k++) {
    re[k][k] -= p;
    im[k][k] -= q;
  }
  const turns: number[][] = [];
  for (let k = first; k < last; k++) {
    const length = Math.hypot(re[k][k], im[k][k], re[k + 1][k], im[k + 1][k]) || 1;
    const [a, b, c, d] = [re[k][k], im[k][k], re[k + 1][k], im[k + 1][k]].map((part) => part / length);
    turns.push([a, b, c, d]);
    for (let j = k; j <= last; j++) {
      const [x, y, u, v] = [re[k][j], im[k][j], re[k + 1][j], im[k + 1][j]];
      re[k][j] = a * x + b * y + c * u + d * v;
      im[k][j] = a * y - b * x + c * v - d * u;
      re[k + 1][j] = d * y - c * x + a * u - b * v;
      im[k + 1][j] = a * v + b * u - c * y - d * x;
    }
  }
  turns.forEach(([a, b, c, d], turn) => {
    const k = first + turn;
    for (let i = first; i <= k + 1; i++) {
      const [x, y, u, v] = [re[i][k], im[i][k], re[i][k + 1], im[i][k + 1]];
      re[i][k] = x * a - y * b + u * c - v * d;
      im[i][k] = x * b + y * a + u * d + v * c;
      re[i][k + 1] = u * a + v * b - x * c - y * d;
      im[i][k + 1] = v * a - u * b - y * c + x * d;
    }
  });
  for (let k = first; k <= last; k++) {
    re[k][k] += p;
    im[k][k] += q;
  }
}

// --- vectors ---

export function length(a: Point): number {
  return Math.sqrt(dot(a, a));
}

function dot(a: Point, b: Point): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += a[i] * b[i];
  return sum;
}

function minus(a: Point, b: Point): Point {
  return a.map((value, i) => value - b[i]);
}

function scaled(a: Point, share: number): Point {
  return a.map((value) => share * value);
}
