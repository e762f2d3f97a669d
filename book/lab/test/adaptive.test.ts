import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import decisions from "../golden/decisions.json";
import { AdaptiveAutoencoder, chances, decide, total, worth } from "../src/adaptive.ts";
import { compose, weighted } from "../src/autoencoder.ts";
import { made } from "../src/models.ts";
import { Stage } from "../src/scenes.ts";
import { row, rows } from "../src/tensor.ts";
import { weightsOf } from "../src/weights.ts";
import { exported, largest } from "./golden.ts";

const FOLDER = new URL("../golden/", import.meta.url);
const MODELS = readdirSync(FOLDER).filter((file) => file.startsWith("kept_"));

test.each(decisions)("coins of seed $seed fall as in slotlib, with the same chances", (golden) => {
  const { keep, soft } = decide(golden.logits, golden.temperature, golden.seed);
  expect(keep).toEqual(golden.keep);
  expect(largest(chances(golden.logits), golden.keep_probability)).toBeLessThan(1e-6);
  expect(total(chances(golden.logits))).toBeGreaterThanOrEqual(1);
  if (total(keep) === 1) return; // its gradient goes to the others too
  const slopes = soft.map((each) => (each * (1 - each)) / golden.temperature);
  expect(largest(slopes, golden.slope)).toBeLessThan(1e-5);
});

test("the temperature moves the soft weights and no coin; without noise a slot is kept from a logit of 0 on", () => {
  const logits = [-2, -0.1, 0.1, 2];
  const [warm, cold] = [2, 0.1].map((temperature) => decide(logits, temperature, 5));
  expect(warm.keep).toEqual(cold.keep);
  expect(largest(warm.soft, cold.soft)).toBeGreaterThan(0.1);
  expect(decide(logits, 1).keep).toEqual([0, 0, 1, 1]);
  expect(decide([-3, -1, -2], 1).keep).toEqual([0, 1, 0]); // one stays
});

test("a slot is worth its price if it saves more, and the one that saves most stays at any price", () => {
  expect(worth([0.3, 0.001, 0.02, -0.1], 0.002)).toEqual([1, 0, 1, 0]);
  expect(worth([0.3, 0.001, 0.02, -0.1], 1)).toEqual([1, 0, 0, 0]);
});

test("a dropped slot paints nothing, and only ratios of weights matter", () => {
  const drawing = { colours: rows(3, 6, Float32Array.from({ length: 18 }, (_, i) => i / 18)), logits: rows(3, 2, Float32Array.of(1, 0, 2, -1, 0, 3)) };
  const { masks } = compose(weighted(drawing, [1, 0, 1]));
  expect([...row(masks, 1)]).toEqual([0, 0]);
  expect(row(masks, 0)[0] + row(masks, 2)[0]).toBeCloseTo(1, 6);
  const light = compose(weighted(drawing, [0.01, 0.01, 0.01]));
  expect(largest(light.picture, compose(drawing).picture)).toBeLessThan(1e-6);
});

describe.each(MODELS)("%s", (file) => {
  const found = exported(file.slice("kept_".length, -".json".length));
  const model = made(found.model, weightsOf(found)) as AdaptiveAutoencoder;
  const stage = new Stage(found.stage);
  test.each(JSON.parse(readFileSync(new URL(file, FOLDER), "utf8")) as any[])(
    "scene $scene: $slots slots, $iterations iterations, seed $seed",
    ({ scene, slots, iterations, seed, ...golden }) => {
      const { image } = stage.draw(stage.scenes[scene]);
      const answer = model.answer(model.prepare(image), { slots, iterations, seed, restarts: 1, spread: 1 });
      expect(largest(answer.logits, golden.logits)).toBeLessThan(1e-3); // up to 14 large
      expect(decide(answer.logits, 1).keep).toEqual(golden.keep);
      expect(largest(chances(answer.logits), golden.keep_probability)).toBeLessThan(1e-4);
      expect(decide(answer.logits, 1, seed).keep).toEqual(golden.coins);
      expect(largest(answer.saved, golden.saved)).toBeLessThan(1e-4);
    },
  );
});
