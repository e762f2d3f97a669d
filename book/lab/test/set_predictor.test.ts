import { describe, expect, test } from "vitest";
import golden from "../golden/describe.json";
import { SCENES } from "../src/clevr.ts";
import { chamfer, hungarian, paired, pairwiseHuber, type Cost } from "../src/matching.ts";
import { Generator } from "../src/random.ts";
import { averagePrecision, SetPredictor } from "../src/set_predictor.ts";
import { vectors } from "../src/tensor.ts";
import { weightsOf } from "../src/weights.ts";
import { exported, floats, largest } from "./golden.ts";

const found = exported("clevr10_sets");
const model = new SetPredictor(found.model, weightsOf(found));
const prepared = SCENES.map(({ image }) => model.prepare(image));

describe.each(golden.answers)("scene $scene, $question", ({ scene, question, ...expected }) => {
  const { slots, iterations, start } = question;
  const said = model.describe(prepared[scene], slots, iterations, start);
  const objects = [...SCENES[scene].objects];
  const real = Array.from({ length: Math.max(slots, 10) }, (_, m) => m < objects.length);
  while (objects.length < real.length) objects.push(new Float32Array(19));
  const cost = pairwiseHuber(vectors(said), objects);

  test("says what PyTorch says", () => {
    expect(largest(said.data, floats(expected.properties))).toBeLessThan(1e-4);
    const partner = hungarian(cost, real);
    expect(paired(cost, partner)).toBeCloseTo(expected.hungarian, 5);
    expect(chamfer(cost)).toBeCloseTo(expected.chamfer, 5);
    // Padding rows are alike: which of them a slot has is of no account.
    const [rows, columns] = expected.pairs;
    const named = (m: number | undefined) => (m !== undefined && real[m] ? m : "nothing");
    expect(rows.map((k) => named(partner[k]))).toEqual(columns.map(named));
  });
});

test.each(golden.precision)("average precision for $question", ({ question: { slots, iterations, start }, scores }) => {
  const said = prepared.map((each) => vectors(model.describe(each, slots, iterations, start)));
  const truth = SCENES.map(({ objects }) => objects);
  for (const [within, score] of Object.entries(scores)) {
    const ours = averagePrecision(said, truth, within === "inf" ? Infinity : Number(within));
    expect(Math.abs(ours - score)).toBeLessThan(1e-3); // slots that are sure to the same six digits may change places
  }
});

test.each(golden.matched)("the least cost is SciPy's", ({ cost, least }) => {
  expect(paired(cost, hungarian(cost))).toBeCloseTo(least, 5);
});

/** The least sum of all ways to pair as many as can be. */
function bruteForce(cost: Cost): number {
  if (cost.length > cost[0].length) return bruteForce(cost[0].map((_, m) => cost.map((each) => each[m])));
  const from = (k: number, free: number[]): number =>
    k === cost.length
      ? 0
      : Math.min(
          ...free.map(
            (m) =>
              cost[k][m] +
              from(
                k + 1,
                free.filter((other) => other !== m),
              ),
          ),
        );
  return from(
    0,
    cost[0].map((_, m) => m),
  );
}

test("no other pairing costs less, of all there are", () => {
  const generator = new Generator(0);
  for (let i = 0; i < 200; i++) {
    const [predictions, objects] = [1 + (i % 6), 1 + (Math.floor(i / 6) % 6)];
    const round = i % 2 ? 4 : 1e6; // half of them with ties
    const cost = Array.from({ length: predictions }, () =>
      [...generator.uniform(objects)].map((u) => Math.round(u * round)),
    );
    const partner = hungarian(cost);
    const used = partner.filter((m) => m !== undefined);
    expect(new Set(used).size).toBe(Math.min(predictions, objects));
    expect(paired(cost, partner)).toBe(bruteForce(cost));
  }
});

test("real objects find a partner before padding does", () => {
  expect(hungarian([[5, 0]])).toEqual([1]);
  expect(hungarian([[5, 0]], [true, false])).toEqual([0]);
});
