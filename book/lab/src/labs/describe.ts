/** Describe (chapter 05): what every slot says of a scene, whom it is paired with, and how good the sets are. */
import { CATEGORIES, COLOURS, METRES, SCENES, SIDE as PIXELS, type Scene } from "../clevr.ts";
import { chamfer, hungarian, paired, pairwiseHuber } from "../matching.ts";
import * as pictures from "../pictures.ts";
import { latest } from "../remote.ts";
import { loadModel } from "../script.ts";
import { averagePrecision, kindOf, PRESENCE, SetPredictor, type Kind } from "../set_predictor.ts";
import { choice, range, text, type Model } from "../settings.ts";
import { FROM_PNG, PNG_IMPORTS, saver } from "../table.ts";
import { vectors } from "../tensor.ts";
import * as ui from "../ui.ts";
import { weightsOf } from "../weights.ts";

const MODEL = "clevr10_sets";
const ROWS = 10; // of a true set, padding included
const SIDE = 200; // of a picture, in the units of its drawing
const REACH = 14; // how near to an object one has to press to move it
const PAUSE = 300; // ms without a change until all scenes are scored
const HOME = ""; // where an object stood at first
const MATRIX = { width: 300, height: 300, left: 22, top: 18 };

export const settings = {
  scene: range(0, SCENES.length - 1, 8),
  /** Where the object stands that can be moved: metres from the middle, such as 1.5_-2. */
  at: text(HOME, (found) => /^(-?\d(\.\d)?_-?\d(\.\d)?)?$/.test(found)),
  slots: range(1, 16, 10),
  iterations: range(1, 14, 7),
  start: range(0, 20, 0),
  threshold: range(0, 1, 0.5, 0.01),
  within: choice({ inf: "any distance", "1.0": "1 m", "0.5": "50 cm", "0.25": "25 cm", "0.125": "12.5 cm" }, "0.25"),
};

type Describe = Model<typeof settings>;

/** Number of the place where the movable object stands; −1 where it stood at first. */
const moved = (model: Describe): number =>
  SCENES[model.get("scene")].places.findIndex(([x, y]) => model.get("at") === `${x}_${y}`);

export async function render({ model, el }: { model: Describe; el: HTMLElement }): Promise<void> {
  const exported = await loadModel(MODEL);
  const predictor = new SetPredictor(exported.model, weightsOf(exported));
  let now: Pick<Scene, "image" | "objects"> = SCENES[model.get("scene")]; // as its objects stand
  /** A scene of the page; the one that is shown with the object that was moved. */
  const seen = (i: number): typeof now => (i === model.get("scene") ? now : SCENES[i]);
  const prepared = new Map<number, { image: Float32Array; inputs: ReturnType<SetPredictor["prepare"]> }>();
  const say = (i: number): Float32Array[] => {
    const { image } = seen(i);
    if (prepared.get(i)?.image !== image) prepared.set(i, { image, inputs: predictor.prepare(image) });
    return vectors(
      predictor.describe(prepared.get(i)!.inputs, model.get("slots"), model.get("iterations"), model.get("start")),
    );
  };

  let said: Float32Array[] = []; // by slot
  let target: Float32Array[] = []; // true objects, then padding
  let cost: number[][] = [];
  let partner: (number | undefined)[] = [];
  const scene = () => SCENES[model.get("scene")];
  const count = (): number => now.objects.length;
  const sure = (k: number): boolean => said[k][PRESENCE] > model.get("threshold");
  /** The true object that a slot is paired with, by number. */
  const object = (k: number): number | undefined =>
    partner[k] !== undefined && partner[k]! < count() ? partner[k] : undefined;

  const compute = (): void => {
    said = say(model.get("scene"));
    target = [...now.objects];
    while (target.length < Math.max(ROWS, said.length)) target.push(new Float32Array(PRESENCE + 1));
    cost = pairwiseHuber(said, target);
    partner = hungarian(
      cost,
      target.map((_, m) => m < count()),
    );
  };

  // --- the scene, and what is said of it ---

  const place = (values: ArrayLike<number>): [number, number] =>
    scene()
      .seen(values)
      .map((part) => part * SIDE) as [number, number];
  const original = ui.drawing(SIDE, SIDE, "The scene. The object in the ring can be dragged.", (context) => {
    context.drawImage(pictures.image(now.image, PIXELS), 0, 0, SIDE, SIDE);
    now.objects.forEach((values, m) => outlined(context, letter(m), place(values)));
    context.beginPath();
    context.arc(...place(now.objects[scene().movable]), REACH, 0, 2 * Math.PI);
    context.strokeStyle = "white";
    context.lineWidth = 1.2;
    context.setLineDash([3, 3]);
    context.stroke();
    context.setLineDash([]);
  });
  /** Every place that the object may have: its text, and where its centre is then seen. */
  const places = (): { at: string; seen: [number, number] }[] => {
    const { movable, places, objects } = scene();
    const home = objects[movable];
    const others = places.map(([x, y]) => ({ at: `${x}_${y}`, seen: place([x / METRES + 0.5, y / METRES + 0.5, home[2]]) }));
    return [{ at: HOME, seen: place(home) }, ...others];
  };
  const handles = ui.draggable(original, {
    points: () => [place(now.objects[scene().movable])].map(([x, y]) => ({ x, y })),
    label: () => `Object ${letter(scene().movable)}, ${words(now.objects[scene().movable])}`,
    move(_, { x, y }) {
      const far = ({ seen }: { seen: [number, number] }): number => Math.hypot(seen[0] - x, seen[1] - y);
      model.set("at", places().reduce((best, each) => (far(each) < far(best) ? each : best)).at);
    },
    reach: REACH,
    step: REACH,
  });
  const marked = ui.drawing(
    SIDE,
    SIDE,
    "The same scene, with a marker for every object that is predicted",
    (context) => {
      context.globalAlpha = 0.5;
      context.drawImage(pictures.image(now.image, PIXELS), 0, 0, SIDE, SIDE);
      context.globalAlpha = 1;
      context.lineWidth = 1.5;
      said.forEach((values, k) => {
        const m = object(k);
        if (!sure(k) || m === undefined) return;
        context.strokeStyle = ui.slotColour(k);
        context.beginPath();
        context.moveTo(...place(values));
        context.lineTo(...place(target[m]));
        context.stroke();
      });
      said.forEach((values, k) => sure(k) && marker(context, place(values), kindOf(values), String(k + 1)));
      context.strokeStyle = "white";
      for (const truth of now.objects) {
        const [x, y] = place(truth);
        context.beginPath();
        context.moveTo(x - 3, y);
        context.lineTo(x + 3, y);
        context.moveTo(x, y - 3);
        context.lineTo(x, y + 3);
        context.stroke();
      }
    },
  );

  // --- costs ---

  const matrix = ui.drawing(MATRIX.width, MATRIX.height, "What each slot would cost as each object", (context) => {
    const { width, height, left, top } = MATRIX;
    const [wide, tall] = [(width - left) / target.length, (height - top) / said.length];
    const most = Math.max(...cost.flat());
    context.font = "12px sans-serif";
    context.textBaseline = "middle";
    context.textAlign = "center";
    context.fillStyle = ui.themed(el, "text");
    target.forEach((_, m) => context.fillText(m < count() ? letter(m) : "–", left + (m + 0.5) * wide, top / 2));
    said.forEach((_, k) => {
      const y = top + k * tall;
      context.fillStyle = ui.themed(el, "text");
      context.fillText(String(k + 1), left / 2, y + tall / 2);
      context.fillStyle = ui.themed(el, "accent");
      cost[k].forEach((value, m) => {
        context.globalAlpha = 1 - value / most;
        context.fillRect(left + m * wide, y, wide - 1, tall - 1);
      });
      context.globalAlpha = 1;
      context.strokeStyle = ui.themed(el, "text");
      context.lineWidth = 2;
      if (partner[k] !== undefined) context.strokeRect(left + partner[k]! * wide + 1, y + 1, wide - 3, tall - 3);
      const nearest = cost[k].indexOf(Math.min(...cost[k]));
      context.fillStyle = ui.slotColour(1);
      context.strokeStyle = "black";
      context.lineWidth = 0.5;
      context.beginPath();
      context.arc(left + (nearest + 0.5) * wide, y + tall / 2, 3.5, 0, 2 * Math.PI);
      context.fill();
      context.stroke();
    });
  });

  const table = ui.element("table", { class: "describe-table", "data-lab-value": true });
  const showTable = (): void => {
    const lines = said.map((values, k) => {
      const presence = values[PRESENCE].toFixed(2);
      const bar = ui.element("span", {
        class: "describe-bar",
        style: `--share: ${presence}; --threshold: ${model.get("threshold")}`,
      });
      const cells = [
        String(k + 1),
        ui.element("span", {}, bar, ` ${presence}`),
        words(values),
        remark(values, object(k), target),
      ];
      return ui.element(
        "tr",
        { class: sure(k) ? "" : "describe-unsure" },
        ...cells.map((cell) => ui.element("td", {}, cell)),
      );
    });
    const head = ["Slot", "Presence", "Says", "Paired with"].map((name) => ui.element("th", { scope: "col" }, name));
    table.replaceChildren(ui.element("tr", {}, ...head), ...lines);
  };

  // --- all scenes of the page: one after the other, so that the page stays free ---

  const precision = ui.readout("Average precision, all scenes");
  let asked = "";
  let sets: Float32Array[][] = [];
  const score = async (): Promise<void> => {
    const other = moved(model) < 0 ? [] : [model.get("scene"), moved(model)];
    const about = [model.get("slots"), model.get("iterations"), model.get("start"), ...other].join();
    if (about !== asked) {
      asked = about;
      const found: Float32Array[][] = [];
      precision.show("…");
      for (let i = 0; i < SCENES.length; i++) {
        await new Promise((resume) => setTimeout(resume, i ? 0 : PAUSE));
        if (about !== asked) return;
        found.push(say(i));
      }
      sets = found;
    }
    if (sets.length === 0) return;
    const within = model.get("within") === "inf" ? Infinity : Number(model.get("within"));
    precision.show(
      averagePrecision(
        sets,
        SCENES.map((_, i) => seen(i).objects),
        within,
      ).toFixed(3),
    );
  };

  // --- together ---

  const predicted = ui.readout("Objects predicted");
  const losses = [ui.readout("Hungarian loss"), ui.readout("Chamfer loss")];
  const announced = ui.announcer();
  announced.element.classList.add("lab-unseen"); // table and readouts say it, too
  const sceneSlider = ui.slider(model, "scene", "Scene");
  sceneSlider.addEventListener("input", () => model.set("at", HOME));
  const back = ui.button("Put it back", () => model.set("at", HOME));
  el.append(
    ui.element("style", {}, STYLE),
    ui.row(
      sceneSlider,
      ui.slider(model, "slots", "Slots"),
      ui.slider(model, "iterations", "Iterations"),
      ui.slider(model, "start", "Start"),
      ui.slider(model, "threshold", "Threshold", (value) => value.toFixed(2)),
      ui.menu(model, "within", "A hit lies within"),
      ui.reset(model),
    ),
    ui.element(
      "div",
      { class: "describe-panels" },
      ui.panel("The scene: its objects have letters. Drag the one in the ring", handles.element),
      ui.panel(
        "What is said: squares are cubes, circles spheres, hexagons cylinders. Lines lead to true partners",
        marked.element,
      ),
      ui.panel(
        "Costs, the stronger the colour the less. Frames: the pairs. Dots: a slot's nearest. –: nothing there",
        matrix.element,
      ),
    ),
    ui.row(back, saver(() => now.image, () => PIXELS)),
    ui.row(predicted.element, ...losses.map(({ element }) => element), precision.element),
    ui.element("div", { class: "describe-scroll" }, table),
    announced.element,
    ui.code(model, () => code(model)),
  );
  const show = (): void => {
    compute();
    back.disabled = moved(model) < 0;
    handles.update();
    const sureOnes = said.filter((_, k) => sure(k)).length;
    predicted.show(`${sureOnes} of ${count()}`);
    losses[0].show(paired(cost, partner).toFixed(4));
    losses[1].show(chamfer(cost).toFixed(4));
    showTable();
    for (const each of [original, marked, matrix]) each.redraw();
    announced.say(
      `${sureOnes} objects are predicted, ${count()} are there. ${said
        .filter((_, k) => sure(k))
        .map(words)
        .join("; ")}.`,
    );
    void score();
  };
  const update = latest(el, async (wait) => {
    const k = moved(model);
    now = k < 0 ? scene() : await wait(scene().moved(k));
    show();
  });
  model.on("change", ui.soon(() => void update().catch((reason) => ui.trouble(el, reason))));
  await update();
}

const NAMES = ["size", "colour", "material", "shape"] as const;

function words(values: Float32Array): string {
  const kind = kindOf(values);
  return NAMES.map((name) => CATEGORIES[name][kind[name]]).join(" ");
}

function letter(m: number): string {
  return String.fromCharCode("a".charCodeAt(0) + m);
}

/** What a slot's partner says to it. */
function remark(values: Float32Array, m: number | undefined, target: Float32Array[]): string {
  if (m === undefined) return "– nothing there";
  const [said, truth] = [kindOf(values), kindOf(target[m])];
  const wrong = NAMES.filter((name) => said[name] !== truth[name]).map((name) => CATEGORIES[name][truth[name]]);
  return wrong.length ? `${letter(m)} ✗ ${wrong.join(", ")}` : `${letter(m)} ✓`;
}

/** A predicted object: shape, size and colour as said, a white rim for metal. */
function marker(context: CanvasRenderingContext2D, [x, y]: [number, number], kind: Kind, name: string): void {
  const radius = kind.size ? 11 : 7;
  const corners = [4, 0, 6][kind.shape];
  context.beginPath();
  if (!corners) context.arc(x, y, radius, 0, 2 * Math.PI);
  for (let i = 0; i < corners; i++) {
    const angle = ((i + 0.5) * 2 * Math.PI) / corners;
    context.lineTo(x + radius * 1.15 * Math.cos(angle), y + radius * 1.15 * Math.sin(angle));
  }
  context.closePath();
  context.fillStyle = COLOURS[kind.colour];
  context.strokeStyle = kind.material ? "white" : "black";
  context.lineWidth = 2;
  context.fill();
  context.stroke();
  outlined(context, name, [x, y]);
}

/** White letters that can be read on anything. */
function outlined(context: CanvasRenderingContext2D, name: string, at: [number, number]): void {
  context.font = "bold 10px sans-serif";
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.lineWidth = 2;
  context.strokeStyle = "black";
  context.strokeText(name, ...at);
  context.fillStyle = "white";
  context.fillText(name, ...at);
}

/** What computes the same in Python. */
function code(model: Describe): string {
  const { scene, slots, iterations, start, threshold, within } = model.all();
  const [own, { movable, places }] = [moved(model) < 0, SCENES[scene]];
  const change = () => `
${FROM_PNG}
scenes["image"][[${scene}]] = images
target[${scene}, ${movable}, :2] = torch.tensor([${places[moved(model)].join(", ")}]) / ${METRES} + 0.5  # metres, as shares
`;
  return `import torch
${own ? "" : `${PNG_IMPORTS}\n`}from torch.nn import functional as F
import slotlib
from slotlib import data, matching, metrics
from slotlib.data.targets import clevr_targets

model = slotlib.load("${MODEL}")
scenes = data.make("clevr", ${SCENES.length}, seed=0, num_objects=(3, 10), resolution=64).batch(range(${SCENES.length}))
target = clevr_targets(scenes["objects"])
${own ? "" : change()}

@torch.no_grad()
def describe(scene):
    image, generator = scenes["image"][[scene]], torch.Generator().manual_seed(${start})
    return model(image, num_slots=${slots}, num_iterations=${iterations}, generator=generator).properties


said = describe(${scene})
true = F.pad(target[[${scene}]], (0, 0, 0, ${Math.max(0, slots - ROWS)}))
cost = matching.pairwise_huber(said, true)
print("predicted", (said[..., -1] > ${threshold}).sum().item())
print("hungarian", f"{matching.hungarian_loss(cost, true[..., -1] > 0).item():.4f}")
print("chamfer", f"{matching.chamfer_loss(cost).item():.4f}")
everything = torch.cat([describe(scene) for scene in range(${SCENES.length})])
print("precision", f"{metrics.average_precision(everything, target, ${within === "inf" ? "torch.inf" : within}):.3f}")`;
}

const STYLE = `
.describe-panels {
  display: grid;
  grid-template-columns: repeat(3, minmax(0, 1fr));
  gap: 0.8rem;
}
@media (max-width: 600px) {
  .describe-panels {
    grid-template-columns: 1fr 1fr;
  }
  .describe-panels > :last-child {
    grid-column: 1 / -1;
  }
}
.describe-scroll {
  overflow-x: auto;
}
section[data-lab] .describe-table {
  width: auto;
  margin: 0;
  border-collapse: collapse;
}
.describe-table :is(th, td) {
  padding: 0.1rem 0.7rem 0.1rem 0;
  border: 0;
  background: none;
  text-align: start;
  font-variant-numeric: tabular-nums;
}
.describe-table td:nth-child(2) {
  white-space: nowrap;
}
.describe-unsure {
  opacity: 0.75;
}
.describe-bar {
  display: inline-block;
  width: 3rem;
  height: 0.7rem;
  vertical-align: middle;
  border: 1px solid var(--lab-line);
  background:
    linear-gradient(var(--lab-text), var(--lab-text)) calc(100% * var(--threshold)) 0 / 2px 100% no-repeat,
    linear-gradient(to right, var(--lab-accent) calc(100% * var(--share)), transparent 0);
}
`;
