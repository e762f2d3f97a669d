/** Paint a segmentation (chapter 04): spoil a perfect one, or paint your own, and watch five scores disagree. */
import { Brush, decode, OPEN, painting } from "../brush.ts";
import { damage, GROUND, PART, PERFECT } from "../damage.ts";
import * as metrics from "../metrics.ts";
import { choice, range, type Model } from "../settings.ts";
import scenes from "../shapes.json";
import * as ui from "../ui.ts";

const SIDE = 64;
const PIXELS = SIDE * SIDE;
const SEGMENTS = 8;
const GRAIN = 4; // units of a drawing to a pixel
export const settings = {
  scene: choice(Object.fromEntries(scenes.map(({ key, name }) => [key, name])), "9"),
  split: range(1, 5, 2),
  merge: range(1, 6, 1),
  swallow: range(0, 12, 2),
  background: range(1, 8, 1),
  noise: range(0, 1, 0, 0.01),
  colour: choice(
    Object.fromEntries(Array.from({ length: SEGMENTS + 1 }, (_, k) => [String(k), k ? `segment ${k}` : "background"])),
    "1",
  ),
  brush: range(1, 12, 3),
  painted: painting(SEGMENTS + 1, PIXELS),
};

type Own = Model<typeof settings>;
const FAULTS = ["split", "merge", "swallow", "background", "noise"] as const;

type Scores = Record<string, number>;

interface Challenge {
  task: string;
  met(scores: Scores, objects: number): boolean;
  /** Why that is possible. */
  because: string;
}

const CHALLENGES: Challenge[] = [
  {
    task: "FG-ARI 1 with mBO below 0.3",
    met: (scores) => scores["FG-ARI"] === 1 && scores.mBO < 0.3,
    because: "FG-ARI looks at pixels of objects only, so masks may swallow any amount of background.",
  },
  {
    task: "ARI above 0.85 with nothing discovered: two or more objects, FG-ARI 0",
    met: (scores, objects) => objects > 1 && scores.ARI > 0.85 && scores["FG-ARI"] < 0.005,
    because: "Most pairs involve the background. Who tells it from the rest has most of them right.",
  },
  {
    task: "mBO 1 with ARI below 0.15",
    met: (scores) => scores.mBO === 1 && scores.ARI < 0.15,
    because: "Every object is whole, and mBO asks no more. The background is in pieces, and its pairs are most of all.",
  },
  {
    task: "ARI below 0: worse than a shuffle",
    met: (scores) => scores.ARI < -0.005,
    because: "Chance scores 0. Segments that cut across objects put fewer right pairs together than chance.",
  },
];

const unrolled = (runs: number[][]): Uint8Array =>
  Uint8Array.from(runs.flatMap(([label, count]) => new Array<number>(count).fill(label)));

export async function render({ model, el }: { model: Own; el: HTMLElement }): Promise<void> {
  const said = ui.announcer();
  const pictures = Object.fromEntries(
    await Promise.all(scenes.map(async ({ key, png }) => [key, await picture(png)] as const)),
  );
  const truths = Object.fromEntries(scenes.map(({ key, runs }) => [key, unrolled(runs)]));

  // --- what is computed ---

  let truth: Uint8Array = truths[model.get("scene")];
  let pred: Uint8Array = truth;
  let table: metrics.Table = [];
  let scores: Scores = {};
  let computed = "";
  const compute = (): void => {
    const { scene, painted, split, merge, swallow, background, noise } = model.all();
    const asked = JSON.stringify([scene, painted, split, merge, swallow, background, noise]);
    if (asked === computed) return;
    computed = asked;
    truth = truths[scene];
    const over = decode(painted, PIXELS);
    pred = damage(truth, SIDE, { split, merge, swallow, background, noise }).map((label, i) =>
      over[i] === OPEN ? label : over[i],
    );
    table = metrics.contingency(truth, pred);
    scores = Object.fromEntries(Object.entries(metrics.SCORES).map(([name, score]) => [name, score(table)]));
  };
  compute();

  // --- three pictures ---

  const small = ui.element("canvas", { width: SIDE, height: SIDE });
  const labels = (context: CanvasRenderingContext2D, of: Uint8Array): void => {
    context.fillStyle = ui.themed(el, "ground");
    context.fillRect(0, 0, SIDE * GRAIN, SIDE * GRAIN);
    const pixels = new ImageData(SIDE, SIDE);
    const colours = Array.from({ length: GROUND + SEGMENTS }, (_, label) => (label ? rgba(label) : [0, 0, 0, 0]));
    of.forEach((label, i) => pixels.data.set(colours[label], 4 * i));
    small.getContext("2d")!.putImageData(pixels, 0, 0);
    context.drawImage(small, 0, 0, SIDE * GRAIN, SIDE * GRAIN);
  };
  const square = (label: string, paint: (context: CanvasRenderingContext2D) => void) =>
    ui.drawing(SIDE * GRAIN, SIDE * GRAIN, label, paint);
  const image = square("The scene", (context) =>
    context.drawImage(pictures[model.get("scene")], 0, 0, SIDE * GRAIN, SIDE * GRAIN),
  );
  const objects = square("The true objects", (context) => labels(context, truth));
  const canvas = square("Your segmentation", (context) => {
    labels(context, pred);
    const own = model.get("colour") === "0" ? ui.themed(el, "text") : colour(Number(model.get("colour")));
    brush.ring(context, own, ui.themed(el, "ground"));
  });

  // --- the brush ---

  const brush = new Brush(canvas, {
    side: () => SIDE,
    label: () => Number(model.get("colour")),
    width: () => model.get("brush"),
    painted: () => model.get("painted"),
    paint: (painted) => model.set("painted", painted),
  });

  // --- scores, table, pairs, challenges ---

  const bars = Object.fromEntries(Object.keys(metrics.SCORES).map((name) => [name, bar(name)]));
  const counts = ui.element("div", {
    class: "paint-table",
    "data-lab-value": true,
    tabindex: 0,
    role: "region",
    "aria-label": "Contingency table",
  });
  const pairs = ui.drawing(240, 240, "All pairs of pixels by kind", (context) => paintPairs(context, table));
  const kinds = Object.fromEntries(KINDS.map(({ kind, name }) => [kind, ui.readout(name)]));
  const trophies = CHALLENGES.map(({ task }) => {
    const state = ui.element("output");
    return { state, met: false, element: ui.element("li", {}, state, " ", task, " ") };
  });

  const perfect = (): void => {
    for (const name of FAULTS) model.set(name, PERFECT[name]);
    clean();
  };
  const empty = (): void => {
    brush.remember();
    model.set("painted", `a${PIXELS}`);
  };
  /** Without what was painted; undo brings it back. */
  const clean = (): void => {
    if (model.get("painted")) brush.remember();
    model.set("painted", "");
  };
  for (const name of ["scene", ...FAULTS]) model.on(`change:${name}`, clean);

  el.append(
    ui.element("style", {}, STYLE),
    ui.row(ui.menu(model, "scene", "Scene"), ui.button("Perfect", perfect), ui.button("Empty", empty), ui.reset(model)),
    ui.row(
      ui.slider(model, "split", "Split"),
      ui.slider(model, "merge", "Merge"),
      ui.slider(model, "swallow", "Swallow"),
      ui.slider(model, "background", "Background"),
      ui.slider(model, "noise", "Noise", (value) => value.toFixed(2)),
    ),
    ui.element(
      "div",
      { class: "paint-desk" },
      ui.element(
        "div",
        { class: "lab-column" },
        ui.element(
          "div",
          { class: "paint-pictures" },
          ui.panel("The scene.", image.element),
          ui.panel("The true objects.", objects.element),
        ),
        ui.row(ui.menu(model, "colour", "Paint"), ui.slider(model, "brush", "Brush"), brush.undo),
        ui.element("ul", { class: "paint-challenges" }, ...trophies.map((each) => each.element)),
      ),
      ui.panel("Your segmentation: paint on it.", brush.element),
    ),
    ui.element("div", { class: "paint-scores" }, ...Object.values(bars).map((each) => each.element)),
    ui.element(
      "div",
      { class: "paint-halves" },
      ui.element(
        "figure",
        { class: "lab-panel" },
        counts,
        ui.element("figcaption", {}, "Pixels by true object, a row, and segment, a column."),
      ),
      ui.element(
        "figure",
        { class: "lab-panel paint-pairs" },
        pairs.element,
        ui.element("div", { class: "lab-column" }, ...KINDS.map(({ kind }) => kinds[kind].element)),
        ui.element(
          "figcaption",
          {},
          "Every pair of pixels: both axes are the pixels, object by object, segment by segment.",
        ),
      ),
    ),
    said.element,
    ui.code(model, () => {
      compute();
      return lines(model, truth, pred);
    }),
  );

  ui.follow(model, () => {
    compute();
    for (const [name, score] of Object.entries(scores)) bars[name].show(score);
    counts.replaceChildren(tableOf(table));
    const four = metrics.pairCounts(table);
    for (const { kind } of KINDS) kinds[kind].show(four[kind].toLocaleString("en"));
    const things = table.slice(1).length;
    const won = CHALLENGES.flatMap(({ task, met, because }, i) => {
      const now = met(scores, things);
      const first = now && !trophies[i].met;
      trophies[i].met ||= now;
      trophies[i].state.textContent = trophies[i].met ? "✓" : "○";
      trophies[i].state.setAttribute("aria-label", trophies[i].met ? "met" : "open");
      if (first) trophies[i].element.append(ui.element("em", {}, because));
      return first ? [`Met: ${task}. ${because} `] : [];
    });
    brush.update();
    for (const each of [image, objects, pairs]) each.redraw();
    const blank = pred.every((label) => label === 0) ? "The painting is empty: everything is one segment. " : "";
    said.say(
      won.join("") +
        blank +
        Object.entries(scores)
          .map(([name, score]) => `${name} ${score.toFixed(2)}`)
          .join(", ") +
        ".",
    );
  });
}

function picture(png: string): Promise<HTMLImageElement> {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  return image.decode().then(() => image);
}

/** Segments in slot colours. Parts of the background are pale, so that objects still stand out. */
function rgba(label: number): [number, number, number, number] {
  if (label >= GROUND) return [...ui.slotRgb(label - GROUND), 90];
  return [...ui.slotRgb(label >= PART ? SEGMENTS + label - PART : label - 1), 255];
}

function colour(label: number): string {
  const [red, green, blue, alpha] = rgba(label);
  return `rgb(${red} ${green} ${blue} / ${alpha / 255})`;
}

/** A score as a number and a bar from 0 to 1. */
function bar(name: string): { element: HTMLElement; show(score: number): void } {
  const value = ui.readout(name);
  const length = ui.element("span", { class: "paint-bar", "aria-hidden": "true" });
  return {
    element: ui.element("div", {}, value.element, length),
    show(score) {
      value.show(Number.isNaN(score) ? "–" : score.toFixed(3));
      length.style.setProperty("--length", String(Math.min(Math.max(score, 0), 1)));
    },
  };
}

/** The contingency table; segments without a pixel have no column. */
function tableOf(table: metrics.Table): HTMLElement {
  const shown = table[0].flatMap((_, j) => (table.some((row) => row[j] > 0) ? [j] : []));
  const most = Math.max(...table.flat());
  const swatch = (label: number) => ui.element("i", { style: `background: ${label ? colour(label) : "transparent"}` });
  return ui.element(
    "table",
    {},
    ui.element(
      "tr",
      {},
      ui.element("td"),
      ...shown.map((j) => ui.element("th", { scope: "col", "aria-label": `segment ${j}` }, swatch(j))),
    ),
    ...table.map((row, i) =>
      ui.element(
        "tr",
        {},
        ui.element("th", { scope: "row" }, swatch(i), i ? `object ${i}` : "ground"),
        ...shown.map((j) =>
          ui.element("td", { style: `--share: ${Math.sqrt(row[j] / most)}` }, row[j] ? String(row[j]) : "·"),
        ),
      ),
    ),
  );
}

// --- the square of pairs ---

const KINDS: { kind: keyof metrics.PairCounts; name: string; slot: number }[] = [
  { kind: "a", name: "a, together in both", slot: 2 },
  { kind: "b", name: "b, apart in both", slot: 1 },
  { kind: "c", name: "c, split", slot: 0 },
  { kind: "d", name: "d, merged", slot: 5 },
];

/** Pixels sorted by object, then by segment, on both axes. Those of one cell of the table make one block. */
function paintPairs(context: CanvasRenderingContext2D, table: metrics.Table): void {
  const cells = table.flatMap((row, i) => row.flatMap((count, j) => (count ? [{ i, j, count }] : [])));
  const colours = Object.fromEntries(KINDS.map(({ kind, slot }) => [kind, ui.slotColour(slot)]));
  const unit = 240 / PIXELS;
  let y = 0;
  for (const down of cells) {
    let x = 0;
    for (const across of cells) {
      const kind = down.i === across.i ? (down.j === across.j ? "a" : "c") : down.j === across.j ? "d" : "b";
      context.fillStyle = colours[kind];
      context.fillRect(x * unit, y * unit, across.count * unit + 0.8, down.count * unit + 0.8);
      x += across.count;
    }
    y += down.count;
  }
}

// --- the same in Python ---

/** The labels as rows of letters and digits, numbered by their first appearance. */
function letters(pred: Uint8Array): string {
  const names = [...new Set(pred)];
  const text = Array.from(pred, (label) => names.indexOf(label).toString(36)).join("");
  return text.match(new RegExp(`.{${SIDE}}`, "g"))!.join("\n");
}

function lines(model: Own, truth: Uint8Array, pred: Uint8Array): string {
  const single = model.get("scene") === "single";
  const scene = single
    ? `data.make("shapes", 1, num_objects=1).batch([0])`
    : `data.make("shapes", 10).batch([${model.get("scene")}])`;
  const same = pred.every((label, i) => label === truth[i]);
  const painted = same
    ? "pred = true"
    : `pred = """
${letters(pred)}
"""
pred = torch.tensor([[int(letter, 36) for letter in row] for row in pred.split()])[None]`;
  return `import torch
from slotlib import data, metrics

true = ${scene}["mask"].long()
${painted}

print("Rand", f"{metrics.rand_index(true, pred).item():.3f}")
print("ARI", f"{metrics.adjusted_rand_index(true, pred).item():.3f}")
print("FG-ARI", f"{metrics.fg_ari(true, pred).item():.3f}")
print("mBO", f"{metrics.mean_best_overlap(true, pred).item():.3f}")
print("mIoU", f"{metrics.mean_iou(true, pred).item():.3f}")
for name, count in metrics.pair_counts(true, pred)._asdict().items():
    print(name, f"{count.item():,.0f}")`;
}

const STYLE = `
.paint-desk {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr));
  gap: 1rem;
}
.paint-desk .lab-column {
  align-content: start;
}
.paint-pictures {
  display: grid;
  grid-template-columns: 1fr 1fr;
  gap: 0.8rem;
}
.paint-desk button:disabled {
  opacity: 0.5;
}
.paint-scores {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(7rem, 1fr));
  gap: 0.4rem 1rem;
}
.paint-bar {
  display: block;
  height: 0.6rem;
  background: var(--lab-ground);
}
.paint-bar::before {
  content: "";
  display: block;
  height: 100%;
  width: calc(100% * var(--length));
  background: var(--lab-accent);
}
.paint-halves {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr));
  gap: 1rem;
  align-items: start;
}
.paint-table {
  overflow-x: auto;
  max-height: 15rem;
}
.paint-table table {
  width: auto;
  margin: 0;
  border-collapse: collapse;
  font-size: 0.8em;
}
.paint-table :is(th, td) {
  padding: 0.1rem 0.25rem;
  border: 0;
  text-align: end;
  font-weight: 400;
  white-space: nowrap;
}
.paint-table td[style] {
  background: color-mix(in srgb, var(--lab-accent) calc(60% * var(--share)), transparent);
}
.paint-table i {
  display: inline-block;
  width: 0.8em;
  height: 0.8em;
  margin-inline-end: 0.3em;
  border: 1px solid var(--lab-muted);
}
.paint-pairs {
  display: grid;
  grid-template-columns: minmax(5rem, 9.5rem) 1fr;
  gap: 0.4rem 1rem;
}
.paint-pairs figcaption {
  grid-column: 1 / -1;
}
.paint-pairs .lab-column {
  align-content: center;
  gap: 0.3rem;
}
.paint-challenges {
  margin: 0;
  padding: 0;
  list-style: none;
}
.paint-challenges em {
  color: var(--lab-muted);
}
`;
