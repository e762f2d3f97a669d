/**
 * How well do predicted segments match true objects? slotlib/metrics.py, for one image.
 *
 * Segmentations are lists of labels, one for each pixel. Labels are names from 0 up: which are used never matters,
 * except for the background, 0.
 */
import { hungarian, paired } from "./matching.ts";

export type Labels = ArrayLike<number>;

/** How many pixels carry true label i, a row, and predicted label j, a column. */
export type Table = readonly (readonly number[])[];

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);
const mean = (numbers: readonly number[]) => sum(numbers) / numbers.length;
const columns = (table: Table) => (table[0] ?? []).map((_, j) => table.map((row) => row[j]));
const largest = (labels: Labels) => Array.from(labels).reduce((most, label) => Math.max(most, label), 0);

/** The contingency table. Raises RangeError where the two have not as many pixels. */
export function contingency(truth: Labels, pred: Labels): number[][] {
  if (truth.length !== pred.length) {
    throw new RangeError(`true and pred must have as many pixels, got ${truth.length} and ${pred.length}`);
  }
  const table = Array.from({ length: largest(truth) + 1 }, () => new Array<number>(largest(pred) + 1).fill(0));
  for (let pixel = 0; pixel < truth.length; pixel++) table[truth[pixel]][pred[pixel]]++;
  return table;
}

/** The same table without the pixels whose true label is the background. */
export function foreground(table: Table): Table {
  return table.map((row, i) => (i === 0 ? row.map(() => 0) : row));
}

/** Every pair of pixels is one of four kinds. */
export interface PairCounts {
  /** Together in both segmentations. */
  a: number;
  /** Apart in both. */
  b: number;
  /** Together in the true one only: an object was split. */
  c: number;
  /** Together in the predicted one only: objects were merged. */
  d: number;
}

const pairs = (count: number) => (count ** 2 - count) / 2;

/** The four counts, without looking at any pair (equation 4.2). */
export function pairCounts(table: Table): PairCounts {
  const a = sum(table.flat().map(pairs));
  const c = sum(table.map((row) => pairs(sum(row)))) - a;
  const d = sum(columns(table).map((column) => pairs(sum(column)))) - a;
  return { a, b: pairs(sum(table.flat())) - a - c - d, c, d };
}

/** Share of pairs on which the two agree: together in both, or apart in both. 1 for fewer than two pixels. */
export function randIndex(table: Table): number {
  const { a, b, c, d } = pairCounts(table);
  return 1 - (c + d) / Math.max(a + b + c + d, 1);
}

/**
 * The Rand index, shifted and scaled so that chance scores 0 and a perfect match 1 (equation 4.5).
 * Where the formula is 0/0 both sides are one segment, or all single pixels, or nothing: they agree, and that is 1.
 */
export function adjustedRandIndex(table: Table): number {
  const { a, b, c, d } = pairCounts(table);
  const scale = (a + c) * (c + b) + (a + d) * (d + b);
  return scale > 0 ? (2 * (a * b - c * d)) / scale : 1;
}

/** ARI over the pixels of objects: blind to how much background a mask swallows. */
export function fgAri(table: Table): number {
  return adjustedRandIndex(foreground(table));
}

/** Intersection over union of every true segment with every predicted one. */
export function intersectionOverUnion(table: Table): number[][] {
  const wide = columns(table).map(sum);
  return table.map((row) => row.map((both, j) => both / Math.max(sum(row) + wide[j] - both, 1)));
}

/** The rows of `intersectionOverUnion` that are objects, not background and not without pixels. */
function objects(table: Table): number[][] {
  return intersectionOverUnion(table).filter((_, i) => i > 0 && sum(table[i]) > 0);
}

/** mBO: for each object the best IoU of any segment, averaged over objects; 1 without objects. */
export function meanBestOverlap(table: Table): number {
  const iou = objects(table);
  return iou.length ? mean(iou.map((row) => Math.max(...row))) : 1;
}

/** mIoU: mean IoU of objects under the best one-to-one matching with segments; 1 without objects. */
export function meanIou(table: Table): number {
  const iou = objects(table);
  const partner = iou.length ? hungarian(iou.map((row) => row.map((each) => -each))) : [];
  return iou.length ? paired(iou, partner) / iou.length : 1;
}

/** The scores, by the names that the book gives them. */
export const SCORES: Record<string, (table: Table) => number> = {
  Rand: randIndex,
  ARI: adjustedRandIndex,
  "FG-ARI": fgAri,
  mBO: meanBestOverlap,
  mIoU: meanIou,
};
