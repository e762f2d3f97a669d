/** Matching two sets (chapter 05), as in `slotlib/matching.py`. Costs are [prediction][object]. */

export type Cost = readonly (readonly number[])[];

/** The Huber loss of every prediction as every object, averaged over their values. */
export function pairwiseHuber(pred: readonly ArrayLike<number>[], target: readonly ArrayLike<number>[]): number[][] {
  const huber = (r: number): number => (Math.abs(r) <= 1 ? 0.5 * r * r : Math.abs(r) - 0.5);
  return pred.map((said) =>
    target.map((truth) => Array.from(said).reduce((sum, value, d) => sum + huber(value - truth[d]), 0) / said.length),
  );
}

/**
 * For every prediction its object in the pairing of least cost, or undefined where objects run out. `real` are objects
 * that must find a partner before any other does.
 */
export function hungarian(cost: Cost, real?: readonly boolean[]): (number | undefined)[] {
  const [predictions, objects] = [cost.length, cost[0].length];
  if (predictions > objects) {
    const partner = assign(cost[0].map((_, m) => cost.map((row) => row[m])));
    return cost.map((_, k) => partner.indexOf(k)).map((m) => (m < 0 ? undefined : m));
  }
  const all = cost.flat();
  const span = Math.max(...all) - Math.min(...all) + 1; // one padding row costs more than all that others could save
  return assign(cost.map((row) => row.map((value, m) => (real && !real[m] ? value + 2 * span * predictions : value))));
}

/**
 * The column of every row, no more rows than columns: Kuhn's method with prices, a row after the other. From a new row
 * the shortest way to a free column is sought; along it columns change their owners.
 */
function assign(cost: Cost): number[] {
  const columns = cost[0].length;
  const rowPrice = new Array<number>(cost.length).fill(0);
  const columnPrice = new Array<number>(columns).fill(0);
  const owner = new Array<number>(columns).fill(-1);
  for (let row = 0; row < cost.length; row++) {
    const far = new Array<number>(columns).fill(Infinity); // how much more a column costs on the way so far
    const before = new Array<number>(columns).fill(-1); // the column before it on that way
    const met: number[] = [];
    let [from, last] = [row, -1];
    for (;;) {
      let next = -1;
      for (let column = 0; column < columns; column++) {
        if (met.includes(column)) continue;
        const more = cost[from][column] - rowPrice[from] - columnPrice[column];
        if (more < far[column]) [far[column], before[column]] = [more, last];
        if (next < 0 || far[column] < far[next]) next = column;
      }
      const step = far[next];
      rowPrice[row] += step;
      for (const column of met) {
        rowPrice[owner[column]] += step;
        columnPrice[column] -= step;
      }
      for (let column = 0; column < columns; column++) if (!met.includes(column)) far[column] -= step;
      if (owner[next] < 0) {
        for (let column = next; column >= 0; column = before[column]) {
          owner[column] = before[column] < 0 ? row : owner[before[column]];
        }
        break;
      }
      met.push(next);
      [from, last] = [owner[next], next];
    }
  }
  return cost.map((_, row) => owner.indexOf(row));
}

/** The sum of the costs of pairs. */
export function paired(cost: Cost, partner: readonly (number | undefined)[]): number {
  return partner.reduce<number>((sum, m, k) => (m === undefined ? sum : sum + cost[k][m]), 0);
}

/** Everybody pairs with the nearest: half of what predictions pay for that plus what objects pay. */
export function chamfer(cost: Cost): number {
  const least = (numbers: readonly number[]): number => Math.min(...numbers);
  const sum = (numbers: readonly number[]): number => numbers.reduce((a, b) => a + b, 0);
  return (sum(cost.map(least)) + sum(cost[0].map((_, m) => least(cost.map((row) => row[m]))))) / 2;
}
