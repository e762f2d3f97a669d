/** The stargazer (chapter 02): place dots, and watch slots part, or stay one slot in several copies. */
import * as pictures from "../pictures.ts";
import { decode, encode, placed } from "../places.ts";
import { Generator } from "../random.ts";
import { loadModel } from "../script.ts";
import { choice, flag, range, text, type Model } from "../settings.ts";
import type { History } from "../slot_attention.ts";
import { ari, CELLS, likeness, loss, REACH, sky, spread, Stargazer, sureness } from "../stargazer.ts";
import { row, rows, vectors, type Rows } from "../tensor.ts";
import * as ui from "../ui.ts";
import { weightsOf } from "../weights.ts";

const MOST_DOTS = 96;
const MOST_ITERATIONS = 20;
const FIRST_SKY = 100; // the chapter's seed of sky 0
const SIDE = 300; // of the sky, in the units of its drawing
const PLACES = 48; // along a side of the territories
const CURVE = { width: 300, height: 150, left: 56, right: 16, top: 10, bottom: 24 };
const LEAST = -5; // power of ten at the foot of the curve

export const settings = {
  orbits: range(1, 5, 3),
  sky: range(0, 20, 0),
  slots: range(1, 8, 3),
  iterations: range(1, MOST_ITERATIONS, 3),
  start: range(0, 20, 0),
  noise: choice(
    {
      "1": "as trained",
      "0.1": "a tenth",
      "0.01": "a hundredth",
      "0.001": "a thousandth",
      "0.0001": "a ten-thousandth",
      "0": "none",
    },
    "1",
  ),
  alone: flag(false),
  forget: flag(false),
  normalised: flag(false),
  press: choice({ move: "drags", add: "adds a dot", remove: "removes a dot" }, "move"),
  /** Where the reader has put the dots; empty as long as nothing was changed, "none" when all are gone. */
  dots: text("", (found) => found === "none" || placed(MOST_DOTS)(found)),
};

type Own = Model<typeof settings>;

const HINTS: Record<string, string> = {
  move: "Drag a dot.",
  add: "Press where there shall be a dot.",
  remove: "Press a dot to remove it.",
};

export async function render({ model, el }: { model: Own; el: HTMLElement }): Promise<void> {
  const exported = await loadModel("stargazer");
  const stargazer = new Stargazer(weightsOf(exported));
  const keys = stargazer.keys(grid());

  let dots = rows(0, 2);
  let orbit: number[] | undefined; // of each dot, as long as the sky is the chapter's
  let history: History | undefined; // up to the last iteration that can be asked for
  let seen: { slots: Rows; attention: Rows; drawings: Rows } | undefined; // after the one that is asked for
  let apart: number[] = []; // the slots, at the start and after each iteration
  let computed = "";
  let held = 0; // the dot that the keyboard holds

  const compute = (): void => {
    const { iterations, press: _, noise, alone, forget, normalised, ...others } = model.all();
    const asked = JSON.stringify([noise, alone, forget, normalised, others]);
    if (asked !== computed) {
      ({ dots, orbit } = skyOf(model));
      held = Math.min(held, Math.max(dots.count - 1, 0));
      const { slots, start } = others;
      const question = { slots, start, noise: Number(noise), iterations: MOST_ITERATIONS };
      const change = { compete: !alone, gru: !forget, normalised };
      history = dots.count ? stargazer.look(dots, { ...question, ...change }) : undefined;
      apart = history ? history.slots.map(spread) : [];
      computed = asked;
    }
    const slots = history?.slots[iterations];
    seen = slots && { slots, attention: history!.attention[iterations - 1], drawings: stargazer.draw(slots) };
  };
  compute();

  // --- the sky ---

  const across = ([x, y]: ArrayLike<number> & Iterable<number>): ui.Point => ({
    x: ((x + REACH) * SIDE) / (2 * REACH),
    y: ((REACH - y) * SIDE) / (2 * REACH),
  });
  const back = ({ x, y }: ui.Point): number[] => [(x * 2 * REACH) / SIDE - REACH, REACH - (y * 2 * REACH) / SIDE];
  const places = (): number[][] => vectors(dots).map((dot) => [...dot]);
  const put = (changed: number[][]): void => {
    if (changed.length > MOST_DOTS) return said.say(`${MOST_DOTS} dots are enough.`);
    model.set("dots", changed.length ? encode(changed, REACH, REACH) : "none");
  };
  const without = (j: number): void => put(places().filter((_, i) => i !== j));
  const nearest = (at: ui.Point): number | undefined => {
    const far = places()
      .map(across)
      .map(({ x, y }) => Math.hypot(x - at.x, y - at.y));
    const least = far.indexOf(Math.min(...far));
    return far[least] <= 12 ? least : undefined;
  };

  const heaven = ui.drawing(SIDE, SIDE, "The sky: dots in the colours of the slots that own them", (context) => {
    if (seen) {
      const won = stargazer.territories(seen.slots, keys);
      context.globalAlpha = 0.3;
      context.imageSmoothingEnabled = true;
      context.drawImage(pictures.segmentation(won, PLACES), 0, 0, SIDE, SIDE);
      context.globalAlpha = 1;
    }
    star(context);
    context.strokeStyle = ui.themed(el, "text");
    for (let j = 0; j < dots.count; j++) {
      const { x, y } = across(row(dots, j));
      context.beginPath();
      context.arc(x, y, 5, 0, 2 * Math.PI);
      context.fillStyle = mixed(seen!.attention, j);
      context.lineWidth = 0.8;
      context.fill();
      context.stroke();
      if (j !== held || document.activeElement !== handles.element.querySelector("button")) continue;
      context.beginPath();
      context.arc(x, y, 9, 0, 2 * Math.PI);
      context.lineWidth = 2;
      context.stroke();
    }
    context.fillStyle = ui.themed(el, "text");
    context.font = "12px sans-serif";
    context.fillText(HINTS[model.get("press")], 6, SIDE - 6);
  });
  const star = (context: CanvasRenderingContext2D): void => {
    context.fillStyle = ui.themed(el, "text");
    context.beginPath();
    for (let i = 0; i < 10; i++) {
      const [angle, far] = [(i * Math.PI) / 5, i % 2 ? 2.5 : 6];
      context.lineTo(SIDE / 2 + far * Math.sin(angle), SIDE / 2 - far * Math.cos(angle));
    }
    context.fill();
  };

  const handles = ui.draggable(heaven, {
    points: () =>
      places()
        .slice(held, held + 1)
        .map(across),
    label: () => `Dot ${held + 1} of ${dots.count}; N is the next, P the previous, Insert adds one, Delete removes it`,
    move: (_, to) => put(places().map((dot, j) => (j === held ? back(to) : dot))),
    reach: 12,
    step: 4,
    hit(at) {
      const dot = model.get("press") === "move" ? nearest(at) : undefined;
      if (dot === undefined) return undefined;
      held = dot;
      handles.update();
      return 0;
    },
    key(_, key) {
      const turn = { n: 1, p: dots.count - 1 }[key.toLowerCase()];
      if (turn !== undefined) held = (held + turn) % dots.count;
      else if (key === "Delete" || key === "Backspace") without(held);
      else if (key === "Insert") put([...places(), places()[held].map((value) => value + 0.1)]);
      else return false;
      handles.update();
      heaven.redraw();
      return true;
    },
    chosen: () => heaven.redraw(),
  });
  handles.element.addEventListener("focusout", () => heaven.redraw());
  heaven.element.addEventListener("pointerdown", (event) => {
    const at = ui.place(heaven, event);
    if (model.get("press") === "add") put([...places(), back(at)]);
    const dot = model.get("press") === "remove" ? nearest(at) : undefined;
    if (dot !== undefined) without(dot);
  });

  // --- what the slots draw, and how far they are apart ---

  const drawn = ui.drawing(SIDE, SIDE, "What the slots draw, in their colours", (context) => {
    if (!seen) return;
    context.scale(1, -1); // cells are numbered from below
    context.drawImage(drawing(seen.drawings), 0, -SIDE, SIDE, SIDE);
    context.scale(1, -1);
    star(context);
  });

  const curve = ui.drawing(CURVE.width, CURVE.height, "How far the slots are apart after each iteration", (context) => {
    const { width, height, left, right, top, bottom } = CURVE;
    const x = (i: number): number => left + (i / MOST_ITERATIONS) * (width - left - right);
    const y = (power: number): number => top + ((1 - power) / (1 - LEAST)) * (height - top - bottom);
    context.font = "12px sans-serif";
    context.textBaseline = "middle";
    context.strokeStyle = ui.themed(el, "line");
    context.lineWidth = 1;
    for (let power = LEAST; power <= 1; power += 2) {
      context.fillStyle = ui.themed(el, "muted");
      context.fillText(power === 1 ? "10" : String(Number(`1e${power}`)), 0, y(power));
      context.beginPath();
      context.moveTo(left, y(power));
      context.lineTo(width - right, y(power));
      context.stroke();
    }
    for (let i = 0; i <= MOST_ITERATIONS; i += 5) context.fillText(String(i), x(i) - 5, height - 8);
    const powers = apart.map((far) => Math.max(Math.log10(far), LEAST));
    if (!powers.length) return;
    context.strokeStyle = context.fillStyle = ui.themed(el, "accent");
    context.lineWidth = 2;
    context.beginPath();
    powers.forEach((power, i) => context.lineTo(x(i), y(power)));
    context.stroke();
    context.beginPath();
    context.arc(x(model.get("iterations")), y(powers[model.get("iterations")]), 4.5, 0, 2 * Math.PI);
    context.fill();
  });

  const readouts = ["Loss", "Sureness", "Likeness", "ARI"].map(ui.readout);
  const counted = ui.readout("Dots of each slot");
  const said = ui.announcer();
  const note = ui.element("p", { class: "lab-said" });

  // --- together ---

  for (const name of ["orbits", "sky"]) model.on(`change:${name}`, () => model.set("dots", ""));
  said.element.classList.add("lab-unseen"); // the readouts say it, too
  el.append(
    ui.element("style", {}, STYLE),
    ui.row(
      ui.slider(model, "orbits", "Orbits"),
      ui.slider(model, "sky", "Sky"),
      ui.menu(model, "press", "A press there"),
      ui.button("Remove all dots", () => put([])),
      ui.reset(model),
    ),
    ui.row(
      ui.slider(model, "slots", "Slots"),
      ui.slider(model, "iterations", "Iterations"),
      ui.slider(model, "start", "Start"),
      ui.menu(model, "noise", "Noise of the start"),
    ),
    ui.row(
      ui.tick(model, "alone", "No competition"),
      ui.tick(model, "forget", "No GRU"),
      ui.tick(model, "normalised", "Normalised state"),
    ),
    ui.element(
      "div",
      { class: "stargazer-panels" },
      ui.panel("Dots in their owners' colours; behind them, who would win a dot there", handles.element),
      ui.panel("What the slots draw", drawn.element),
      ui.panel("How far the slots are from their mean, by iteration", curve.element),
    ),
    ui.row(...readouts.map(({ element }) => element), counted.element),
    note,
    said.element,
    ui.code(model, () => code(model)),
  );

  const show = (): void => {
    const counts = seen ? pictures.pixelsOwned(seen.attention) : [];
    const found = seen
      ? [loss(dots, seen.drawings), sureness(seen.attention), likeness(seen.drawings)]
      : [NaN, NaN, NaN];
    found.push(seen && orbit ? ari(orbit, seen.attention) : NaN);
    const figures = found.map((value) => (Number.isFinite(value) ? value.toFixed(2).replace("-0.00", "0.00") : "–"));
    readouts.forEach((readout, i) => readout.show(figures[i]));
    counted.show(counts.join(" "));
    note.textContent = remark(model, apart, dots.count);
    said.say(
      seen
        ? `${dots.count} dots; the slots own ${counts.join(", ")}; likeness of their drawings ${figures[2]}.`
        : "There are no dots.",
    );
    handles.update();
    for (const each of [heaven, drawn, curve]) each.redraw();
  };
  ui.follow(model, () => {
    compute();
    show();
  });
}

/** The dots that the settings say, and their orbits if they are the chapter's. */
function skyOf(model: Own): { dots: Rows; orbit?: number[] } {
  const own = model.get("dots");
  if (!own) return sky(model.get("orbits"), new Generator(FIRST_SKY + model.get("sky")));
  const places = own === "none" ? [] : decode(own, REACH, REACH);
  return { dots: rows(places.length, 2, Float32Array.from(places.flat())) };
}

/** Places all over the sky, row by row from above, as pictures are. */
function grid(): Rows {
  const at = (i: number): number => ((i + 0.5) / PLACES) * 2 * REACH - REACH;
  const line = Array.from({ length: PLACES }, (_, i) => at(i));
  return rows(PLACES ** 2, 2, Float32Array.from(line.flatMap((y) => line.flatMap((x) => [x, -y]))));
}

/** Each slot's drawing on its own scale: a cell takes the colours of the slots that draw there. */
function drawing({ data, count, width }: Rows): HTMLCanvasElement {
  const chance = rows(count, width, data.map(Math.exp));
  const most = Array.from(
    { length: count },
    (_, k) => [...row(chance, k)].sort((a, b) => a - b)[Math.floor(0.97 * (width - 1))],
  );
  const shares = rows(count, width);
  const opacity = new Float32Array(width);
  for (let i = 0; i < width; i++) {
    let total = 0;
    for (let k = 0; k < count; k++) total += row(chance, k)[i];
    for (let k = 0; k < count; k++) {
      row(shares, k)[i] = row(chance, k)[i] / total;
      opacity[i] = Math.max(opacity[i], Math.min(row(chance, k)[i] / most[k], 1));
    }
  }
  return pictures.segmentation(shares, CELLS, opacity);
}

function mixed(attention: Rows, dot: number): string {
  const shares = Array.from({ length: attention.count }, (_, k) => row(attention, k)[dot]);
  const total = shares.reduce((a, b) => a + b);
  const mix = [0, 1, 2].map((c) => shares.reduce((sum, share, k) => sum + (share / total) * ui.slotRgb(k)[c], 0));
  return `rgb(${mix.map(Math.round).join(" ")})`;
}

/** What to notice. */
function remark(model: Own, apart: number[], count: number): string {
  if (count === 0) return "There are no dots, so there is nothing to share. Add some by a press in the sky.";
  const changed = model.get("alone") || model.get("forget") || model.get("normalised");
  if (changed)
    return "The weights are those of the whole algorithm: a model trained with this line changed is another one.";
  if (model.get("slots") > 1 && apart[model.get("iterations")] < 1e-5)
    return "All slots start in one place, and stay there: one slot in several copies.";
  const grown = Number((apart[model.get("iterations")] / apart[0] || 1).toPrecision(2));
  return `From the start to here the slots' distance has grown ${grown.toLocaleString("en")}-fold.`;
}

const STYLE = `
.stargazer-panels {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(12.5rem, 100%), 1fr));
  gap: 0.8rem;
}
`;

/** What computes the same in Python. */
function code(model: Own): string {
  const { orbits, sky: number, slots, iterations, start, noise, alone, forget, normalised, dots: own } = model.all();
  const places = decode(own === "none" ? "" : own, REACH, REACH).map(
    ([x, y], j) => `[${x.toFixed(2)}, ${y.toFixed(2)}],${j % 6 === 5 ? "\n" : " "}`,
  );
  const dots = own
    ? `dots = torch.tensor([[\n${places.join("").trim()}\n]])`
    : `dots, orbit = chapter["skies"](1, (${orbits},), seeded(${FIRST_SKY + number}))`;
  const score = own ? "" : `\nprint("ARI", f"{adjusted_rand_index(orbit, attention.argmax(1)).item():.2f}")`;
  const state = normalised ? "layers.norm_slots(slots)" : "slots";
  if (own === "none") return "# There are no dots.";
  return `# at the top of a clone of the book
import math, sys
import torch
from torch.nn import functional as F
from slotlib.metrics import adjusted_rand_index

sys.path.append("book/lab")
import stargazer
from stargazer import seeded

chapter, model = stargazer.chapter("skies", "model"), stargazer.load()
${dots}
layers = model.slot_attention
with torch.no_grad():
    inputs = layers.norm_inputs(model.encoder(dots))
    k, v = layers.project_k(inputs), layers.project_v(inputs)
    noise = torch.randn(1, ${slots}, 32, generator=seeded(${start}))
    slots = layers.slots_mu + ${noise} * layers.slots_log_sigma.exp() * noise
    for _ in range(${iterations}):
        q = layers.project_q(layers.norm_slots(slots))
        attention = (q @ k.mT / math.sqrt(32)).softmax(dim=${alone ? "-1)  # over the inputs" : "-2)  # over the slots"}
        weights = attention + layers.eps
        updates = weights / weights.sum(dim=-1, keepdim=True) @ v
        slots = ${forget ? "updates  # no GRU" : `layers.gru(updates[0], ${state}[0])[None]`}
        slots = slots + layers.mlp(layers.norm_mlp(slots))
    drawings = model.decoder(slots).log_softmax(dim=-1)

chance = F.normalize(drawings[0].exp(), dim=-1)
loss = -chapter["log_likelihood"](dots, drawings).mean().item()
likeness = ((chance @ chance.mT).sum().item() - ${slots}) / ${Math.max(slots * (slots - 1), 1)}
print("loss", f"{loss:.2f}")
print("sureness", f"{attention.amax(1).mean().item():.2f}")
print("likeness", f"{likeness:.2f}")
print("dots of each slot", *attention[0].argmax(0).bincount(minlength=${slots}).tolist())${score}`;
}
