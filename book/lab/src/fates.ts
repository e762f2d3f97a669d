/** Four fates (chapter 06): the slots of a real scene that settle, hardly settle, never settle, or settle in two places. */
import { chart, type Share } from "./chart.ts";
import FATES from "./fates.json";
import * as pictures from "./pictures.ts";
import { latest, Remote, type Wait } from "./remote.ts";
import { best, type Complex, type Method, type Walk } from "./rest.ts";
import { fromRow, Stage, type Rgb } from "./scenes.ts";
import { choice, range, type Model } from "./settings.ts";
import type { Rows } from "./tensor.ts";
import * as ui from "./ui.ts";

const MODEL = "tetrominoes";
const LONG = 300; // iterations at most
const TOLERANCE = 1e-10;
const LAST_START = 5;
const PAUSE = 80; // ms without a change until what the picture does not need is sought: a newer one must not wait for it
const METHODS: Method[] = ["plain", "anderson"];
const CURVE = { width: 320, height: 320 };
const FRAME = { left: 44, top: 8, right: 310, bottom: 296 };
const [LEAST, MOST] = [1e-10, 10]; // residuals that are shown
const PLANE = { side: 320, edge: 8, reach: 2 }; // of the eigenvalues: from −reach to reach each way

export const settings = {
  fate: choice({ settled: "settled", slow: "slow", restless: "restless", two_ended: "two ends" }, "settled"),
  solver: choice({ plain: "plain: z ← f(z)", anderson: "Anderson" }, "plain"),
  rounds: range(1, LONG, 60),
  from: range(0, LAST_START, 0),
};

type Fates = Model<typeof settings>;

const chosen = (model: Fates) => FATES.find(({ name }) => name === model.get("fate"))!;

/** Resolves once there is something to see. Rejects with a sentence for the reader. */
export async function render({ model, el }: { model: Fates; el: HTMLElement }): Promise<{ update(): void }> {
  const remote = await Remote.load(MODEL);
  const stage = new Stage(remote.exported.stage!);

  let scene: Float32Array;
  let ways: Partial<Record<Method, Walk>>;
  let whose: Rows;
  let eigenvalues: Complex[] | undefined;

  // --- what is computed ---

  let asked = "";
  const start = () => {
    const { pieces, count, seed, first } = chosen(model);
    return { slots: pieces + 1, count, seed, k: (first + model.get("from")) % count };
  };
  const walk = (wait: Wait, image: Float32Array, method: Method): Promise<Walk> =>
    wait(remote.call("walk", image, start(), method, LONG, TOLERANCE));
  /** What the picture needs. */
  const look = async (wait: Wait): Promise<void> => {
    const about = JSON.stringify([model.get("fate"), start()]);
    const image = stage.draw({ ground: [0, 0, 0] as Rgb, things: chosen(model).things.map(fromRow) }).image;
    const known = about === asked ? ways : {};
    known[solver()] ??= await walk(wait, image, solver());
    [asked, scene, ways] = [about, image, known];
    whose = await wait(remote.call("masksOf", scene, way().values[at()]));
    eigenvalues = undefined;
  };
  /** What it does not wait for. */
  const complete = async (wait: Wait): Promise<void> => {
    for (const method of METHODS) ways[method] ??= await walk(wait, scene, method);
    eigenvalues = await wait(remote.call("eigenvalues", scene, way().values[at()]));
  };
  const solver = (): Method => model.get("solver") as Method;
  const way = (): Walk => ways[solver()]!;
  const at = (): number => best(way(), solver(), model.get("rounds"));

  await latest(el, look)();

  // --- pictures ---

  const picture = pictures.square("The scene", () => pictures.image(scene, stage.resolution));
  const masks = pictures.square("Whose each pixel is, in the slots' colours", () => pictures.segmentation(whose, stage.resolution));
  const curve = ui.drawing(CURVE.width, CURVE.height, "Residual by iteration, of both solvers, on a logarithmic axis", (context) => {
    const { below, beside, curve, dots } = chart(context, el, FRAME);
    const level = (residual: number): number => Math.log(Math.max(residual, 1e-16) / LEAST) / Math.log(MOST / LEAST);
    for (const power of [-10, -8, -6, -4, -2, 0]) beside(level(10 ** power), `1e${power}`);
    for (const n of [0, 100, 200, 300]) below(n / LONG, String(n));
    const now = model.get("rounds") / LONG;
    curve([[now, 0], [now, 1]], ui.themed(el, "accent"), 1.5);
    METHODS.forEach((method, i) => {
      const places = (ways[method]?.residuals ?? []).map((residual, n): Share => [(n + 1) / LONG, level(residual)]);
      curve(places, ui.slotColour(4 + i), method === solver() ? 2.5 : 1.2);
      if (method === solver()) dots([places[at()]], ui.slotColour(4 + i), 4);
    });
  });
  const plane = ui.drawing(PLANE.side, PLANE.side, "The largest eigenvalues of the Jacobian, and the unit circle", (context) => {
    const { side, edge, reach } = PLANE;
    const { across, up, curve, dots } = chart(context, el, { left: edge, top: edge, right: side - edge, bottom: side - edge });
    const share = (value: number): number => (value + reach) / (2 * reach);
    for (const axis of [[[0, 0.5], [1, 0.5]], [[0.5, 0], [0.5, 1]]] as Share[][]) curve(axis, ui.themed(el, "line"), 1);
    context.strokeStyle = ui.themed(el, "text");
    context.lineWidth = 1.5;
    context.beginPath();
    context.arc(across(0.5), up(0.5), across(share(1)) - across(0.5), 0, 2 * Math.PI);
    context.stroke();
    if (!eigenvalues) return;
    const outside = eigenvalues.map((each) => Math.hypot(...each) > 1);
    dots(eigenvalues.map(([a, b]): Share => [share(a), share(b)]), (i) => ui.slotColour(outside[i] ? 5 : 4), 3.5);
  });

  // --- numbers ---

  const residual = ui.readout("Residual");
  const needed = ui.readout("Iterations");
  const largest = ui.readout("Largest eigenvalue");
  const radius = ui.readout("Its size");
  const pixels = ui.readout("Pixels of each slot");
  const said = ui.announcer();
  const show = (): void => {
    const { residuals, converged } = way();
    const count = Math.min(model.get("rounds"), residuals.length);
    const rests = converged && at() === residuals.length - 1;
    residual.show(residuals[at()].toExponential(1));
    needed.show(`${count}${rests ? ", at rest" : ""}`);
    pixels.show(pictures.pixelsOwned(whose).join(" "));
    for (const each of [picture, masks, curve, plane]) each.redraw();
    if (!eigenvalues) return [largest, radius].forEach((each) => each.show("…"));
    const [a, b] = eigenvalues[0];
    largest.show(`${a.toFixed(3)}${Math.abs(b) < 5e-4 ? "" : ` ± ${Math.abs(b).toFixed(3)} i`}`);
    radius.show(Math.hypot(a, b).toFixed(3));
    const where = rests ? "The slots are at rest" : `The residual is ${residuals[at()].toExponential(1)}`;
    said.say(`${where} after ${count} iterations; the largest eigenvalue there has size ${Math.hypot(a, b).toFixed(2)}.`);
  };

  const other = FATES.find(({ name }) => name === "two_ended")!.other;
  el.append(
    ui.element("style", {}, STYLE),
    ui.row(
      ui.menu(model, "fate", "Scene"),
      ui.menu(model, "solver", "Solver"),
      ui.slider(model, "rounds", "Iterations"),
      ui.slider(model, "from", "Start"),
    ),
    ui.element(
      "div",
      { class: "fates-panels" },
      ui.panel("The scene", picture.element),
      ui.panel("Whose each pixel is, by the slots as they are then", masks.element),
      ui.panel("Residual by iteration, until it is 1e-10; blue: plain, red: Anderson", curve.element),
      ui.panel("The largest eigenvalues of the Jacobian there, and the unit circle; red: outside", plane.element),
    ),
    ui.row(...[residual, needed, largest, radius, pixels].map(({ element }) => element)),
    ui.element("p", { class: "lab-said" }, `The scene with two ends: compare the masks of start 0 with those of start ${other}.`),
    said.element,
  );
  const update = latest(el, async (wait) => {
    await look(wait);
    show();
    await wait(new Promise((resume) => setTimeout(resume, PAUSE, true)));
    await complete(wait);
    show();
  });
  show();
  return { update: () => void update().catch((reason) => ui.trouble(el, reason)) };
}

/** What computes the same in Python. */
export function code(model: Fates): string {
  const { pieces, scene, count, seed, first, options } = chosen(model);
  const { solver, rounds, from } = model.all();
  const given = Object.entries(options).map(([option, value]) => `, ${option}=${JSON.stringify(value)}`).join("");
  return `import torch
import slotlib
from slotlib.implicit import solve

torch.set_default_dtype(torch.float64)
model = slotlib.load("${MODEL}").double()
images = slotlib.data.make("tetrominoes", ${scene + 1}${given}).batch([${scene}])["image"].double()
with torch.no_grad():
    prepared = model.slot_attention.prepare(model.encode(images).flatten(1, 2))
    generator = torch.Generator().manual_seed(${seed})
    start = model.slot_attention.initial_slots(${count}, ${pieces + 1}, generator)[[${(first + from) % count}]]


def f(slots):
    return model.slot_attention.step(slots, prepared)[0]


with torch.no_grad():
    found = solve(f, start, method="${solver}", tolerance=${TOLERANCE.toExponential()}, max_iterations=${rounds})
    masks = model.likelihood.masks(model.decoder(found.z), model.units(images))
jacobian = torch.autograd.functional.jacobian(f, found.z).view(found.z.numel(), -1)
largest = max(torch.linalg.eigvals(jacobian).tolist(), key=abs)
print("Residual", f"{found.residuals.item():.1e}")
print("Iterations", found.iterations.item())
print("Largest eigenvalue", f"{largest.real:.3f}" + (f" ± {abs(largest.imag):.3f} i" if abs(largest.imag) > 5e-4 else ""))
print("Its size", f"{abs(largest):.3f}")
print("Pixels of each slot", *masks.argmax(1).flatten().bincount(minlength=${pieces + 1}).tolist())`;
}

const STYLE = `
.fates-panels {
  display: grid;
  grid-template-columns: repeat(2, minmax(0, 1fr));
  gap: 0.8rem;
  max-width: 36rem;
}
`;
