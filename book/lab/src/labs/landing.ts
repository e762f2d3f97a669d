/** The landing page: one scene to drag things in, and the slots follow. */
import type { Answer } from "../autoencoder.ts";
import * as pictures from "../pictures.ts";
import { Remote } from "../remote.ts";
import { Stage, type Thing } from "../scenes.ts";
import { range, type Model } from "../settings.ts";
import { Table, things, UNTOUCHED } from "../table.ts";
import * as ui from "../ui.ts";

const MODEL = "tetrominoes";
const LAST_SCENE = 7;
const CHAPTER = "../../chapters/03_object_discovery.html"; // seen from the folder of the labs

export const settings = { scene: range(0, LAST_SCENE, 3), things: things() };

type Landing = Model<typeof settings>;

export async function render({ model, el }: { model: Landing; el: HTMLElement }): Promise<void> {
  const remote = await Remote.load(MODEL);
  const stage = new Stage(remote.exported.stage!);
  const { num_slots: slots, num_iterations: iterations } = remote.exported.model.init_args.attention;
  let answer: Answer | undefined;

  const table = new Table({
    stage: () => stage,
    own: () => stage.scenes[model.get("scene")],
    said: () => model.get("things"),
    say: (said) => model.set("things", said),
  });
  model.on("change", () => table.update());
  const masks = pictures.square(
    "Whose each pixel is, in the slots' colours",
    () => answer && pictures.segmentation(answer.masks, stage.resolution),
  );
  const parts = Array.from({ length: slots }, (_, k) =>
    pictures.square(
      `What slot ${k + 1} paints`,
      () => answer && pictures.part(answer, k, stage.resolution),
      (context) => pictures.framed(context, ui.slotColour(k)),
    ),
  );
  const held = ui.readout("Pixels of each slot");
  const said = ui.announcer();
  const onwards = ui.element("a", {}, "chapter 3");

  const update = async (): Promise<void> => {
    onwards.href = new URL(`${CHAPTER}#lab=desk&${model.write()}`, window.slotlab!.base).href;
    const question = { slots, iterations, seed: 0, restarts: 1, spread: 1 };
    answer = (await remote.ask(table.drawn.image, question)) ?? answer;
    for (const each of [masks, ...parts]) each.redraw();
    const pixels = pictures.pixelsOwned(answer!.masks);
    held.show(pixels.join(" "));
    said.say(`${table.scene.things.length} pieces; the slots hold ${pixels.join(", ")} pixels.`);
  };

  const another = ui.button("Another scene", () => {
    model.set("things", UNTOUCHED);
    model.set("scene", (model.get("scene") + 1) % (LAST_SCENE + 1));
  });
  const sentence = ui.element(
    "p",
    { class: "landing-sentence" },
    "Four slots, never told what a piece is, divide the picture anew whenever you move one; ",
    onwards,
    " takes them apart.",
  );
  said.element.classList.add("lab-unseen"); // the readout says it, too
  el.append(
    ui.element("style", {}, STYLE),
    ui.element(
      "div",
      { class: "landing-panels" },
      ui.panel("Drag a piece", table.element),
      ui.panel("Whose each pixel is", masks.element),
      ui.panel(
        "What each slot paints",
        ui.element("div", { class: "landing-parts" }, ...parts.map(({ element }) => element)),
      ),
    ),
    sentence,
    ui.row(another, ui.reset(model), held.element),
    said.element,
    ui.code(model, () => code(stage, table.scene.things, slots)),
  );
  model.on(
    "change",
    ui.soon(() => update().catch((reason) => ui.trouble(el, reason))),
  );
  await update();
}

/** What computes the same in Python. */
function code({ written }: Stage, pieces: Thing[], slots: number): string {
  const names = Object.entries(written.colours).map(([name, parts]) => [parts.join(), name]);
  const colours = new Map(names as [string, string][]);
  const rows = pieces.map(({ shape, x, y, colour }) => `    (${shape}, ${x}, ${y}, "${colours.get(colour.join())}"),`);
  return `import torch
import slotlib
from slotlib.data.tetrominoes import BEVELS, COLOURS, LOOK, PIECES

image = torch.zeros(1, 3, ${written.resolution}, ${written.resolution})
for piece, x, y, colour in [
${rows.join("\n")}
]:
    for row, column in PIECES[piece] * 5:
        block = torch.tensor(COLOURS[colour])[:, None, None] * BEVELS[LOOK] / 255
        image[0, :, y + row : y + row + 5, x + column : x + column + 5] = block

out = slotlib.load("${MODEL}")(image, generator=torch.Generator().manual_seed(0))
owners = out.masks.argmax(1)
print("pixels of each slot", *[(owners == k).sum().item() for k in range(${slots})])`;
}

const STYLE = `
.landing-panels {
  display: grid;
  grid-template-columns: repeat(3, minmax(0, 1fr));
  gap: 0.8rem;
}
.landing-parts {
  display: grid;
  grid-template-columns: 1fr 1fr;
  gap: 0.4rem;
}
section[data-lab] .landing-sentence {
  margin: 0;
}
@media (max-width: 600px) {
  .landing-panels {
    grid-template-columns: 1fr 1fr;
  }
  .landing-panels > :last-child {
    grid-column: 1 / -1;
  }
  .landing-parts {
    grid-template-columns: repeat(4, 1fr);
  }
}
`;
