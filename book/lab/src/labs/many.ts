/** How many (chapter 09): slots of a scene, kept or dropped by a trained decision, or by hand for what they save. */
import { chances, decide, sigmoid, total, worth, type AdaptiveAnswer, type Decision } from "../adaptive.ts";
import { compose, inUnits, weighted } from "../autoencoder.ts";
import { chart, type Share } from "../chart.ts";
import * as pictures from "../pictures.ts";
import { latest, Remote, type Wait } from "../remote.ts";
import { Stage } from "../scenes.ts";
import { choice, flag, range, type Model } from "../settings.ts";
import { FROM_PNG, PNG_IMPORTS, Table, things, UNTOUCHED } from "../table.ts";
import { row, softmaxOverRows, type Rows } from "../tensor.ts";
import * as ui from "../ui.ts";

const MODEL = "adaptive_shapes";
const MOST_THINGS = 8;
const LEAST_AREA = 20; // pixels of an object, counted by its area
const CURVE = { width: 320, height: 170 };
const FRAME = { left: 30, top: 8, right: 310, bottom: 146 };
const [COOLEST, WARMEST] = [0.1, 2];
const [CHEAPEST, DEAREST] = [1e-5, 1]; // prices that the curve shows

export const settings = {
  scene: range(0, 7, 2),
  slots: range(2, 12, 10),
  start: range(0, 20, 0),
  by: choice({ price: "by hand, by their price", trained: "trained, 0 or 1", soft: "trained, soft weights" }, "price"),
  noise: flag(false),
  toss: range(0, 99, 0),
  temperature: range(COOLEST, WARMEST, 1, 0.1),
  price: range(0, 0.04, 0.016, 0.0004), // dearer than one of the objects there
  things: things(),
};

type Many = Model<typeof settings>;

export async function render({ model, el }: { model: Many; el: HTMLElement }): Promise<void> {
  const remote = await Remote.load(MODEL);
  const stage = new Stage(remote.exported.stage!);
  const side = stage.resolution;
  const { num_iterations: iterations } = remote.exported.model.init_args.attention;
  const table = new Table({
    stage: () => stage,
    own: () => stage.scenes[model.get("scene")],
    said: () => model.get("things"),
    say: (said) => model.set("things", said),
  });

  let answer: AdaptiveAnswer;
  let coins: Decision;
  let byPrice: number[];
  let weights: number[]; // what each slot paints with
  let alone: Rows; // masks of all slots, before any is dropped
  let left: { picture: Float32Array; masks: Rows };

  let asked = "";
  const look = async (wait: Wait): Promise<void> => {
    const { scene, things, slots, start } = model.all();
    const about = JSON.stringify([scene, things, slots, start]);
    if (about === asked) return;
    const question = { slots, iterations, seed: start, restarts: 1, spread: 1 };
    answer = (await wait(remote.ask(table.drawn.image, question))) as AdaptiveAnswer;
    asked = about;
  };
  const settle = (): void => {
    const { by, noise, toss, temperature, price } = model.all();
    coins = decide(answer.logits, temperature, noise ? toss : undefined);
    byPrice = worth(answer.saved, price);
    weights = { trained: coins.keep, soft: coins.soft, price: byPrice }[by]!;
    alone = softmaxOverRows(answer.drawing.logits);
    left = compose(weighted(answer.drawing, weights));
  };
  await latest(el, look)();
  settle();
  const dropped = (k: number): boolean => weights[k] <= 0.5;

  // --- pictures ---

  const redrawn = pictures.square("The scene, redrawn by the slots that are kept", () => pictures.image(left.picture.map(inUnits), side));
  const masks = pictures.square("Drawn masks of the slots that are kept, in the slots' colours", () => pictures.segmentation(left.masks, side));
  const slots = Array.from({ length: settings.slots.most }, (_, k) => {
    const picture = pictures.square(
      `What slot ${k + 1} paints`,
      () => (k < weights.length ? pictures.image(colourOf(k), side, faint(row(alone, k), dropped(k))) : undefined),
      (context) => {
        pictures.framed(context, ui.slotColour(k));
        if (dropped(k)) struckOut(context, ui.themed(el, "text"));
      },
    );
    const numbers = ui.element("div", { class: "many-numbers", "data-lab-value": true });
    return { element: ui.element("div", { class: "many-slot" }, picture.element, numbers), picture, numbers };
  });
  const colourOf = (k: number): Float32Array => row(answer.drawing.colours, k).map(inUnits);

  // --- curves ---

  const level = (price: number): number => Math.log(Math.max(price, CHEAPEST) / CHEAPEST) / Math.log(DEAREST / CHEAPEST);
  const warmth = (temperature: number): number => (temperature - COOLEST) / (WARMEST - COOLEST);
  const byTemperature = ui.drawing(CURVE.width, CURVE.height, "Soft weight of each slot against temperature, and its chance to be kept", (context) => {
    const { below, beside, curve, dots } = chart(context, el, FRAME);
    for (const value of [0, 0.5, 1]) beside(0.04 + 0.92 * value, String(value));
    for (const value of [0.1, 0.5, 1, 1.5, 2]) below(warmth(value), String(value));
    const high = (weight: number): number => 0.04 + 0.92 * weight; // 0 and 1 are not on the frame
    const now = model.get("temperature");
    curve([[warmth(now), 0], [warmth(now), 1]], ui.themed(el, "accent"));
    coins.noisy.forEach((noisy, k) => {
      const chance = high(chances(answer.logits)[k]);
      curve([[0, chance], [1, chance]], ui.slotColour(k), 1, [2, 3]);
      const soft = Array.from({ length: 96 }, (_, i): Share => [i / 95, high(sigmoid(noisy / (COOLEST + i / 50)))]);
      curve(soft, ui.slotColour(k));
    });
    dots(coins.soft.map((weight): Share => [warmth(now), high(weight)]), ui.slotColour, 4);
  });
  const againstPrice = ui.drawing(CURVE.width, CURVE.height, "Number of slots that are worth their price, against the price", (context) => {
    const { below, beside, curve, dots } = chart(context, el, FRAME);
    const most = answer.saved.length + 1;
    const there = table.scene.things.length + 1;
    for (const value of [1e-5, 1e-4, 1e-3, 1e-2, 1e-1]) below(level(value), value < 1e-3 ? value.toExponential(0) : String(value));
    for (const value of new Set([1, there, most - 1])) beside(value / most, String(value));
    curve([[0, there / most], [1, there / most]], ui.themed(el, "muted"), 1.5, [4, 4]);
    const now = level(model.get("price"));
    curve([[now, 0], [now, 1]], ui.themed(el, "accent"));
    // The dearest slot stays at any price; each of the others goes where the price is what it saves.
    const order = answer.saved.map((_, k) => k).sort((a, b) => answer.saved[b] - answer.saved[a]);
    const corners = order.map((k, rank): Share => [level(answer.saved[k]), (rank + 1) / most]);
    const stairs = corners.flatMap(([u, v], rank): Share[] => [[rank ? u : 1, v], [corners[rank + 1]?.[0] ?? 0, v]]);
    curve(stairs, ui.themed(el, "text"));
    dots(corners, (rank) => ui.slotColour(order[rank]), 4);
  });

  // --- numbers ---

  const there = ui.readout("Objects there");
  const counted = ui.readout("Trained decision counts");
  const priced = ui.readout("Price counts");
  const byArea = ui.readout("Areas count");
  const weight = ui.readout("Sum of weights");
  const error = ui.readout("Squared error");
  const said = ui.announcer();
  const objects = (keep: number[]): string => String(total(keep) - 1); // one slot is the ground's

  const show = (): void => {
    const chance = chances(answer.logits);
    const squares = left.picture.reduce((sum, value, i) => sum + (inUnits(value) - table.drawn.image[i]) ** 2, 0);
    const large = pictures.pixelsOwned(alone).filter((pixels) => pixels >= LEAST_AREA).length;
    there.show(String(table.scene.things.length));
    counted.show(objects(coins.keep));
    priced.show(objects(byPrice));
    byArea.show(String(large - 1));
    weight.show(total(weights).toFixed(2));
    error.show((squares / left.picture.length).toPrecision(4));
    for (const each of [redrawn, masks, byTemperature, againstPrice]) each.redraw();
    slots.forEach(({ element, picture, numbers }, k) => {
      element.hidden = k >= weights.length;
      if (element.hidden) return numbers.replaceChildren();
      picture.redraw();
      const lines = [`P ${chance[k].toFixed(2)}`, `w ${weights[k].toFixed(2)}`, `Δ ${saving(answer.saved[k])}`];
      numbers.replaceChildren(...lines.map((line) => ui.element("span", {}, line)));
      element.classList.toggle("many-dropped", dropped(k));
    });
    const kept = weights.filter((_, k) => !dropped(k)).length;
    const mode = model.get("noise") ? `coins of seed ${model.get("toss")}` : "no noise";
    said.say(`Scene ${model.get("scene")}: ${kept} of ${weights.length} slots are kept, ${mode}; ${table.scene.things.length} objects are there.`);
  };

  const update = latest(el, async (wait) => {
    table.update();
    await look(wait);
    settle();
    show();
  });

  // --- the page ---

  const scene = ui.slider(model, "scene", "Scene");
  scene.addEventListener("input", () => model.set("things", UNTOUCHED));
  const toss = ui.slider(model, "toss", "Seed of the noise");
  toss.addEventListener("input", () => model.set("noise", true));
  el.append(
    ui.element("style", {}, STYLE),
    ui.row(scene, ui.slider(model, "slots", "Slots"), ui.slider(model, "start", "Start"), ui.reset(model)),
    ui.element(
      "div",
      { class: "lab-panels" },
      ui.panel("Scene: drag, add and remove what is in it", table.element),
      ui.panel("Redrawn by the slots that are kept", redrawn.element),
      ui.panel("Their masks, as they are drawn", masks.element),
    ),
    table.tools(MOST_THINGS),
    ui.row(
      ui.menu(model, "by", "Slots are kept"),
      ui.tick(model, "noise", "Gumbel noise, as in training"),
      toss,
      ui.slider(model, "temperature", "Temperature", (value) => value.toFixed(1)),
      ui.slider(model, "price", "Price", (value) => value.toFixed(4)),
    ),
    ui.row(...[there, counted, priced, byArea, weight, error].map(({ element }) => element)),
    ui.panel(
      "What each slot paints; struck out: dropped. P: the chance that training keeps it. w: the weight it paints with. Δ: what it saves.",
      ui.element("div", { class: "lab-strip" }, ...slots.map(({ element }) => element)),
    ),
    ui.element(
      "div",
      { class: "many-curves" },
      ui.panel("Soft weight of each slot by temperature, for the gradient; dotted: P. Without noise this is evaluation.", byTemperature.element),
      ui.panel("Slots worth their price, by price. Dots: where one is dropped. Dashed: objects there, and the ground.", againstPrice.element),
    ),
    said.element,
    ui.code(model, () => code(model, stage)),
  );
  model.on("change", ui.soon(() => void update().catch((reason) => ui.trouble(el, reason))));
  show();
}

/** A mask, fainter where it is dropped. */
function faint(mask: Float32Array, dropped: boolean): Float32Array {
  return dropped ? mask.map((share) => 0.4 * share) : mask;
}

function struckOut(context: CanvasRenderingContext2D, colour: string): void {
  const { SIDE } = pictures;
  context.strokeStyle = colour;
  context.lineWidth = 4;
  context.beginPath();
  context.moveTo(0, SIDE);
  context.lineTo(SIDE, 0);
  context.stroke();
}

/** Such as .0123; 0 for what is less than can be seen. */
function saving(value: number): string {
  return Math.abs(value) < 5e-5 ? "0" : value.toFixed(4).replace("0.", ".");
}

/** What computes the same in Python. */
function code(model: Many, stage: Stage): string {
  const { scene, slots, start, by, noise, toss, temperature, price, things } = model.all();
  const own = things === UNTOUCHED;
  const weights = { trained: "decision.keep", soft: "soft", price: "worth" }[by];
  return `import torch
${own ? "" : `${PNG_IMPORTS}\n`}import slotlib
from slotlib import adaptive
from slotlib.counting import count_objects
from slotlib.decoders import Drawing
from slotlib.likelihoods import compose

model = slotlib.load("${MODEL}")
${own ? `images = ${stage.inPython(scene)}["image"]` : FROM_PNG}


def draws(seed):
    return slotlib.Draws(torch.Generator().manual_seed(seed))


with torch.no_grad():
    bound = model.bind(model.encode(images), draws(${start}), num_slots=${slots})
    drawing = model.decoder(model.second_look(bound.slots, images))
    logits = model.keep_or_drop(bound.slots).logits

    def cost(keep):
        return model.likelihood.cost(adaptive.kept_only(drawing, keep), model.units(images))

    every, one = torch.ones(1, ${slots}), torch.eye(${slots})
    saved = torch.stack([cost(every - each) - cost(every) for each in one], dim=1)
worth = (saved > ${price}).float()  # if any is, else the one that saves most
worth = torch.where(worth.any(), worth, one[saved.argmax(dim=1)])
decision = adaptive.decide(logits, ${temperature}, ${noise ? `draws(${toss})` : "None"})
${
  noise
    ? `keep, drop, _ = (-draws(${toss}).exponential(1, ${slots}, 3, like=logits).log()).unbind(-1)
soft = ((logits + keep - drop) / ${temperature}).sigmoid()`
    : `soft = (logits / ${temperature}).sigmoid()`
}
weights = ${weights}
redrawn, _ = compose(Drawing(drawing.colours, drawing.logits + weights.log()[:, :, None, None]))
print("P", *[f"{each:.2f}" for each in decision.keep_probability[0]])
print("Trained decision counts", int(decision.keep.sum()) - 1)
print("Price counts", int(worth.sum()) - 1)
print("Areas count", count_objects(drawing.logits.softmax(1), ${LEAST_AREA}).item())
print("Sum of weights", f"{weights.sum():.2f}")
print("Squared error", f"{((redrawn + 1) / 2 - images).square().mean():.4g}")`;
}

const STYLE = `
.many-curves {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr));
  gap: 0.8rem 1.2rem;
}
.many-slot canvas {
  display: block;
  width: 100%;
}
.many-slot[hidden] {
  display: none;
}
.many-numbers {
  display: grid;
  font-size: 0.85em;
  line-height: 1.25;
  font-variant-numeric: tabular-nums;
}
.many-dropped .many-numbers {
  color: var(--lab-muted);
}
`;
