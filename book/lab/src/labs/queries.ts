/** Queries on points (chapter 01): who looks where, who is left over, and what fifty random starts find. */
import { countDifferent, found, freeEnergy, look, trail, type Axis, type Rows } from "../attention.ts";
import { randomStart, WORLDS } from "../clumps.ts";
import { decode as decoded, encode as encoded, placed } from "../places.ts";
import { Generator } from "../random.ts";
import { choice, range, text, type Model } from "../settings.ts";
import * as ui from "../ui.ts";

const MOST = 40; // iterations
const STARTS = 50;
const MOST_POINTS = 400;
const FOUND_WITHIN = 0.5; // of a clump's middle, as in the chapter
const SAME_WITHIN = 0.1;
const AT_REST = 1e-3;
const PACE = 300; // ms from one iteration to the next

// The part of the plane that is shown, and its drawing: so many of the drawing's units to one of the plane.
const [RIGHT, TOP, UNIT] = [4.5, 3.3, 50];
const MATRIX = { width: 320, height: 150, left: 56, right: 44 };
const CURVE = { width: 320, height: 100, left: 56, bottom: 82 };

const encode = (places: Rows): string => encoded(places, RIGHT, TOP);
const decode = (places: string): Rows => decoded(places, RIGHT, TOP);

export const settings = {
  softmax: choice({ keys: "over keys", queries: "over queries" }, "keys"),
  temperature: range(0.02, 4.02, 0.1, 0.01),
  iterations: range(0, MOST, 10),
  world: choice({ clumps: "five clumps", clouds: "two clouds", ring: "a ring", none: "your own" }, "clumps"),
  queries: range(1, 8, 5),
  start: range(0, STARTS - 1, 0),
  press: choice({ move: "drags", add: "adds a point", remove: "removes a point" }, "move"),
  /** Where the reader has put the points, or the queries at the start; empty as long as nothing was moved. */
  points: text("", placed(MOST_POINTS)),
  own: text("", placed(8)),
};

const HINTS: Record<string, string> = {
  move: "Drag a diamond, or a point.",
  add: "Press where there shall be a point.",
  remove: "Press a point to remove it.",
};

type Own = Model<typeof settings>;
type World = keyof typeof WORLDS;

const overOf = (model: Own) => model.get("softmax") as Axis;
const worldOf = (model: Own) => WORLDS[model.get("world") as World];
const pointsOf = (model: Own): Rows => (model.get("points") ? decode(model.get("points")) : worldOf(model).points);
const startOf = (model: Own, points: Rows): Rows =>
  model.get("own") ? decode(model.get("own")) : randomStart(points, model.get("queries"), model.get("start"));

/** What a run has found: of the clumps, if there are any to know of; else at how many places the queries are. */
function count(model: Own, queries: Rows): number {
  const { clumps } = worldOf(model);
  return clumps.length ? found(clumps, queries, FOUND_WITHIN) : countDifferent(queries, SAME_WITHIN);
}

export function render({ model, el }: { model: Own; el: HTMLElement }): void {
  const said = ui.announcer();
  const energy = ui.readout("Free energy");
  const share = ui.readout("Attention of each query");
  const counted = ui.readout("Found");
  const note = ui.element("p", { class: "lab-said" });

  // --- what is computed ---

  let points: Rows = [];
  let places: Rows[] = []; // of the queries: at the start and after each iteration, to the last
  let weights: number[][] = [];
  let energies: number[] = [];
  let computed = "";
  let chosen = 0; // the point that the keyboard holds

  const now = (): Rows => places[model.get("iterations")];

  const compute = (): void => {
    const { softmax, temperature, world, queries, start, points: own, own: from } = model.all();
    const asked = JSON.stringify([softmax, temperature, world, queries, start, own, from]);
    if (asked !== computed) {
      points = pointsOf(model);
      chosen = Math.min(chosen, Math.max(points.length - 1, 0));
      places = trail(startOf(model, points), points, temperature, overOf(model), points.length ? MOST : 0);
      while (places.length <= MOST) places.push(places[0]);
      energies = places.map((at) => freeEnergy(at, points, temperature));
      computed = asked;
    }
    weights = look(now(), points, temperature, overOf(model)).weights;
  };
  compute();

  // --- the plane ---

  const across = ([x, y]: readonly number[]): ui.Point => ({ x: (x + RIGHT) * UNIT, y: (TOP - y) * UNIT });
  const back = ({ x, y }: ui.Point): number[] => [x / UNIT - RIGHT, TOP - y / UNIT];

  const paintPlane = (context: CanvasRenderingContext2D): void => {
    const received = points.map((_, j) => weights.reduce((total, row) => total + row[j], 0));
    const mean = received.reduce((a, b) => a + b, 0) / received.length;
    const colours = weights.map((_, k) => ui.slotRgb(k));
    const ink = ui.themed(el, "muted");
    context.strokeStyle = ui.themed(el, "line");
    context.strokeRect(0.5, 0.5, plane.width - 1, plane.height - 1);
    context.font = "17px sans-serif"; // the plane is shown at about two thirds of its units
    context.fillStyle = ink;
    context.fillText(HINTS[model.get("press")], 8, plane.height - 8);
    context.lineWidth = 0.5;
    points.forEach((point, j) => {
      const { x, y } = across(point);
      const mix = [0, 1, 2].map((c) =>
        weights.reduce((total, row, k) => total + (row[j] / Math.max(received[j], 1e-300)) * colours[k][c], 0),
      );
      context.beginPath();
      context.arc(x, y, Math.sqrt(Math.min(Math.max((9 * received[j]) / (mean || 1), 2.5), 34)), 0, 2 * Math.PI);
      context.fillStyle = `rgb(${mix.map(Math.round).join(" ")})`;
      context.strokeStyle = ink;
      context.fill();
      context.stroke();
    });
    if (points.length && document.activeElement === handles.element.querySelector("button:last-of-type")) {
      const { x, y } = across(points[chosen]);
      context.beginPath();
      context.arc(x, y, 9, 0, 2 * Math.PI);
      context.lineWidth = 2;
      context.strokeStyle = ui.themed(el, "accent");
      context.stroke();
    }
    now().forEach((query, k) => {
      context.strokeStyle = context.fillStyle = ui.slotColour(k);
      context.lineWidth = 2;
      context.beginPath();
      for (const at of places.slice(0, model.get("iterations") + 1)) {
        const { x, y } = across(at[k]);
        context.lineTo(x, y);
      }
      context.stroke();
      const { x, y } = across(query);
      const size = 12 - (6 * k) / Math.max(now().length - 1, 1); // so that of several on one spot all are seen
      context.beginPath();
      for (const [u, v] of [
        [0, -1],
        [1, 0],
        [0, 1],
        [-1, 0],
      ])
        context.lineTo(x + u * size, y + v * size);
      context.closePath();
      context.fill();
      context.strokeStyle = ui.themed(el, "text");
      context.lineWidth = 1.5;
      context.stroke();
    });
  };

  const plane = ui.drawing(
    2 * RIGHT * UNIT,
    2 * TOP * UNIT,
    "Points of the plane, and the queries among them",
    paintPlane,
  );

  const put = (changed: Rows): void => {
    if (changed.length > MOST_POINTS) return tell(`${MOST_POINTS} points are enough.`);
    if (changed.length === 0) model.set("world", "none");
    model.set("points", encode(changed));
    tell(changed.length === points.length ? `Point ${chosen + 1} moved.` : `There are ${changed.length} points.`);
  };
  const without = (j: number): void => put(points.filter((_, i) => i !== j));
  const nearestPoint = (at: ui.Point, reach: number): number | undefined => {
    const far = points.map((point) => Math.hypot(across(point).x - at.x, across(point).y - at.y));
    const least = far.indexOf(Math.min(...far));
    return far[least] <= reach ? least : undefined;
  };

  const handles = ui.draggable(plane, {
    points: () => [...now(), ...points.slice(chosen, chosen + 1)].map(across),
    label: (k) =>
      k < now().length
        ? `Query ${k + 1}`
        : `Point ${chosen + 1} of ${points.length}; N is the next, P the previous, Insert adds one, Delete removes it`,
    move(k, to) {
      if (k < now().length) {
        // From here on: where the queries are is a start of the reader's own.
        const from = now().map((query, i) => (i === k ? back(to) : query));
        model.set("own", encode(from));
        model.set("iterations", 0);
        tell(
          `Query ${k + 1} is at ${back(to)
            .map((value) => value.toFixed(1))
            .join(", ")}.`,
        );
      } else {
        put(points.map((point, j) => (j === chosen ? back(to) : point)));
      }
    },
    reach: 14,
    step: 5,
    hit(at) {
      if (model.get("press") !== "move") return undefined;
      const far = now().map((query) => Math.hypot(across(query).x - at.x, across(query).y - at.y));
      if (Math.min(...far) <= 14) return far.indexOf(Math.min(...far));
      const point = nearestPoint(at, 9);
      if (point === undefined) return undefined;
      chosen = point;
      handles.update();
      return now().length;
    },
    key(k, key) {
      if (k < now().length || points.length === 0) return false;
      const turn = { n: 1, p: points.length - 1 }[key.toLowerCase()];
      if (turn !== undefined) chosen = (chosen + turn) % points.length;
      else if (key === "Delete" || key === "Backspace") without(chosen);
      else if (key === "Insert") put([...points, points[chosen].map((value) => value + 0.1)]);
      else return false;
      handles.update();
      plane.redraw();
      return true;
    },
    chosen: () => plane.redraw(),
  });
  handles.element.addEventListener("focusout", () => plane.redraw());
  plane.element.addEventListener("pointerdown", (event) => {
    const at = ui.place(plane, event);
    if (model.get("press") === "add") put([...points, back(at)]);
    if (model.get("press") === "remove") {
      const point = nearestPoint(at, 14);
      if (point !== undefined) without(point);
    }
  });

  /** Twenty points around a middle that depends on how many there are already. */
  const addClump = (): void => {
    const generator = new Generator(points.length);
    const [u, v] = generator.uniform64(2);
    const noise = generator.normal64(48);
    const more = Array.from({ length: 20 }, (_, i) => [
      6 * u - 3 + 0.3 * noise[2 * i],
      4 * v - 2 + 0.3 * noise[2 * i + 1],
    ]);
    put([...points, ...more]);
  };

  // --- the weights and the energy ---

  const matrix = ui.drawing(
    MATRIX.width,
    MATRIX.height,
    "The weights: one row for each query, one column for each point",
    (context) => {
      const { width, height, left, right } = MATRIX;
      const rows = weights.length;
      if (rows === 0 || points.length === 0) return;
      const most = Math.max(...weights.flat());
      const [tall, wide] = [(height - 18) / rows, (width - left - right) / points.length];
      context.font = "12px sans-serif";
      context.textBaseline = "middle";
      context.fillStyle = ui.themed(el, "muted");
      context.fillText("sum", width - right + 6, 8);
      weights.forEach((row, k) => {
        const y = 18 + k * tall;
        context.fillStyle = ui.themed(el, "ground");
        context.fillRect(left, y, width - left - right, tall - 3);
        context.fillStyle = ui.slotColour(k);
        row.forEach((weight, j) => {
          context.globalAlpha = weight / most;
          context.fillRect(left + j * wide, y, wide + 0.2, tall - 3);
        });
        context.globalAlpha = 1;
        context.fillStyle = ui.themed(el, "text");
        context.fillText(`query ${k + 1}`, 0, y + tall / 2 - 1);
        context.fillText(row.reduce((a, b) => a + b).toFixed(1), width - right + 6, y + tall / 2 - 1);
      });
    },
  );

  const curve = ui.drawing(CURVE.width, CURVE.height, "Free energy after each iteration", (context) => {
    const { width, left, bottom } = CURVE;
    const [low, high] = [Math.min(...energies), Math.max(...energies)];
    if (!Number.isFinite(low)) return;
    const x = (i: number) => left + (i / MOST) * (width - left - 20);
    const y = (value: number) => bottom - 8 - ((value - low) / (high - low || 1)) * (bottom - 24);
    context.font = "12px sans-serif";
    context.fillStyle = ui.themed(el, "muted");
    context.textBaseline = "middle";
    for (const value of high - low > 1e-3 ? [low, high] : [low]) context.fillText(value.toFixed(2), 0, y(value));
    for (const i of [0, 10, 20, 30, 40]) context.fillText(String(i), x(i) - 6, bottom + 10);
    context.strokeStyle = ui.themed(el, "line");
    context.strokeRect(left, 6, width - left - 20, bottom - 6);
    context.strokeStyle = context.fillStyle = ui.themed(el, "accent");
    context.lineWidth = 2;
    context.beginPath();
    energies.forEach((value, i) => context.lineTo(x(i), y(value)));
    context.stroke();
    context.beginPath();
    context.arc(x(model.get("iterations")), y(energies[model.get("iterations")]), 4.5, 0, 2 * Math.PI);
    context.fill();
  });

  // --- fifty starts ---

  const tally = ui.element("div", { class: "queries-tally", "data-lab-value": true });
  let tallied: Record<Axis, number[]> | undefined;
  const about = (): string =>
    JSON.stringify([model.get("temperature"), model.get("world"), model.get("queries"), model.get("points")]);
  let aboutTallied = "";

  const tryStarts = async (): Promise<void> => {
    if (points.length === 0) return tell("There are no points: nothing can be found.");
    const asked = about();
    const ends: Record<Axis, number[]> = { keys: [], queries: [] };
    attempt.disabled = true;
    for (let seed = 0; seed < STARTS && asked === about(); seed++) {
      for (const over of ["keys", "queries"] as const) {
        const start = randomStart(points, model.get("queries"), seed);
        ends[over].push(count(model, trail(start, points, model.get("temperature"), over, MOST)[MOST]));
      }
      tally.textContent = `${seed + 1} of ${STARTS}`;
      await new Promise((next) => setTimeout(next)); // the page stays alive meanwhile
    }
    attempt.disabled = false;
    [tallied, aboutTallied] = [ends, asked];
    showTally();
  };
  const attempt = ui.button(`Try ${STARTS} starts`, () => void tryStarts());

  /** The next start, after the present one, that ended with this count. */
  const showStart = (over: Axis, wanted: number): void => {
    const seeds = tallied![over].flatMap((found, seed) => (found === wanted ? [seed] : []));
    const next = seeds.find((seed) => seed > model.get("start")) ?? seeds[0];
    model.set("own", "");
    model.set("softmax", over);
    model.set("start", next);
    model.set("iterations", MOST);
    tell(`Start ${next}, one of ${seeds.length} such.`);
  };

  const showTally = (): void => {
    if (!tallied || aboutTallied !== about()) {
      tallied = undefined;
      tally.replaceChildren();
      return;
    }
    const { keys, queries } = tallied;
    const what = worldOf(model).clumps.length ? "clumps found" : "places";
    const levels = [...new Set([...keys, ...queries])].sort((a, b) => a - b);
    const times = (ends: number[], level: number) => ends.filter((end) => end === level).length;
    const cell = (over: Axis, level: number): HTMLElement => {
      const many = times(tallied![over], level);
      const press = ui.button(String(many), () => showStart(over, level));
      press.setAttribute("aria-label", `${many} starts, over ${over}, with ${level} ${what}: show one`);
      press.style.setProperty("--share", String(many / STARTS));
      return ui.element("td", {}, many ? press : "0");
    };
    tally.replaceChildren(
      ui.element(
        "table",
        {},
        ui.element("caption", {}, `Of ${STARTS} starts after ${MOST} iterations. Press a number to see one.`),
        ui.element(
          "tr",
          {},
          ...[what, "over keys", "over queries"].map((name) => ui.element("th", { scope: "col" }, name)),
        ),
        ...levels.map((level) =>
          ui.element(
            "tr",
            {},
            ui.element("th", { scope: "row" }, String(level)),
            cell("keys", level),
            cell("queries", level),
          ),
        ),
      ),
    );
    said.say(
      levels.map((n) => `${n} ${what}: ${times(keys, n)} over keys, ${times(queries, n)} over queries.`).join(" "),
    );
  };

  // --- in words ---

  const words = (): string => {
    compute();
    const clumps = worldOf(model).clumps.length;
    const reached = count(model, now());
    const finding = clumps ? `${reached} of ${clumps} clumps found` : `${reached} different places`;
    const i = model.get("iterations");
    return `After ${i} iterations: ${finding}, free energy ${number(energies[i])}.`;
  };
  let told = ""; // what the reader just did
  const tell = (sentence: string): void => {
    told = `${sentence} `;
    said.say(sentence);
  };

  // --- time ---

  const atRest = (i: number): boolean =>
    i === MOST ||
    places[i].every((at, k) => Math.hypot(at[0] - places[i + 1][k][0], at[1] - places[i + 1][k][1]) < AT_REST);
  const step = (): void => {
    model.set("iterations", model.get("iterations") === MOST ? 0 : model.get("iterations") + 1);
  };
  const onwards = (): boolean => {
    const now = model.get("iterations");
    model.set("iterations", atRest(now) ? 0 : now + 1); // from rest on to the start
    return !atRest(model.get("iterations"));
  };
  const toTheEnd = (): void => model.set("iterations", places.findIndex((_, i) => atRest(i)));
  const play = ui.player("Play", PACE, onwards, toTheEnd);

  // --- together ---

  model.on("change:world", () => model.set("points", ""));
  for (const name of ["world", "queries", "start"]) model.on(`change:${name}`, () => model.set("own", ""));

  el.append(
    ui.element("style", {}, STYLE),
    ui.row(
      ui.menu(model, "softmax", "Softmax"),
      ui.slider(model, "temperature", "Temperature", (value) => value.toFixed(2)),
      ui.slider(model, "iterations", "Iterations"),
      ui.button("One step", step),
      play,
    ),
    ui.row(
      ui.menu(model, "world", "Points"),
      ui.slider(model, "queries", "Queries"),
      ui.slider(model, "start", "Start"),
      ui.menu(model, "press", "A press there"),
      ui.button("Add a clump", addClump),
      ui.reset(model),
    ),
    ui.element(
      "div",
      { class: "queries-panels" },
      ui.panel(
        "Diamonds are queries, lines the way they came. Points take the colours of those that look at them.",
        handles.element,
      ),
      ui.element(
        "div",
        { class: "lab-column" },
        ui.panel("The weights, where the queries stand now.", matrix.element),
        ui.panel("Free energy by iteration.", curve.element),
      ),
    ),
    ui.row(energy.element, counted.element, share.element),
    ui.row(attempt, tally),
    note,
    said.element,
    ui.code(model, () => lines(model)),
  );

  ui.follow(model, () => {
    compute();
    const i = model.get("iterations");
    const clumps = worldOf(model).clumps.length;
    energy.show(number(energies[i]));
    counted.show(clumps ? `${count(model, now())} of ${clumps} clumps` : `${count(model, now())} different places`);
    share.show(weights.length ? weights.map((row) => row.reduce((a, b) => a + b, 0).toFixed(1)).join("  ") : "–");
    note.textContent = points.length
      ? `Each ${overOf(model) === "keys" ? "row" : "column"} of the weights sums to 1.`
      : "There are no points, so there is nothing to look at. Add some by a press on the plane, or add a clump.";
    handles.update();
    for (const each of [plane, matrix, curve]) each.redraw();
    showTally();
    said.say(told + words());
    told = "";
  });
}

/** With three decimals, and a dash for what does not exist. */
function number(value: number): string {
  return Number.isFinite(value) ? value.toFixed(3) : "–";
}

// --- the same in Python ---

/** Five places a line, so that the lines fit the page; always with a point, so that torch makes no integers of them. */
function tensor(rows: Rows): string {
  const float = (value: number) => (Number.isInteger(value) ? value.toFixed(1) : String(value));
  const lines = rows
    .map((row, i) => `[${row.map(float).join(", ")}],${i % 5 === 4 ? "\n" : " "}`)
    .join("")
    .trim();
  return `torch.tensor([${lines.includes("\n") ? `\n${lines}\n` : lines.slice(0, -1)}])`;
}

/** The lines that make the points. */
function pointLines(model: Own): string {
  const { points, clumps } = worldOf(model);
  if (model.get("points")) return `points = ${tensor(pointsOf(model))}`;
  if (points.length === 0) return "points = torch.zeros(0, 2)";
  if (clumps.length === 0) {
    return `angle = torch.arange(200) * 2 * torch.pi / 200\npoints = 2 * torch.stack([angle.cos(), angle.sin()], dim=1)`;
  }
  const spread = model.get("world") === "clumps" ? 0.35 : 1;
  return `clumps = ${tensor(clumps)}
noise = torch.randn(${clumps.length}, ${200 / clumps.length}, 2, generator=torch.Generator().manual_seed(0))
points = (clumps[:, None] + ${spread} * noise).flatten(0, 1)`;
}

function lines(model: Own): string {
  const { temperature, iterations, queries, start, own } = model.all();
  const clumps = worldOf(model).clumps;
  const given = clumps.length > 0 && model.get("points") ? `clumps = ${tensor(clumps)}\n` : "";
  const count = clumps.length
    ? `(torch.cdist(clumps, queries).amin(1) < ${FOUND_WITHIN}).sum().item()`
    : `(~(torch.cdist(queries, queries) < ${SAME_WITHIN}).tril(-1).any(1)).sum().item()`;
  const from = own ? `queries = ${tensor(decode(own))}` : `queries = start(${start})`;
  return `import torch
from slotlib.attention import attention_weights, weighted_mean

torch.set_default_dtype(torch.float64)
${given}${pointLines(model)}


def start(seed):
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(len(points), generator=generator).argsort()
    return points[order[:${queries}]]


def logits(queries):
    return -0.5 * torch.cdist(queries, points).square() / ${temperature}


def run(queries, iterations):
    for _ in range(iterations):
        weights = attention_weights(logits(queries), "${overOf(model)}")
        queries = weighted_mean(weights, points, eps=1e-12)
    return queries


def found(queries):
    return ${count}


${from}
queries = run(queries, ${iterations})
weights = attention_weights(logits(queries), "${overOf(model)}")
energy = -${temperature} * logits(queries).logsumexp(dim=0).mean()
print("free energy", f"{energy:.3f}")
print("found", found(queries))
print("attention", *[f"{share:.1f}" for share in weights.sum(1)])
print("${STARTS} starts", *[found(run(start(seed), ${MOST})) for seed in range(${STARTS})])`;
}

const STYLE = `
.queries-panels {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr));
  gap: 1rem;
}
.queries-tally table {
  margin: 0;
  border-collapse: collapse;
}
.queries-tally caption {
  caption-side: bottom;
  color: var(--lab-muted);
  font-size: 0.85em;
  text-align: start;
}
.queries-tally :is(th, td) {
  padding: 0.15rem 0.8rem 0.15rem 0;
  border: 0;
  text-align: start;
  font-weight: 400;
}
section[data-lab] .queries-tally button {
  width: 7rem;
  text-align: start;
  background: linear-gradient(
    to right,
    color-mix(in srgb, var(--lab-accent) 35%, transparent) calc(100% * var(--share)),
    transparent 0
  );
}
`;
