/** The desk (chapter 03): a scene whose things the reader moves, and what a trained model makes of it. */
import type { Answer, Question } from "../autoencoder.ts";
import { contingency, fgAri } from "../metrics.ts";
import * as pictures from "../pictures.ts";
import { Remote } from "../remote.ts";
import { Stage, type Rgb, type Thing } from "../scenes.ts";
import { choice, range, type Model } from "../settings.ts";
import { FROM_PNG, PNG_IMPORTS, SIDE, Table, things, UNTOUCHED } from "../table.ts";
import { row, type Rows } from "../tensor.ts";
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
    chosen: () => showChosen(),
  });

  const colour = ui.element("select");
  const showChosen = (): void => {
    const thing = table.scene.things[table.chosen];
    const known = Object.entries(stage.written.colours);
    const own = known.find(([, parts]) => parts.join() === thing?.colour.join())?.[0] ?? "";
    const names = known.map(([name]) => name);
    colour.replaceChildren(...[...(own ? [] : [""]), ...names].map((name) => ui.element("option", { value: name }, name || "its own")));
    colour.value = own;
    for (const control of [colour, turnIt, remove]) control.disabled = !thing;
    add.disabled = table.scene.things.length >= MOST_THINGS;
  };
  colour.addEventListener("change", () => {
    const parts = stage.written.colours[colour.value];
    if (parts) table.replace(table.chosen, { ...table.scene.things[table.chosen], colour: parts as Rgb });
  });
  const turnIt = ui.button("Turn", () => table.turn(table.chosen));
  const add = ui.button("Add", () => {
    const { things } = table.scene;
    const shape = (things.length * 5 + 3) % stage.written.shapes.length;
    const colours = Object.values(stage.written.colours) as Rgb[];
    const size = stage.written.sizes[Math.floor(stage.written.sizes.length / 2)];
    const thing: Thing = { shape, x: 0, y: 0, angle: 0, size, colour: colours[things.length % colours.length] };
    table.chosen = things.length;
    table.change([...things, stage.placed(thing, stage.resolution * 0.4, stage.resolution * 0.4)]);
  });
  const remove = ui.button("Remove", () => table.remove());

  // --- what the model makes of it ---

  const square = (label: string, source: () => HTMLCanvasElement | undefined): ReturnType<typeof ui.drawing> =>
    ui.drawing(SIDE, SIDE, label, (context) => {
      const found = answer && source();
      if (found) context.drawImage(found, 0, 0, SIDE, SIDE);
    });
  const shown = (): number => Math.min(model.get("shown"), answer?.attention.length ?? 1);
  const masks = (of: (answer: Answer) => Rows) => (): HTMLCanvasElement => pictures.segmentation(of(answer!), stage.resolution);
  const reconstruction = square("The reconstruction", () => pictures.image(answer!.reconstruction, stage.resolution));
  const drawnMasks = square("Drawn masks: as the slots draw them, in the slots' colours", masks(({ drawnMasks }) => drawnMasks));
  const posterior = square("Posterior masks: whose each pixel is, in the slots' colours", masks(({ masks }) => masks));
  const attention = square("Attention, in the slots' colours", () =>
    pictures.segmentation(answer!.attention[shown() - 1], answer!.grid),
  );

  const film = strip(MOST_ITERATIONS, (i) => {
    const frame = ui.drawing(SIDE, SIDE, `Attention of iteration ${i + 1}`, (context) => {
      if (!answer?.attention[i]) return;
      context.drawImage(pictures.segmentation(answer.attention[i], answer.grid), 0, 0, SIDE, SIDE);
      if (i + 1 === shown()) outline(context, ui.themed(el, "text"));
    });
    frame.element.addEventListener("click", () => model.set("shown", i + 1));
    return frame;
  });
  const parts = strip(settings.slots.most, (k) =>
    ui.drawing(SIDE, SIDE, `What slot ${k + 1} paints`, (context) => {
      if (!answer || k >= answer.masks.count) return;
      const painted = pictures.image(row(answer.slotImages, k), stage.resolution, row(answer.masks, k));
      context.drawImage(painted, 0, 0, SIDE, SIDE);
      outline(context, ui.slotColour(k));
    }),
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

  const compute = async (): Promise<void> => {
    const asked = remote;
    const question: Question = {
      slots: model.get("slots"),
      iterations: model.get("iterations"),
      seed: model.get("start"),
      restarts: model.get("restarts"),
      spread: model.get("sigma"),
    };
    const found = await asked.ask(table.drawn.image, question);
    if (!found || asked !== remote) return;
    answer = found;
    show();
  };

  const fail = (reason: unknown): void => ui.trouble(el, reason);
  const update = async (): Promise<void> => {
    const wanted = await remoteOf(model.get("model"));
    if (wanted !== (await remoteOf(model.get("model")))) return; // another one was wanted meanwhile
    if (wanted !== remote) {
      remote = wanted;
      stage = stageOf(remote);
      answer = undefined;
    }
    table.update();
    showChosen();
    await compute();
  };

  // --- time ---

  let timer = 0;
  const play = ui.button("Play", () => {
    const last = model.get("iterations");
    const step = (): void => {
      const next = (shown() % last) + 1;
      model.set("shown", next);
      if (next < last) return;
      stop();
    };
    if (timer) return stop();
    step(); // from the end on to the first
    if (ui.still()) return; // a reader who wants no motion presses once for each iteration
    timer = window.setInterval(step, FRAME_TIME);
    play.textContent = "Stop";
  });
  const stop = (): void => {
    clearInterval(timer);
    timer = 0;
    play.textContent = "Play";
  };

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
    ui.row(turnIt, ui.element("label", { class: "lab-control" }, ui.element("span", {}, "Colour"), colour), add, remove, table.save),
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

function outline(context: CanvasRenderingContext2D, colour: string): void {
  context.strokeStyle = colour;
  context.lineWidth = 5;
  context.strokeRect(2.5, 2.5, SIDE - 5, SIDE - 5);
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
