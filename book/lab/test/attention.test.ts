import { describe, expect, test } from "vitest";
import golden from "../golden/attention.json";
import {
  attentionWeights,
  countDifferent,
  found,
  freeEnergy,
  look,
  trail,
  type Axis,
  type Rows,
} from "../src/attention.ts";
import { CLUMPS, randomStart, WORLDS } from "../src/clumps.ts";

const POINTS = WORLDS.clumps.points;

function close(actual: Rows, expected: Rows): void {
  expect(actual.length).toBe(expected.length);
  // To six digits: torch.cdist has no more.
  actual.forEach((row, i) => row.forEach((value, d) => expect(value).toBeCloseTo(expected[i][d], 6)));
}

test("the world is the chapter's", () => close(POINTS, golden.points));

test.each(golden.cases)("over the $over, temperature $temperature, seed $seed $name: as slotlib has it", (each) => {
  const [points, over] = [each.points ?? POINTS, each.over as Axis];
  if (each.seed !== undefined) close(randomStart(POINTS, each.start.length, each.seed), each.start);
  const places = trail(each.start, points, each.temperature, over, each.iterations);
  close(places[each.iterations], each.moved);
  const { weights } = look(places[each.iterations - 1], points, each.temperature, over);
  close([weights.map((row) => row.reduce((a, b) => a + b))], [each.owned]);
  close([points.slice(0, 10).map((_, j) => weights.reduce((total, row) => total + row[j], 0))], [each.received]);
  const ends = [places[0], places[each.iterations]].map((queries) => freeEnergy(queries, points, each.temperature));
  close([ends], [each.energies]);
});

describe.each(["keys", "queries"] as const)("over the %s", (over) => {
  test("fifty starts find what they find in Python", () => {
    const ends = golden.tally[over].found.map(
      (_, seed) => trail(randomStart(POINTS, 5, seed), POINTS, 0.05, over, 40)[40],
    );
    expect(ends.map((end) => found(CLUMPS, end, 0.5))).toEqual(golden.tally[over].found);
    expect(ends.map((end) => countDifferent(end, 0.1))).toEqual(golden.tally[over].places);
  });

  test("weights sum to 1 over the axis of competition, however large the scores", () => {
    const weights = attentionWeights(
      [
        [900, 2, 3],
        [-4, -900, 6],
      ],
      over,
    );
    const sums =
      over === "keys" ? weights.map((row) => row.reduce((a, b) => a + b)) : weights[0].map((a, j) => a + weights[1][j]);
    sums.forEach((sum) => expect(sum).toBeCloseTo(1, 12));
  });
});

test("over the queries the free energy never rises", () => {
  for (let seed = 0; seed < 20; seed++) {
    const energies = trail(randomStart(POINTS, 5, seed), POINTS, 0.1, "queries", 20).map((at) =>
      freeEnergy(at, POINTS, 0.1),
    );
    energies.slice(1).forEach((energy, i) => expect(energy).toBeLessThanOrEqual(energies[i] + 1e-9));
  }
});

test("without points or queries there is no energy, and nothing fails", () => {
  expect(freeEnergy([], POINTS, 0.1)).toBeNaN();
  expect(freeEnergy([[0, 0]], [], 0.1)).toBeNaN();
  expect(look([], POINTS, 0.1, "queries")).toEqual({ moved: [], weights: [] });
  expect(randomStart([], 5, 0)).toEqual([]);
  expect(randomStart(POINTS.slice(0, 3), 5, 0)).toHaveLength(3);
});
