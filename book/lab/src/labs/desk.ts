/** The desk (chapter 03): a scene whose things the reader moves, and what a trained model makes of it. */
import type { Answer, Question } from "../autoencoder.ts";
import { contingency, fgAri } from "../metrics.ts";
import * as pictures from "../pictures.ts";
import { latest, Remote } from "../remote.ts";
import { Stage } from "../scenes.ts";
import { choice, range, type Model } from "../settings.ts";
import { FROM_PNG, PNG_IMPORTS, Table, things, UNTOUCHED } from "../table.ts";
import type { Rows } from "../tensor.ts";
import * as ui from "../ui.ts";

const MODELS = {
  tetrominoes: "Tetrominoes",
  tetrominoes_tiling: "Tetrominoes, tiling",
  tetrominoes_collapse: "Tetrominoes, collapsed",
  shapes: "Shapes",
  multi_dsprites: "Multi-dSprites",
};
const MOST_ITERATIONS = 20;
const MOST_THINGS = 8;
const FRAME_TIME = 500; // ms

export const settings = {
  model: choice(MODELS, "tetrominoes"),
  scene: range(0, 7, 3),
  slots: range(1, 12, 4),
  iterations: range(1, MOST_ITERATIONS, 10),
  start: range(0, 99, 0),
  sigma: range(0, 2, 1, 0.1),
  restarts: range(1, 8, 1),
  /** The iteration whose attention is shown; by default the last. */
  shown: range(1, MOST_ITERATIONS, MOST_ITERATIONS),
  things: things(),
};

type Desk = Model<typeof settings>;

export async function render({ model, el }: { model: Desk; el: HTMLElement }): Promise<void> {
  const remotes = new Map<string, Promise<Remote>>();
  const remoteOf = (name: string): Promise<Remote> => {
    if (!remotes.has(name)) remotes.set(name, Remote.load(name));
    return remotes.get(name)!;
  };
  const stageOf = (remote: Remote): Stage => new Stage(remote.exported.stage!);

  let remote = await remoteOf(model.get("model"));
  let stage = stageOf(remote);
  let answer: Answer | undefined;

  // --- the scene ---

  const table = new Table({
    stage: () => stage,
    own: () => stage.scenes[model.get("scene")],
    said: () => model.get("things"),
    say: (said) => model.set("things", said),
  });

  // --- what the model makes of it ---

  const shown = (): number => Math.min(model.get("shown"), answer?.attention.length ?? 1);
  const masks = (of: (answer: Answer) => Rows) => (): HTMLCanvasElement => pictures.segmentation(of(answer!), stage.resolution);
  const square = (label: string, source: () => HTMLCanvasElement): ReturnType<typeof pictures.square> =>
    pictures.square(label, () => answer && source());
  const reconstruction = square("The reconstruction", () => pictures.image(answer!.reconstruction, stage.resolution));
  const drawnMasks = square("Drawn masks: as the slots draw them, in the slots' colours", masks(({ drawnMasks }) => drawnMasks));
  const posterior = square("Posterior masks: whose each pixel is, in the slots' colours", masks(({ masks }) => masks));
  const attention = square("Attention, in the slots' colours", () =>
    pictures.segmentation(answer!.attention[shown() - 1], answer!.grid),
  );

  const film = strip(MOST_ITERATIONS, (i) => {
    const frame = pictures.square(
      `Attention of iteration ${i + 1}`,
      () => answer?.attention[i] && pictures.segmentation(answer.attention[i], answer.grid),
      (context) => i + 1 === shown() && pictures.framed(context, ui.themed(el, "text")),
    );
    frame.element.addEventListener("click", () => model.set("shown", i + 1));
    return frame;
  });
  const parts = strip(settings.slots.most, (k) =>
    pictures.square(
      `What slot ${k + 1} paints`,
      () => answer && k < answer.masks.count ? pictures.part(answer, k, stage.resolution) : undefined,
      (context) => pictures.framed(context, ui.slotColour(k)),
    ),
  );

  const error = ui.readout("Squared error");
  const drawnAri = ui.readout("FG-ARI, drawn");
  const posteriorAri = ui.readout("FG-ARI, posterior");
  const held = ui.readout("Pixels of each slot");
  const costs = ui.readout("Cost of each start");
  const said = ui.announcer();

  const show = (): void => {
    if (!answer) return;
    for (const each of [reconstruction, drawnMasks, posterior, attention]) each.redraw();
    film.show(answer.attention.length);
    parts.show(answer.masks.count);
    const squares = answer.reconstruction.reduce((sum, value, i) => sum + (value - table.drawn.image[i]) ** 2, 0);
    const pixels = pictures.pixelsOwned(answer.masks);
    const ari = (of: Uint8Array): string => fgAri(contingency(table.drawn.mask, of)).toFixed(3);
    const mse = (squares / table.drawn.image.length).toPrecision(4);
    error.show(mse);
    drawnAri.show(ari(pictures.owners(answer.drawnMasks)));
    posteriorAri.show(ari(pictures.owners(answer.masks)));
    held.show(pixels.join(" "));
    costs.show(answer.costs.map((cost, i) => cost.toPrecision(4) + (i === answer!.best && answer!.costs.length > 1 ? " kept" : "")).join(", "));
    const used = pixels.filter((count) => count > 0).length;
    said.say(`${table.scene.things.length} things; ${used} of ${pixels.length} slots hold pixels; squared error ${mse}.`);
  };

  const fail = (reason: unknown): void => ui.trouble(el, reason);
  const update = latest(el, async (wait) => {
    const wanted = await wait(remoteOf(model.get("model")));
    if (wanted !== remote) {
      remote = wanted;
      stage = stageOf(remote);
      answer = undefined;
    }
    table.update();
    const question: Question = {
      slots: model.get("slots"),
      iterations: model.get("iterations"),
      seed: model.get("start"),
      restarts: model.get("restarts"),
      spread: model.get("sigma"),
    };
    answer = await wait(remote.ask(table.drawn.image, question));
    show();
  });

  // --- time ---

  const step = (): boolean => {
    const last = model.get("iterations");
    model.set("shown", (shown() % last) + 1); // from the end on to the first
    return shown() < last;
  };
  const play = ui.player("Play", FRAME_TIME, step);

  // --- the page ---

  const modelMenu = ui.menu(model, "model", "Model");
  modelMenu.addEventListener("change", () => {
    model.set("things", UNTOUCHED);
    remoteOf(model.get("model")).then(({ exported }) => {
      const { num_slots: slots, num_iterations: iterations } = exported.model.init_args.attention;
      model.set("slots", slots);
      model.set("iterations", iterations);
    }, fail);
  });
  const sceneSlider = ui.slider(model, "scene", "Scene");
  sceneSlider.addEventListener("input", () => model.set("things", UNTOUCHED));

  el.append(
    ui.row(modelMenu, sceneSlider, ui.reset(model)),
    ui.element(
      "div",
      { class: "lab-panels" },
      ui.panel("Scene: drag what is in it", table.element),
      ui.panel("Sum of the slots", reconstruction.element),
      ui.panel("Drawn masks", drawnMasks.element),
      ui.panel("Posterior masks", posterior.element),
    ),
    table.tools(MOST_THINGS),
    ui.row(
      ui.slider(model, "slots", "Slots"),
      ui.slider(model, "iterations", "Iterations"),
      ui.slider(model, "start", "Start"),
      ui.slider(model, "sigma", "σ of the start", (value) => `× ${value.toFixed(1)}`),
      ui.slider(model, "restarts", "Restarts"),
    ),
    ui.row(error.element, drawnAri.element, posteriorAri.element, held.element, costs.element),
    ui.panel("What each slot paints", parts.element),
    ui.row(ui.slider(model, "shown", "Iteration shown", String, () => model.get("iterations")), play),
    ui.element(
      "div",
      { class: "lab-film" },
      ui.panel("Attention", attention.element),
      ui.panel("Attention, iteration by iteration", film.element),
    ),
    said.element,
    ui.code(model, () => code(model, stage)),
  );
  const again = ui.soon(() => void update().catch(fail));
  let last = model.all();
  model.on("change", () => {
    const { shown: _, ...before } = last;
    const { shown: __, ...now } = (last = model.all());
    if (JSON.stringify(before) === JSON.stringify(now)) {
      attention.redraw();
      film.show(answer?.attention.length ?? 0);
    } else again();
  });
  await update();
}

/** Small pictures side by side, of which the first few are shown and drawn. */
function strip(most: number, make: (i: number) => ReturnType<typeof ui.drawing>): { element: HTMLElement; show(count: number): void } {
  const frames = Array.from({ length: most }, (_, i) => make(i));
  return {
    element: ui.element("div", { class: "lab-strip" }, ...frames.map(({ element }) => element)),
    show: (count) =>
      frames.forEach((frame, i) => {
        frame.element.hidden = i >= count;
        if (i < count) frame.redraw();
      }),
  };
}

/** What computes the same in Python. */
function code(model: Desk, stage: Stage): string {
  const { model: name, scene, slots, iterations, start, sigma, restarts, things } = model.all();
  const own = `scenes = ${stage.inPython(scene)}
images = scenes["image"]`;
  const spread = `
with torch.no_grad():
    model.slot_attention.slots_log_sigma += torch.tensor(${sigma}).log()`;
  return `import torch
${things === UNTOUCHED ? "" : `${PNG_IMPORTS}\n`}import slotlib

model = slotlib.load("${name}")${sigma === 1 ? "" : spread}
${things === UNTOUCHED ? own : FROM_PNG}
out = model(
    images,
    num_slots=${slots},
    num_iterations=${iterations},
    restarts=${restarts},
    generator=torch.Generator().manual_seed(${start}),
)
squared_error = (out.reconstruction - images).square().mean()${
    things === UNTOUCHED ? '\nfg_ari = slotlib.metrics.fg_ari(scenes["mask"], out.drawn_masks.argmax(1))' : ""
  }`;
}
