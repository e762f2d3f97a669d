/**
 * Attention, with the axis of competition spelled out: slotlib/attention.py, for a handful of points.
 *
 * Shapes as there: queries [K][D], points (keys and values in one) [N][D], weights always [K][N].
 */

export type Rows = readonly (readonly number[])[];

/** What shares one unit of attention: each query, over the keys, or each key, over the queries. */
export type Axis = "keys" | "queries";

const sum = (numbers: readonly number[]) => numbers.reduce((total, number) => total + number, 0);

function squaredDistance(a: readonly number[], b: readonly number[]): number {
  let total = 0;
  for (let d = 0; d < a.length; d++) total += (a[d] - b[d]) ** 2;
  return total;
}

function transpose(rows: Rows): number[][] {
  return (rows[0] ?? []).map((_, j) => rows.map((row) => row[j]));
}

/** log Σ exp. The largest goes first, so that nothing overflows. */
function logSumExp(row: readonly number[]): number {
  const largest = Math.max(...row);
  return largest + Math.log(sum(row.map((value) => Math.exp(value - largest))));
}

function softmax(row: readonly number[]): number[] {
  const total = logSumExp(row);
  return row.map((value) => Math.exp(value - total));
}

/** −½‖x − q‖² / temperature: high for what is near (equation 1.5). */
export function logits(queries: Rows, points: Rows, temperature: number): number[][] {
  return queries.map((query) => points.map((point) => (-0.5 * squaredDistance(query, point)) / temperature));
}

/** Softmax of the logits over the named axis. */
export function attentionWeights(logits: Rows, over: Axis): number[][] {
  return over === "keys" ? logits.map(softmax) : transpose(transpose(logits).map(softmax));
}

/**
 * Average of the values for each query, whatever its weights sum to (equation 1.4).
 * `eps` goes to every weight, so that a query which owns nothing gets the plain mean instead of 0/0.
 */
export function weightedMean(weights: Rows, values: Rows, eps = 1e-8): number[][] {
  const columns = transpose(values);
  return weights.map((row) => {
    const total = sum(row) + eps * row.length;
    return columns.map((column) => sum(column.map((value, j) => (row[j] + eps) * value)) / total);
  });
}

export interface Look {
  /** Where each query goes: the mean of what it sees. */
  moved: number[][];
  weights: number[][];
}

/** Every query looks at the points. Over the queries this is an iteration of soft k-means. */
export function look(queries: Rows, points: Rows, temperature: number, over: Axis): Look {
  const weights = attentionWeights(logits(queries, points, temperature), over);
  return { moved: weightedMean(weights, points, 1e-12), weights };
}

/** Look and move, so many times: where the queries were at first, and after each. */
export function trail(queries: Rows, points: Rows, temperature: number, over: Axis, iterations: number): Rows[] {
  const places = [queries];
  for (let i = 0; i < iterations; i++) places.push(look(places[i], points, temperature, over).moved);
  return places;
}

/** What soft k-means lowers with every iteration (equation 1.6). NaN without points or queries. */
export function freeEnergy(queries: Rows, points: Rows, temperature: number): number {
  if (queries.length === 0) return NaN;
  const perPoint = transpose(logits(queries, points, temperature)).map(logSumExp);
  return (-temperature * sum(perPoint)) / perPoint.length;
}

/** How many of the places have one of the queries nearer than `radius`. */
export function found(places: Rows, queries: Rows, radius: number): number {
  return places.filter((place) => queries.some((query) => squaredDistance(place, query) < radius ** 2)).length;
}

/** At how many different places the queries are; nearer than `radius` is the same place. */
export function countDifferent(queries: Rows, radius: number): number {
  return queries.filter((query, i) => found([query], queries.slice(0, i), radius) === 0).length;
}
