/** The worlds of points that the queries look at: that of chapter 01, two clouds, and a ring without clumps. */
import type { Rows } from "./attention.ts";
import { Generator } from "./random.ts";

export const CLUMPS: Rows = [
  [-2.2, 1.2],
  [0.1, 2.0],
  [2.2, 1.0],
  [1.4, -1.7],
  [-1.3, -1.5],
];
const CLOUDS: Rows = [
  [-1.5, 0],
  [1.5, 0],
];
const COUNT = 200;

export interface World {
  points: Rows;
  /** The middles of its clumps, if it has any. */
  clumps: Rows;
}

/** 200 points, as many around each clump's middle, `spread` wide. */
function around(clumps: Rows, spread: number): World {
  const noise = new Generator(0).normal64(2 * COUNT);
  const points = Array.from({ length: COUNT }, (_, i) =>
    clumps[Math.floor((i * clumps.length) / COUNT)].map((middle, d) => middle + spread * noise[2 * i + d]),
  );
  return { points, clumps };
}

function ring(): World {
  const angle = (i: number) => (2 * Math.PI * i) / COUNT;
  const points = Array.from({ length: COUNT }, (_, i) => [2 * Math.cos(angle(i)), 2 * Math.sin(angle(i))]);
  return { points, clumps: [] };
}

export const WORLDS = {
  clumps: around(CLUMPS, 0.35),
  clouds: around(CLOUDS, 1),
  ring: ring(),
  none: { points: [], clumps: [] },
} satisfies Record<string, World>;

/** `count` different points, drawn at random, as the chapter's `random_starts(1, count, seed)[0]`. */
export function randomStart(points: Rows, count: number, seed: number): Rows {
  const order = new Generator(seed).uniform64(points.length);
  const ranked = points.map((_, i) => i).sort((i, j) => order[i] - order[j]);
  return ranked.slice(0, count).map((i) => points[i]);
}
