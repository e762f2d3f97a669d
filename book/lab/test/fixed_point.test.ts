import { expect, test } from "vitest";
import golden from "../golden/fixed_point.json";
import { banach, bend, exact, line, neumann, residual, solve, unrolled } from "../src/fixed_point.ts";

const MAPS: Record<string, typeof line> = { line, bend };

test.each(golden)("$map of slope $slope from $start: as slotlib has it", (each) => {
  const f = MAPS[each.map](each.slope);
  const found = solve(f, each.start, 1, 1e-6, each.iterations);
  const needed = found.trail.length - 1;
  const close = (actual: number, expected: number) => expect(actual / expected).toBeCloseTo(1, 6);
  close(found.z, each.z);
  expect(found.residual).toBeCloseTo(each.residual, 9);
  expect([needed, found.converged]).toEqual([each.needed, each.converged]);
  expect(unrolled(f, each.start, 1, needed)).toBeCloseTo(each.gradients.unrolled, 6);
  close(unrolled(f, found.z, 1, each.steps), each.gradients.implicit);
  close(neumann(f, found.z, each.steps), each.gradients.neumann);
  close(exact(f, found.z), each.gradients.exact);
});

test("the exact gradient is how far the fixed point moves", () => {
  for (const f of [line(-0.7), line(0.8), bend(0.8), bend(1.5)]) {
    const rest = (x: number) => solve(f, 0.2, x, 1e-14, 2000).z;
    const moved = (rest(1 + 1e-5) - rest(1 - 1e-5)) / 2e-5;
    expect(exact(f, rest(1)) / moved).toBeCloseTo(1, 5);
  }
});

test("a slope of 1 has no derivative, and no bound", () => {
  expect(exact(line(1), 0.3)).toBeNaN();
  expect(banach(1, 0.5, 3)).toBeNaN();
});

test("on a line Banach's bound is the distance itself where the slope is positive, and never less", () => {
  for (const slope of [-0.9, -0.3, 0.3, 0.9]) {
    const { trail } = solve(line(slope), -0.5, 1, 1e-6, 30);
    trail.forEach((z, n) => {
      const bound = banach(Math.abs(slope), trail[1] - trail[0], n);
      expect(bound).toBeGreaterThanOrEqual(Math.abs(z - 1) - 1e-12);
      if (slope > 0) expect(bound).toBeCloseTo(Math.abs(z - 1), 12);
    });
  }
});

test("nothing moved, nothing left: also at 0", () => expect(residual(0, 0)).toBe(0));
