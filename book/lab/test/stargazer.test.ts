import { describe, expect, test } from "vitest";
import golden from "../golden/stargazer.json";
import { decode, encode } from "../src/places.ts";
import { Generator } from "../src/random.ts";
import { ari, likeness, loss, sky, spread, Stargazer, sureness, type Question } from "../src/stargazer.ts";
import { weightsOf } from "../src/weights.ts";
import { exported, floats, largest } from "./golden.ts";

const found = exported("stargazer");
const model = new Stargazer(weightsOf(found));

describe.each(golden)("sky $sky.number with $sky.orbits orbits, $question", ({ sky: there, question, ...expected }) => {
  const { dots, orbit } = sky(there.orbits, new Generator(100 + there.number));
  const history = model.look(dots, question as Question);
  const attention = history.attention[question.iterations - 1];
  const drawings = model.draw(history.slots[question.iterations]);

  test("the sky is the chapter's", () => {
    expect(orbit).toEqual(there.orbit);
    expect(largest(dots.data, there.dots.flat())).toBeLessThan(2e-6);
  });

  test("says what PyTorch says", () => {
    const trail = floats(expected.trail);
    const length = largest(trail, new Float32Array(trail.length));
    // Slots that start almost alike part by a factor an iteration, and rounding errors grow by the same.
    const tolerance = question.noise < 0.01 ? 1e-2 : 1e-4;
    expect(
      largest(
        history.slots.flatMap(({ data }) => [...data]),
        trail,
      ) / length,
    ).toBeLessThan(tolerance);
    expect(largest(attention.data, floats(expected.attention))).toBeLessThan(tolerance);
    expect(loss(dots, drawings)).toBeCloseTo(expected.loss, 3);
    expect(sureness(attention)).toBeCloseTo(expected.sureness, 3);
    expect(likeness(drawings)).toBeCloseTo(expected.likeness, 3);
    expect(ari(orbit, attention)).toBeCloseTo(expected.ari, 5);
  });
});

test("slots that start alike stay alike, and the smallest difference is enough", () => {
  const { dots } = sky(3, new Generator(100));
  const apart = (noise: number): number[] =>
    model.look(dots, { slots: 3, iterations: 20, start: 0, noise }).slots.map(spread);
  expect(Math.max(...apart(0))).toBeLessThan(1e-6);
  const grown = apart(1e-4);
  expect(grown[0]).toBeLessThan(1e-3);
  expect(grown[20] / grown[0]).toBeGreaterThan(1000);
});

test("at a place where a dot lies, who would win a dot there is who has that one", () => {
  const { dots } = sky(4, new Generator(103));
  const { slots, attention } = model.look(dots, { slots: 4, iterations: 3, start: 1, noise: 1 });
  expect(largest(model.territories(slots[2], model.keys(dots)).data, attention[2].data)).toBeLessThan(1e-6);
});

test("places come back from their text to a hundredth, and stop at the edge", () => {
  expect(
    decode(
      encode(
        [
          [0, 0],
          [-3.6, 3.6],
          [1.234, -9],
        ],
        3.6,
        3.6,
      ),
      3.6,
      3.6,
    ),
  ).toEqual([
    [0, 0],
    [-3.6, 3.6],
    [1.23, -3.6],
  ]);
});
