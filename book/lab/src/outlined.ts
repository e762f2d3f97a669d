/**
 * Sharp drawings, as in `slotlib/outlined.py`: from a draft a slot reads its outline, in a window around its centre, and
 * draws it again on top of the draft.
 */
import type { Drawing } from "./autoencoder.ts";
import { mlp, plus, product, row, rows, transposed, type Rows } from "./tensor.ts";
import type { Weights } from "./weights.ts";

const [WINDOW, CANVAS] = [16, 24]; // places along a side of what is read, and of what is drawn

/** What makes of a draft, its slots and whose each pixel is the slots with their outlines, and their drawing. */
export type Refine = (draft: Drawing, slots: Rows, whose: Rows) => { slots: Rows; drawing: Drawing };

export function outlines(weights: Weights, frame: number, side: number): Refine {
  /** Linear interpolation along one axis: the part that each of `count` places has in a pixel, a place per row. */
  const hats = (centre: number, count: number): Rows => {
    const spacing = frame / count;
    const out = rows(count, side);
    for (let j = 0; j < count; j++) {
      const place = centre + (j - (count - 1) / 2) * spacing;
      for (let i = 0; i < side; i++) row(out, j)[i] = Math.max(0, 1 - Math.abs((i + 0.5) / side - place) / spacing);
    }
    return out;
  };

  /** Every row over its sum, so that a place holds a mean. */
  const means = (x: Rows): Rows => {
    for (let j = 0; j < x.count; j++) {
      const own = row(x, j);
      const sum = own.reduce((all, value) => all + value, 0) + 1e-3;
      own.forEach((value, i) => (own[i] = value / sum));
    }
    return x;
  };

  return (draft, slots, whose) => {
    const windows = rows(slots.count, WINDOW ** 2);
    const centres = Array.from({ length: slots.count }, (_, k) => centreOf(row(whose, k), side));
    centres.forEach(([y, x], k) => {
      const [down, across] = [means(hats(y, WINDOW)), means(hats(x, WINDOW))];
      const mask = rows(side, side, row(whose, k));
      row(windows, k).set(product(product(down, transposed(mask)), across).data);
    });
    const outline = mlp(windows, weights.part("outline"));
    const described = beside(slots, outline);
    const canvas = mlp(described, weights.part("canvas"));
    const logits = rows(slots.count, side * side);
    centres.forEach(([y, x], k) => {
      const [down, across] = [transposed(hats(y, CANVAS)), transposed(hats(x, CANVAS))];
      const drawn = rows(CANVAS, CANVAS, row(canvas, k));
      row(logits, k).set(product(product(down, transposed(drawn)), across).data);
    });
    const places = rows(slots.count, 2, Float32Array.from(centres.flat(), (place) => 2 * place - 1));
    return {
      slots: beside(described, places),
      drawing: { colours: draft.colours, logits: plus(draft.logits, logits) },
    };
  };
}

/** The centre of mass of a mask, (y, x) from 0 to 1. Squared: a little everywhere should not move it. */
function centreOf(mask: Float32Array, side: number): [number, number] {
  let [total, y, x] = [0, 0, 0];
  mask.forEach((share, i) => {
    const weight = share * share + 1e-6;
    total += weight;
    y += (weight * (Math.floor(i / side) + 0.5)) / side;
    x += (weight * ((i % side) + 0.5)) / side;
  });
  return [y / total, x / total];
}

function beside(a: Rows, b: Rows): Rows {
  const out = rows(a.count, a.width + b.width);
  for (let k = 0; k < a.count; k++) {
    row(out, k).set(row(a, k));
    row(out, k).set(row(b, k), a.width);
  }
  return out;
}
