import { expect, test } from "vitest";
import golden from "../golden/random.json";
import { Generator } from "../src/random.ts";

test.each(golden)("the numbers of seed $seed are torch's", ({ seed, draws }) => {
  const generator = new Generator(seed);
  for (const draw of draws) {
    const drawn = [...generator[draw.kind as "uniform" | "normal" | "exponential"](draw.count)];
    const expected = draw.numbers;
    drawn.slice(-expected.length).forEach((number, i) => expect(number).toBeCloseTo(expected[i], 5));
  }
});

test("of normal numbers the mean is 0 and the spread 1", () => {
  const numbers = new Generator(1).normal(100_000);
  const mean = numbers.reduce((sum, x) => sum + x, 0) / numbers.length;
  const square = numbers.reduce((sum, x) => sum + x * x, 0) / numbers.length;
  expect(Math.abs(mean)).toBeLessThan(0.01);
  expect(Math.abs(square - 1)).toBeLessThan(0.02);
});
