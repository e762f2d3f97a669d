import { expect, test } from "vitest";
import { rows } from "../src/tensor.ts";
import { agreement, exchanged, readCodes, writeCodes } from "../src/texts.ts";

test("a text comes back from an address, and nothing else does", () => {
  const codes = [0, 15, 9, 10, 3, 0];
  expect(readCodes(writeCodes(codes), 6, 16)).toEqual(codes);
  expect(readCodes(writeCodes(codes), 6, 15)).toBeUndefined(); // no such code
  expect(readCodes(writeCodes(codes), 7, 16)).toBeUndefined();
  expect(readCodes("0f!a30", 6, 16)).toBeUndefined();
  expect(readCodes("", 0, 16)).toEqual([]);
});

test("what was exchanged is where texts differ", () => {
  expect(exchanged([1, 2, 3, 4], [1, 0, 3, 5])).toEqual([1, 3]);
});

test("slots are compared with those that show the same, in whatever order they were found", () => {
  const of = (...slots: number[][]) => rows(slots.length, 4, Float32Array.from(slots.flat()));
  const drawn = of([1, 1, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]);
  const seen = of([0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 0]);
  expect(agreement(drawn, seen, [1, 2, 3, 4, 5, 6], [9, 9, 3, 7, 1, 2])).toEqual([1, 2, 3, 7, undefined, undefined]);
});
