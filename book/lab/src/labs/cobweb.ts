/**
 * Cobweb (chapter 06): an iteration on a line, whether it comes to rest, how fast, and what its gradients say. Or what is
 * iterated are the slots of a scene (fates.ts).
 */
import { chart, type Share } from "../chart.ts";
import * as fates from "../fates.ts";
import { banach, bend, exact, line, neumann, residual, solve, unrolled, type Update } from "../fixed_point.ts";
import { choice, flag, range, type Model } from "../settings.ts";
import * as ui from "../ui.ts";

const TOLERANCE = 1e-6;
const NUDGE = 0.1; // as it is drawn
const SMALL = 1e-4; // as the derivative is measured
const MAPS: Record<string, (slope: number) => Update> = { line, bend };

// The square of the plane that is shown, and the drawings.
const [LOW, HIGH] = [-1, 3];
const SQUARE = { width: 320, height: 320, edge: 30 };
const CURVE = { width: 320, height: 150, left: 42, right: 12, top: 10, bottom: 24 };
const [LEAST, MOST] = [1e-8, 1e4]; // distances that are shown
const STEEPEST = 8; // derivative that is shown

export const settings = {
  of: choice({ number: "a number", slots: "the slots of a scene" }, "number"),
  ...fates.settings,
  map: choice({ line: "a line", bend: "bent: tanh" }, "line"),
  slope: range(-1.2, 1.2, -0.7, 0.01),
  start: range(LOW, HIGH, -0.5, 0.05),
  iterations: range(1, 60, 40),
  terms: range(1, 20, 1),
  nudge: flag(false),
};

type Own = Model<typeof settings>;

export async function render({ model, el }: { model: Own; el: HTMLElement }): Promise<void> {
  // Each part is made when it is first asked for: the slots' needs a trained model.
  const parts = new Map<string, Promise<Part>>();
  const partOf = (name: string): Promise<Part> => {
    if (!parts.has(name)) parts.set(name, (name === "slots" ? partOfSlots(model) : partOfNumber(model, el)));
    return parts.get(name)!;
  };
  const place = ui.element("div", { class: "lab" });
  const update = async (): Promise<void> => {
    const wanted = model.get("of");
    if (!parts.has(wanted) && place.firstChild) place.replaceChildren("The trained model is loading …");
    const part = await partOf(wanted);
    if (wanted !== model.get("of")) return;
    if (place.firstChild !== part.element) place.replaceChildren(part.element);
    part.update();
  };
  el.append(
    ui.row(ui.menu(model, "of", "z is"), ui.reset(model)),
    place,
    ui.code(model, () => (model.get("of") === "slots" ? fates.code(model) : lines(model))),
  );
  model.on("change", ui.soon(() => void update().catch((reason) => ui.trouble(el, reason))));
  await update();
}

interface Part {
  element: HTMLElement;
  update(): void;
}

async function partOfSlots(model: Own): Promise<Part> {
  const element = ui.element("div", { class: "lab" });
  return { element, ...(await fates.render({ model: model, el: element })) };
}

async function partOfNumber(model: Own, page: HTMLElement): Promise<Part> {
  const el = ui.element("div", { class: "lab" });
  const said = ui.announcer();
  let f = line(0);
  let found = solve(f, 0, 1);
  let rest = 1; // the fixed point that distances are measured from
  const compute = (): void => {
    const { map, slope, start, iterations } = model.all();
    f = MAPS[map](slope);
    found = solve(f, start, 1, TOLERANCE, iterations);
    rest = fixedPoint(f, 1, found.converged ? found.z : 1);
  };
  compute();

  // --- the cobweb ---

  const unit = (SQUARE.width - 2 * SQUARE.edge) / (HIGH - LOW);
  const x = (z: number) => SQUARE.edge + (z - LOW) * unit;
  const y = (value: number) => SQUARE.height - x(value);
  const path = (context: CanvasRenderingContext2D, places: (readonly [number, number])[]): void => {
    context.beginPath();
    for (const [z, value] of places) context.lineTo(x(z), y(value));
    context.stroke();
  };
  const graph = (raised: number): [number, number][] =>
    Array.from({ length: 81 }, (_, i) => LOW + ((HIGH - LOW) * i) / 80).map((z) => [z, f.value(z, 1 + raised)]);
  const dot = (context: CanvasRenderingContext2D, z: number, value: number, colour: string): void => {
    context.beginPath();
    context.arc(x(z), y(value), 5, 0, 2 * Math.PI);
    context.fillStyle = colour;
    context.fill();
  };

  const web = ui.drawing(SQUARE.width, SQUARE.height, "Cobweb: the map, the diagonal, and the way of z", (context) => {
    const { edge, width, height } = SQUARE;
    const plane = chart(context, page, { left: edge, top: edge, right: width - edge, bottom: height - edge });
    for (const tick of [-1, 0, 1, 2, 3]) {
      const share = (tick - LOW) / (HIGH - LOW);
      plane.below(share, String(tick));
      plane.beside(share, String(tick));
    }
    context.textAlign = "center";
    context.fillText("z", width - edge + 14, height - edge + 12);
    context.fillText("f(z)", edge - 4, edge - 12);
    context.textAlign = "start";
    plane.within(() => {
      context.strokeStyle = ui.themed(page, "muted");
      context.lineWidth = 1;
      path(context, [
        [LOW, LOW],
        [HIGH, HIGH],
      ]);
      context.strokeStyle = ui.slotColour(4);
      context.lineWidth = 2.5;
      path(context, graph(0));
      if (model.get("nudge")) {
        context.setLineDash([5, 4]);
        path(context, graph(NUDGE));
        context.setLineDash([]);
      }
      context.strokeStyle = ui.slotColour(0);
      context.lineWidth = 1.5;
      path(
        context,
        found.trail.slice(1).flatMap(
          (value, i) =>
            [
              [found.trail[i], found.trail[i]],
              [found.trail[i], value],
            ] as [number, number][],
        ),
      );
    });
    dot(context, model.get("start"), model.get("start"), ui.slotColour(0));
    dot(context, rest, rest, ui.slotColour(5));
    const moved = fixedPoint(f, 1 + NUDGE, rest);
    if (model.get("nudge") && moved >= LOW && moved <= HIGH) dot(context, moved, moved, ui.slotColour(6));
    const { x: u, y: v } = grip();
    context.fillStyle = ui.slotColour(4);
    context.fillRect(u - 5, v - 5, 10, 10);
  });

  /** Where the slope is held: on the tangent at (1, 1), a unit to the right. */
  const grip = (): ui.Point => ({ x: x(2), y: y(1 + model.get("slope")) });
  const held = (): ui.Point[] => [{ x: x(model.get("start")), y: y(model.get("start")) }, grip()];
  const handles = ui.draggable(web, {
    points: held,
    label: (k) => (k === 0 ? `Start at ${model.get("start")}` : `Slope ${model.get("slope")}`),
    move(k, to) {
      const down = (SQUARE.height - SQUARE.edge - to.y) / unit + LOW;
      if (k === 1) return model.set("slope", settings.slope.read(String(down - 1)));
      // The start stays on the diagonal, and follows the larger part of the movement.
      const along = (to.x - SQUARE.edge) / unit + LOW;
      const [before] = held();
      const sideways = Math.abs(to.x - before.x) >= Math.abs(to.y - before.y);
      model.set("start", settings.start.read(String(sideways ? along : down)));
    },
    reach: 16,
    step: 0.05 * unit,
  });

  // --- distance by iteration, derivative by slope ---

  const inside = {
    left: CURVE.left,
    top: CURVE.top,
    right: CURVE.width - CURVE.right,
    bottom: CURVE.height - CURVE.bottom,
  };
  const distances = ui.drawing(
    CURVE.width,
    CURVE.height,
    "Distance from the fixed point after each iteration, logarithmic",
    (context) => {
      const { below, beside, curve, dots } = chart(context, page, inside);
      const level = (distance: number) => Math.log(Math.max(distance, 1e-12) / LEAST) / Math.log(MOST / LEAST);
      for (const power of [-8, -4, 0, 4]) beside(level(10 ** power), `1e${power}`);
      for (const n of [0, 20, 40, 60]) below(n / 60, String(n));
      const rate = Math.abs(model.get("slope"));
      const first = found.trail[1] - found.trail[0];
      const bound = found.trail.map((_, n): Share => [n / 60, level(banach(rate, first, n))]);
      curve(bound, ui.themed(page, "muted"), 1.5);
      const walked = found.trail.map((z, n): Share => [n / 60, level(Math.abs(z - rest))]);
      curve(walked, ui.slotColour(0));
      dots(walked, ui.slotColour(0), 2);
    },
  );

  const derivatives = ui.drawing(
    CURVE.width,
    CURVE.height,
    "Derivative of the fixed point, by slope: exact, one step, and several terms",
    (context) => {
      const { below, beside, curve } = chart(context, page, inside);
      const place = (slope: number) => (slope + 1.2) / 2.4;
      for (const slope of [-1, 0, 1]) below(place(slope), String(slope));
      for (const value of [0, 4, 8]) beside(value / STEEPEST, String(value));
      const slopes = Array.from({ length: 241 }, (_, i) => -1.2 + i / 100);
      const all = (of: (slope: number) => number) => slopes.map((slope): Share => [place(slope), of(slope) / STEEPEST]);
      curve(all((slope) => (slope < 1 ? exact(line(slope), 1) : NaN)), ui.themed(page, "text"));
      curve(all(() => 1), ui.slotColour(0));
      curve(all((slope) => neumann(line(slope), 1, model.get("terms"))), ui.slotColour(2));
      const here = place(f.slope(found.z));
      curve([[here, 0], [here, 1]], ui.themed(page, "accent"));
    },
  );

  // --- in numbers ---

  const shown = Object.fromEntries(
    Object.entries({
      z: "z",
      needed: "Iterations used",
      residual: "Residual",
      rate: "Slope at z",
      shrunk: "Last step's factor on the distance",
      bound: "Banach's bound on the distance",
      unrolled: "Unrolled, through all of them",
      one: "One step",
      implicit: "Through the last k steps",
      neumann: "k terms of the series",
      exact: "Exact, 1 / (1 − J)",
      measured: `Measured, moving f by ${SMALL}`,
    }).map(([name, label]) => [name, ui.readout(label)]),
  );
  const list = (...names: string[]) =>
    ui.element("div", { class: "cobweb-numbers" }, ...names.map((name) => shown[name].element));

  el.append(
    ui.element("style", {}, STYLE),
    ui.row(
      ui.menu(model, "map", "f is"),
      ui.slider(model, "slope", "Slope", (value) => value.toFixed(2)),
      ui.slider(model, "start", "Start", (value) => value.toFixed(2)),
      ui.slider(model, "iterations", "Iterations"),
    ),
    ui.row(
      ui.slider(model, "terms", "Steps or terms k"),
      ui.tick(model, "nudge", `Raise f by ${NUDGE}`),
    ),
    ui.element(
      "div",
      { class: "cobweb-panels" },
      ui.panel("Up to f, across to the diagonal. Drag the start (round) or the slope (square).", handles.element),
      ui.element(
        "div",
        { class: "lab-column" },
        ui.panel("Distance from the fixed point; grey: Banach's bound.", distances.element),
        ui.panel(
          "Derivative of the fixed point by slope: exact; orange: one step; green: k terms.",
          derivatives.element,
        ),
      ),
    ),
    ui.element(
      "div",
      { class: "cobweb-panels" },
      ui.element(
        "div",
        {},
        ui.element("strong", {}, "The iteration"),
        list("z", "needed", "residual", "rate", "shrunk", "bound"),
      ),
      ui.element(
        "div",
        {},
        ui.element("strong", {}, "dz/dx, when f is moved up by x"),
        list("unrolled", "one", "implicit", "neumann", "exact", "measured"),
      ),
    ),
    said.element,
  );

  const update = (): void => {
    compute();
    const { slope, terms } = model.all();
    const needed = found.trail.length - 1;
    const far = found.trail.map((z) => Math.abs(z - rest));
    shown.z.show(number(found.z));
    shown.needed.show(String(needed));
    shown.residual.show(found.residual.toExponential(1));
    shown.rate.show(number(f.slope(found.z)));
    shown.shrunk.show(number(far[needed] / far[needed - 1]));
    shown.bound.show(scientific(banach(Math.abs(slope), found.trail[1] - found.trail[0], needed)));
    shown.unrolled.show(number(unrolled(f, model.get("start"), 1, needed)));
    shown.one.show(number(neumann(f, found.z, 1)));
    shown.implicit.show(number(unrolled(f, found.z, 1, terms)));
    shown.neumann.show(number(neumann(f, found.z, terms)));
    shown.exact.show(number(exact(f, found.z)));
    shown.measured.show(number((fixedPoint(f, 1 + SMALL, rest) - fixedPoint(f, 1 - SMALL, rest)) / (2 * SMALL)));
    handles.update();
    for (const each of [web, distances, derivatives]) each.redraw();
    said.say(fate(found.converged, needed, found.trail, Math.abs(slope)));
  };
  return { element: el, update };
}

/** Newton's method for z = f(z, x), from `near`: it also finds fixed points that the iteration leaves. */
function fixedPoint(f: Update, x: number, near: number): number {
  let z = near;
  for (let i = 0; i < 60 && residual(f.value(z, x), z) > 1e-14; i++) z += (f.value(z, x) - z) / (1 - f.slope(z));
  return z;
}

/** What became of the iteration, in a sentence. */
function fate(converged: boolean, needed: number, trail: number[], rate: number): string {
  const [last, before] = [trail[needed], trail[needed - 2]];
  if (converged) return `At rest after ${needed} iterations, at ${number(last)}.`;
  if (rate === 1 && trail.every((z) => Math.abs(z) < 10)) return "A slope of ±1: the distance stays as it is.";
  if (needed > 2 && Math.abs(last - before) < 1e-3 && Math.abs(last - trail[needed - 1]) > 1e-2) {
    return `It goes back and forth between ${number(trail[needed - 1])} and ${number(last)}: a cycle.`;
  }
  if (Math.abs(last) > 10) return `It runs away from the fixed point: z is ${number(last)} after ${needed} iterations.`;
  return `Not at rest after ${needed} iterations: the residual is still above ${TOLERANCE}.`;
}

/** With four decimals, and a dash for what does not exist. */
function number(value: number): string {
  return Number.isFinite(value) ? value.toFixed(4).replace(/^-(0\.0000)$/, "$1") : "–";
}

function scientific(value: number): string {
  return Number.isFinite(value) ? value.toExponential(1) : "–";
}

// --- the same in Python ---

function lines(model: Own): string {
  const { map, slope, start, iterations, terms } = model.all();
  const f = map === "line" ? `x + ${slope} * (z - 1)` : `x + torch.tanh(${slope} * (z - 1))`;
  return `import torch
from slotlib.implicit import fixed_point, solve

torch.set_default_dtype(torch.float64)


def f(z, x):
    return ${f}


start, x = torch.tensor([[${start.toFixed(2)}]]), torch.tensor([[1.0]], requires_grad=True)
found = solve(f, start, x.detach(), max_iterations=${iterations})
print("z", f"{found.z.item():.4f}")
print("iterations", found.iterations.item())
print("residual", f"{found.residuals.item():.1e}")
gradients = {
    "unrolled": ("unrolled", 1),
    "one step": ("implicit", 1),
    "last steps": ("implicit", ${terms}),
    "series": ("neumann", ${terms}),
    "exact": ("exact", 1),
}
options = {"max_iterations": ${iterations}, "strict": False}
for name, (gradient, steps) in gradients.items():
    z = fixed_point(f, start, x, gradient=gradient, steps=steps, **options).z
    print(name, f"{torch.autograd.grad(z, x)[0].item():.4f}")`;
}

const STYLE = `
.cobweb-panels {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr));
  gap: 0.8rem 1.2rem;
}
.cobweb-numbers {
  display: grid;
  gap: 0.15rem;
}
.cobweb-numbers > * {
  display: flex;
  justify-content: space-between;
  gap: 1rem;
}
`;
