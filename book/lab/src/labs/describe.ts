/** Describe (chapter 05): what every slot says of a scene, whom it is paired with, and how good the sets are. */
import { CATEGORIES, COLOURS, SCENES, SIDE as PIXELS } from "../clevr.ts";
import { chamfer, hungarian, paired, pairwiseHuber } from "../matching.ts";
import * as pictures from "../pictures.ts";
import { loadModel } from "../script.ts";
import { averagePrecision, kindOf, PRESENCE, SetPredictor, type Kind } from "../set_predictor.ts";
import { choice, range, type Model } from "../settings.ts";
import { vectors } from "../tensor.ts";
import * as ui from "../ui.ts";
import { weightsOf } from "../weights.ts";

const MODEL = "clevr10_sets";
const ROWS = 10; // of a true set, padding included
const SIDE = 200; // of a picture, in the units of its drawing
const PAUSE = 300; // ms without a change until all scenes are scored
const MATRIX = { width: 300, height: 300, left: 22, top: 18 };

export const settings = {
  scene: range(0, SCENES.length - 1, 8),
  slots: range(1, 16, 10),
  iterations: range(1, 14, 7),
  start: range(0, 20, 0),
  threshold: range(0, 1, 0.5, 0.01),
  within: choice({ inf: "any distance", "1.0": "1 m", "0.5": "50 cm", "0.25": "25 cm", "0.125": "12.5 cm" }, "0.25"),
};

type Describe = Model<typeof settings>;

export async function render({ model, el }: { model: Describe; el: HTMLElement }): Promise<void> {
  const exported = await loadModel(MODEL);
  const predictor = new SetPredictor(exported.model, weightsOf(exported));
  const prepared = new Map<number, ReturnType<SetPredictor["prepare"]>>();
  const say = (scene: number): Float32Array[] => {
    if (!prepared.has(scene)) prepared.set(scene, predictor.prepare(SCENES[scene].image));
    return vectors(
      predictor.describe(prepared.get(scene)!, model.get("slots"), model.get("iterations"), model.get("start")),
    );
  };

  let said: Float32Array[] = []; // by slot
  let target: Float32Array[] = []; // true objects, then padding
  let cost: number[][] = [];
  let partner: (number | undefined)[] = [];
  const scene = () => SCENES[model.get("scene")];
  const count = (): number => scene().objects.length;
  const sure = (k: number): boolean => said[k][PRESENCE] > model.get("threshold");
  /** The true object that a slot is paired with, by number. */
  const object = (k: number): number | undefined =>
    partner[k] !== undefined && partner[k]! < count() ? partner[k] : undefined;

  const compute = (): void => {
    said = say(model.get("scene"));
    target = [...scene().objects];
    while (target.length < Math.max(ROWS, said.length)) target.push(new Float32Array(PRESENCE + 1));
    cost = pairwiseHuber(said, target);
    partner = hungarian(
      cost,
      target.map((_, m) => m < count()),
    );
  };

  // --- the scene, and what is said of it ---

  const place = (values: Float32Array): [number, number] =>
    scene()
      .seen(values)
      .map((part) => part * SIDE) as [number, number];
  const original = ui.drawing(SIDE, SIDE, "The scene", (context) => {
    context.drawImage(pictures.image(scene().image, PIXELS), 0, 0, SIDE, SIDE);
    scene().objects.forEach((values, m) => outlined(context, letter(m), place(values)));
  });
  const marked = ui.drawing(
    SIDE,
    SIDE,
    "The same scene, with a marker for every object that is predicted",
    (context) => {
      context.globalAlpha = 0.5;
      context.drawImage(pictures.image(scene().image, PIXELS), 0, 0, SIDE, SIDE);
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
      for (const truth of scene().objects) {
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
    const about = [model.get("slots"), model.get("iterations"), model.get("start")].join();
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
        SCENES.map(({ objects }) => objects),
        within,
      ).toFixed(3),
    );
  };

  // --- together ---

  const predicted = ui.readout("Objects predicted");
  const losses = [ui.readout("Hungarian loss"), ui.readout("Chamfer loss")];
  const announced = ui.announcer();
  announced.element.classList.add("lab-unseen"); // table and readouts say it, too
  el.append(
    ui.element("style", {}, STYLE),
    ui.row(
      ui.slider(model, "scene", "Scene"),
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
      ui.panel("The scene: its objects have letters", original.element),
      ui.panel(
        "What is said: squares are cubes, circles spheres, hexagons cylinders. Lines lead to true partners",
        marked.element,
      ),
      ui.panel(
        "Costs, the stronger the colour the less. Frames: the pairs. Dots: a slot's nearest. –: nothing there",
        matrix.element,
      ),
    ),
    ui.row(predicted.element, ...losses.map(({ element }) => element), precision.element),
    ui.element("div", { class: "describe-scroll" }, table),
    announced.element,
    ui.code(model, () => code(model)),
  );
  ui.follow(model, () => {
    compute();
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
  });
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
  return `import torch
from torch.nn import functional as F
import slotlib
from slotlib import data, matching, metrics
from slotlib.data.targets import clevr_targets

model = slotlib.load("${MODEL}")
scenes = data.make("clevr", ${SCENES.length}, seed=0, num_objects=(3, 10), resolution=64).batch(range(${SCENES.length}))
target = clevr_targets(scenes["objects"])


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
