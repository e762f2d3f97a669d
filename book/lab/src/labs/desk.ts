/** The desk (chapter 03): a scene whose things the reader moves, and what a trained model makes of it. */
import type { Answer, Question } from "../autoencoder.ts";
import { Brush, decode, letterOf, OPEN, painting, runs } from "../brush.ts";
import { contingency, fgAri } from "../metrics.ts";
import * as pictures from "../pictures.ts";
import { latest, Remote } from "../remote.ts";
import { Stage, type Rgb } from "../scenes.ts";
import { choice, range, text, type Model } from "../settings.ts";
import { FROM_PNG, PNG_IMPORTS, Table, things, UNTOUCHED } from "../table.ts";
import { rows, type Rows } from "../tensor.ts";
import * as ui from "../ui.ts";

/** Each with what to look for. */
const MODELS: Record<string, { name: string; look: string }> = {
  tetrominoes: {
    name: "Tetrominoes",
    look: "Every piece has a slot, and the ground has one: drawn and posterior masks agree.",
  },
  tetrominoes_early: {
    name: "Tetrominoes, early in training",
    look: "After 1,000 steps a slot already has its piece and draws it as a blur: compare drawn with posterior masks.",
  },
  tetrominoes_alone: {
    name: "Tetrominoes, without competition",
    look: "Every slot looks for itself: some pieces have two slots and some have none, and nobody keeps the ground.",
  },
  tetrominoes_tiling: {
    name: "Tetrominoes, tiling",
    look: "Each slot has a strip of the picture, whatever lies there: drag a piece from one strip to the next.",
  },
  tetrominoes_collapse: {
    name: "Tetrominoes, collapsed",
    look: "One slot has every pixel, the others have none.",
  },
  shapes: { name: "Shapes", look: "Figures hide one another: drag one halfway over the next, and see who has which pixels." },
  multi_dsprites: { name: "Multi-dSprites", look: "Sprites have any colour: add one in the colour of another, and push them together." },
};
const MOST_ITERATIONS = 20;
const MOST_THINGS = 8;
const FRAME_TIME = 500; // ms
const [MOST_COLOURS, MOST_PIXELS] = [24, 64 * 64]; // of a drawing
const ERASER = "eraser";

export const settings = {
  model: choice(Object.fromEntries(Object.entries(MODELS).map(([key, { name }]) => [key, name])), "tetrominoes"),
  scene: range(0, 7, 3),
  slots: range(1, 12, 4),
  iterations: range(1, MOST_ITERATIONS, 10),
  start: range(0, 99, 0),
  sigma: range(0, 2, 1, 0.1),
  restarts: range(1, 8, 1),
  /** The iteration whose attention is shown; by default the last. */
  shown: range(1, MOST_ITERATIONS, MOST_ITERATIONS),
  things: things(),
  source: choice({ things: "what is in it", brush: "a drawing of my own" }, "things"),
  painted: painting(MOST_COLOURS, MOST_PIXELS),
  /** What the brush paints with: the number of a colour, or ERASER. */
  ink: text("0", (found) => found === ERASER || /^\d{1,2}$/.test(found)),
  brush: range(1, 16, 5),
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

  const drawing = (): boolean => model.get("source") === "brush";
  const ground = (): Rgb => stage.scenes[model.get("scene")].ground;
  const painted = (): Uint8Array => decode(model.get("painted"), stage.resolution ** 2);
  const inks = (): Record<string, string> =>
    Object.fromEntries([...Object.keys(stage.written.colours).entries(), [ERASER, ERASER]]);
  /** What the model is shown. */
  const image = (): Float32Array => (drawing() ? stage.painted(painted(), ground()) : table.drawn.image);
  const canvas = ui.drawing(pictures.SIDE, pictures.SIDE, "Your drawing: paint on it.", (context) => {
    context.drawImage(pictures.image(image(), stage.resolution), 0, 0, pictures.SIDE, pictures.SIDE);
    const colour = Object.values(stage.written.colours)[Number(model.get("ink"))] ?? ground();
    brush.ring(context, `rgb(${colour.join(" ")})`, ui.themed(el, "muted"));
  });
  const brush = new Brush(canvas, {
    side: () => stage.resolution,
    label: () => (model.get("ink") in inks() && model.get("ink") !== ERASER ? Number(model.get("ink")) : OPEN),
    width: () => model.get("brush"),
    painted: () => model.get("painted"),
    paint: (runs) => model.set("painted", runs),
  });
  const clear = ui.button("Clear", () => {
    brush.remember();
    model.set("painted", "");
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
    looked(answer!.attention[shown() - 1], answer!.grid),
  );

  const film = strip(MOST_ITERATIONS, (i) => {
    const frame = pictures.square(
      `Attention of iteration ${i + 1}`,
      () => answer?.attention[i] && looked(answer.attention[i], answer.grid),
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
    const seen = image();
    const squares = answer.reconstruction.reduce((sum, value, i) => sum + (value - seen[i]) ** 2, 0);
    const pixels = pictures.pixelsOwned(answer.masks);
    /** Of a drawing nobody knows the objects. */
    const ari = (of: Uint8Array): string => (drawing() ? "–" : fgAri(contingency(table.drawn.mask, of)).toFixed(3));
    const mse = (squares / seen.length).toPrecision(4);
    error.show(mse);
    drawnAri.show(ari(pictures.owners(answer.drawnMasks)));
    posteriorAri.show(ari(pictures.owners(answer.masks)));
    held.show(pixels.join(" "));
    costs.show(answer.costs.map((cost, i) => cost.toPrecision(4) + (i === answer!.best && answer!.costs.length > 1 ? " kept" : "")).join(", "));
    const used = pixels.filter((count) => count > 0).length;
    const there = drawing() ? "A drawing" : `${table.scene.things.length} things`;
    said.say(`${there}; ${used} of ${pixels.length} slots hold pixels; squared error ${mse}.`);
  };

  const fail = (reason: unknown): void => ui.trouble(el, reason);
  const update = latest(el, async (wait) => {
    const wanted = await wait(remoteOf(model.get("model")));
    if (wanted !== remote) {
      remote = wanted;
      stage = stageOf(remote);
      answer = undefined;
    }
    showScene();
    const question: Question = {
      slots: model.get("slots"),
      iterations: model.get("iterations"),
      seed: model.get("start"),
      restarts: model.get("restarts"),
      spread: model.get("sigma"),
    };
    answer = await wait(remote.ask(image(), question));
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
    remoteOf(model.get("model")).then(({ exported }) => {
      if (exported.stage!.name !== stage.written.name) {
        model.set("things", UNTOUCHED);
        model.set("painted", "");
      }
      const { num_slots: slots, num_iterations: iterations } = exported.model.init_args.attention;
      model.set("slots", slots);
      model.set("iterations", iterations);
    }, fail);
  });
  const sceneSlider = ui.slider(model, "scene", "Scene");
  sceneSlider.addEventListener("input", () => {
    model.set("things", UNTOUCHED);
    model.set("source", "things");
  });
  const hint = ui.element("p", { class: "lab-said" });
  const sheets = {
    things: [ui.panel("Scene: drag what is in it", table.element), table.tools(MOST_THINGS)],
    brush: [
      ui.panel("Scene: paint it", brush.element),
      ui.row(ui.menu(model, "ink", "Brush", inks), ui.slider(model, "brush", "Size"), brush.undo, clear),
    ],
  };
  const showScene = (): void => {
    table.update();
    brush.update();
    hint.textContent = MODELS[model.get("model")].look;
    hint.hidden = drawing(); // it speaks of scenes as in training
    clear.disabled = model.get("painted") === "";
    for (const [source, parts] of Object.entries(sheets)) {
      for (const part of parts) part.hidden = source !== model.get("source");
    }
  };

  el.append(
    ui.element("style", {}, STYLE),
    ui.row(modelMenu, sceneSlider, ui.reset(model)),
    hint,
    ui.element(
      "div",
      { class: "lab-panels" },
      sheets.things[0],
      sheets.brush[0],
      ui.panel("Sum of the slots", reconstruction.element),
      ui.panel("Drawn masks", drawnMasks.element),
      ui.panel("Posterior masks", posterior.element),
    ),
    sheets.things[1],
    ui.row(ui.menu(model, "source", "The scene is")),
    sheets.brush[1],
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
  let last = asked(model);
  model.on("change", () => {
    if (last !== (last = asked(model))) return again();
    attention.redraw();
    film.show(answer?.attention.length ?? 0);
    brush.update();
  });
  await update();
}

/** The settings that what is computed depends on. */
function asked(model: Desk): string {
  const { shown: _, ink: __, brush: ___, ...others } = model.all();
  return JSON.stringify(others);
}

/** Whose each input is; without competition the paler, the less it is looked at. */
function looked({ data, count, width }: Rows, side: number): HTMLCanvasElement {
  const sums = Float32Array.from({ length: width }, (_, i) => {
    let sum = 0;
    for (let k = 0; k < count; k++) sum += data[k * width + i];
    return sum;
  });
  const most = Math.max(...sums);
  const shares = rows(count, width, data.map((share, i) => share / sums[i % width]));
  return pictures.segmentation(shares, side, sums.map((sum) => sum / most));
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
  const { model: name, scene, slots, iterations, start, sigma, restarts, things, source, painted } = model.all();
  const kind = source === "brush" ? "drawn" : things === UNTOUCHED ? "own" : "moved";
  const imports = { drawn: "import re\n\nimport torch", own: "import torch", moved: `import torch\n${PNG_IMPORTS}` }[kind];
  const images = {
    drawn: () => inPython(decode(painted, stage.resolution ** 2), stage, scene),
    own: () => `scenes = ${stage.inPython(scene)}\nimages = scenes["image"]`,
    moved: () => FROM_PNG,
  }[kind]();
  const spread = `
with torch.no_grad():
    model.slot_attention.slots_log_sigma += torch.tensor(${sigma}).log()`;
  return `${imports}
import slotlib

model = slotlib.load("${name}")${sigma === 1 ? "" : spread}
${images}
out = model(
    images,
    num_slots=${slots},
    num_iterations=${iterations},
    restarts=${restarts},
    generator=torch.Generator().manual_seed(${start}),
)
squared_error = (out.reconstruction - images).square().mean()${
    kind === "own" ? '\nfg_ari = slotlib.metrics.fg_ari(scenes["mask"], out.drawn_masks.argmax(1))' : ""
  }`;
}

/** The lines that make an image of a drawing. */
function inPython(painted: Uint8Array, stage: Stage, scene: number): string {
  const colours = Object.values(stage.written.colours);
  const used = [...new Set(painted)].map((label) => {
    const colour = colours[label] ?? stage.scenes[scene].ground;
    return `"${letterOf(label)}": (${colour.join(", ")})`;
  });
  const lines = runs(painted).match(/.{1,72}/g)!.map((line) => `    "${line}"`);
  return `colours = {${used.join(", ")}}
runs = (  # of which colour how many pixels are, row by row
${lines.join("\n")}
)
pixels = [
    colours[letter]
    for letter, count in re.findall(r"([a-z])(\\d+)", runs)
    for _ in range(int(count))
]
images = torch.tensor(pixels).view(${stage.resolution}, ${stage.resolution}, 3).permute(2, 0, 1)[None] / 255`;
}

const STYLE = `
:is(.lab-panel, .lab-row)[hidden] {
  display: none;
}
`;
