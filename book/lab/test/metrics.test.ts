import { describe, expect, test } from "vitest";
import golden from "../golden/metrics.json";
import { damage } from "../src/damage.ts";
import * as metrics from "../src/metrics.ts";
import scenes from "../src/shapes.json";

const SIDE = 64;

const unrolled = (runs: number[][]) => runs.flatMap(([label, count]) => new Array<number>(count).fill(label));
const truthOf = (key: string) => unrolled(scenes.find((scene) => scene.key === key)!.runs);
const digits = (text: string) => [...text].map(Number);

interface Scored {
  pairs: metrics.PairCounts;
  foreground: metrics.PairCounts;
  scores: Record<string, number>;
}

function same(truth: metrics.Labels, pred: metrics.Labels, expected: Scored): void {
  const table = metrics.contingency(truth, pred);
  expect(metrics.pairCounts(table)).toEqual(expected.pairs);
  expect(metrics.pairCounts(metrics.foreground(table))).toEqual(expected.foreground);
  for (const [name, score] of Object.entries(metrics.SCORES)) expect(score(table), name).toBeCloseTo(expected.scores[name], 12);
}

test.each(golden.easy)("$name: as slotlib scores it", (each) => same(digits(each.true), digits(each.pred), each));

describe.each(golden.damages)("scene $scene, spoiled by $faults", (each) => {
  const truth = truthOf(each.scene);
  const pred = damage(truth, SIDE, each.faults);

  test("the damage is the chapter's", () => {
    const first = unrolled(each.runs);
    expect([...pred.slice(0, first.length)]).toEqual(first);
  });
  test("the scores are slotlib's", () => same(truth, pred, each));
  test("segments have no names", () =>
    same(
      truth,
      pred.map((label) => 40 - label),
      each,
    ));
});

test("every scene has its pixels, and objects numbered from 1", () => {
  for (const { runs } of scenes) {
    expect(unrolled(runs)).toHaveLength(SIDE * SIDE);
    const labels = new Set(runs.map(([label]) => label));
    expect([...labels].sort()).toEqual([...labels].map((_, i) => i));
  }
});

test("two lists of different length are refused", () => {
  expect(() => metrics.contingency([0, 1], [0])).toThrow("as many pixels");
});
