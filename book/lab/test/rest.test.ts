import { describe, expect, test } from "vitest";
import golden from "../golden/fates.json";
import type { SlotAutoencoder } from "../src/autoencoder.ts";
import fates from "../src/fates.json";
import { made } from "../src/models.ts";
import { Generator } from "../src/random.ts";
import { best, eigenvalues, hessenbergEigenvalues, walk, type Complex, type Method } from "../src/rest.ts";
import { fromRow, Stage } from "../src/scenes.ts";
import { weightsOf } from "../src/weights.ts";
import { exported } from "./golden.ts";

const found = exported("tetrominoes");
const sceneOf = ({ things }: { things: number[][] }) => ({ ground: [0, 0, 0] as [number, number, number], things: things.map(fromRow) });

const far = ([a, b]: Complex, [c, d]: Complex): number => Math.hypot(a - c, b - d);

test("eigenvalues of a companion matrix are the roots of its polynomial", () => {
  // (x − 2)(x + 1)(x² − 2x + 5): 2, −1, 1 ± 2i
  const found = hessenbergEigenvalues([[3, -5, 1, 10], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]);
  const roots: Complex[] = [[1, 2], [1, -2], [2, 0], [-1, 0]];
  for (const root of roots) expect(Math.min(...found.map((each) => far(each, root)))).toBeLessThan(1e-10);
  expect(found.length).toBe(4);
});

test("a cycle of four, whose eigenvalues are all as large, is taken apart too", () => {
  const found = hessenbergEigenvalues([[0, 0, 0, 1], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]);
  for (const root of [[1, 0], [-1, 0], [0, 1], [0, -1]] as Complex[])
    expect(Math.min(...found.map((each) => far(each, root)))).toBeLessThan(1e-10);
});

test("products alone give the largest eigenvalues of a linear update, and none that is not one", () => {
  const size = 200;
  const scale = new Generator(3).normal64(208).map((value) => 0.3 * Math.tanh(value));
  // Blocks that turn and shrink: two pairs outside the others, the rest real.
  const update = (z: Float64Array): Float64Array => {
    const value = z.map((each, i) => scale[i] * each + 0.1);
    [value[0], value[1]] = [0.6 * z[0] - 0.9 * z[1], 0.9 * z[0] + 0.6 * z[1]];
    [value[2], value[3]] = [-0.7 * z[2] - 0.2 * z[3], 0.2 * z[2] - 0.7 * z[3]];
    return value;
  };
  const found = eigenvalues(update, new Float64Array(size).fill(0.5));
  [[0.6, 0.9], [0.6, -0.9], [-0.7, 0.2], [-0.7, -0.2]].forEach((root) =>
    expect(Math.min(...found.slice(0, 4).map((each) => far(each, root as Complex)))).toBeLessThan(1e-7),
  );
  const all: Complex[] = [...found.slice(0, 4), ...[...scale].map((each): Complex => [each, 0])];
  for (const each of found) expect(Math.min(...all.map((true_) => far(true_, each)))).toBeLessThan(2e-3);
});

test("Anderson finds at once what a linear update of few dimensions leaves, and plain iteration goes away from it", () => {
  const update = (z: Float64Array): Float64Array => Float64Array.of(1 - 1.5 * z[0], 2 + 0.5 * z[1], 0.9 * z[2] - 1);
  const start = Float64Array.of(0, 0, 0);
  const found = walk(update, start, "anderson", 50, 1e-10);
  expect(found.converged).toBe(true);
  expect(found.residuals.length).toBeLessThan(8);
  [0.4, 4, -10].forEach((value, i) => expect(found.values.at(-1)![i]).toBeCloseTo(value, 8));
  const plain = walk(update, start, "plain", 50, 1e-10);
  expect(plain.converged).toBe(false);
  expect(plain.values.length).toBe(50);
});

describe.each(fates)("the scene that is $name", (fate) => {
  const model = made(found.model, weightsOf(found)) as SlotAutoencoder;
  const stage = new Stage(found.stage);
  const { image } = stage.draw(sceneOf(fate));
  const start = { slots: fate.pieces + 1, count: fate.count, k: fate.first, seed: fate.seed };
  test.each(golden.filter((each) => each.fate === fate.name))("$method, $iterations iterations", (expected) => {
    const way = model.walk(image, start, expected.method as Method, expected.iterations, 1e-10);
    const least = [1, 3, 9].map((count) => (expected.method === "plain" ? way.residuals[count - 1] : Math.min(...way.residuals.slice(0, count))));
    // Anderson's jumps make much of the slow scene's last digits: in single or in double precision, PyTorch differs by 7e-5.
    const jumping = fate.name === "slow" && expected.method === "anderson";
    least.forEach((residual, i) => expect(residual / expected.least[i]).toBeCloseTo(1, jumping ? 3 : 4));
    expect(way.converged).toBe(expected.converged);
    if (way.converged) expect(Math.abs(way.residuals.length - expected.needed)).toBeLessThan(4);
    const wandering = (fate.name === "restless" || jumping) && !way.converged; // what differs at all grows
    if (wandering && expected.iterations > 100) return;
    const at = way.values[best(way, expected.method as Method, expected.iterations)];
    const eigenvalues = model.eigenvalues(image, at);
    const near = wandering ? 5e-3 : 1e-4;
    const distance = (value: Complex, all: Complex[]): number => Math.min(...all.map((each) => far(each, value)));
    const known = expected.eigenvalues as Complex[];
    for (const value of known.slice(0, 3)) expect(distance(value, eigenvalues)).toBeLessThan(near);
    // Of several that are nearly the same one may not have settled; what is shown is one of them.
    const smallest = Math.hypot(...known[known.length - 1]) + near;
    for (const value of eigenvalues) if (Math.hypot(...value) > smallest) expect(distance(value, known)).toBeLessThan(near);
  });
});
