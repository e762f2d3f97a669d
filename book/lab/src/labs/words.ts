/** Keyboard of words (chapter 07): a scene as slots × blocks of codes, of which each can be exchanged. */
import type { Drawn, Question } from "../autoencoder.ts";
import * as pictures from "../pictures.ts";
import { latest, Remote } from "../remote.ts";
import { Stage } from "../scenes.ts";
import { range, text, type Model } from "../settings.ts";
import type { CodedAnswer, Codes, Word } from "../svq.ts";
import { SHEET, sheet } from "../sheet.ts";
import { agreement, exchanged, readCodes, writeCodes } from "../texts.ts";
import * as ui from "../ui.ts";

const MODEL = "svq_draft_shapes";
const FREE = -1; // no slot chosen: the largest object
const AS_READ = "";
const CALM = 150; // ms without a change until the drawing is read again, which takes a while

export const settings = {
  scene: range(0, 7, 2),
  start: range(0, 99, 0),
  restarts: range(1, 8, 4),
  slot: range(FREE, 31, FREE),
  block: range(0, 63, 0),
  /** What the scene says once the reader has changed it. */
  codes: text(AS_READ, (found) => /^[0-9a-z]*$/.test(found)),
};

type Words = Model<typeof settings>;

export async function render({ model, el }: { model: Words; el: HTMLElement }): Promise<void> {
  const remote = await Remote.load(MODEL);
  const stage = new Stage(remote.exported.stage!);
  const { attention } = remote.exported.model.init_args.autoencoder.init_args;
  const { num_slots: slots, num_iterations: iterations, quantizer } = attention;
  const { num_blocks: blocks, num_codes: size } = quantizer.init_args;

  let read: CodedAnswer;
  let first: Drawn; // of the codes as they were read
  let codes: Codes;
  let drawn: Drawn;
  let words: Word[] = [];
  let again: CodedAnswer | undefined; // what the drawing is read as

  // --- what is computed ---

  const sceneOf = (): Float32Array => stage.draw(stage.scenes[model.get("scene")]).image;
  const question = (): Question => ({
    slots,
    iterations,
    seed: model.get("start"),
    restarts: model.get("restarts"),
    spread: 1,
  });
  const slotOf = (): number => {
    const said = model.get("slot");
    if (said !== FREE) return Math.min(said, slots - 1);
    const owned = pictures.pixelsOwned(first.masks);
    const largestFirst = owned.map((_, k) => k).sort((a, b) => owned[b] - owned[a]);
    return largestFirst[Math.min(1, slots - 1)]; // but for the background
  };
  const blockOf = (): number => Math.min(model.get("block"), blocks - 1);
  const at = (slot = slotOf(), block = blockOf()): number => slot * blocks + block;
  const say = (changed: Codes): void => {
    model.set("codes", exchanged(read.codes, changed).length ? writeCodes(changed) : AS_READ);
  };
  const sayWord = (code: number): void => say(codes.map((said, i) => (i === at() ? code : said)));
  const swap = (other: number): void => {
    const changed = [...codes];
    [changed[at()], changed[at(other)]] = [codes[at(other)], codes[at()]];
    say(changed);
  };

  let asked = "";
  const update = latest(el, async (wait) => {
    const about = JSON.stringify([model.get("scene"), model.get("start"), model.get("restarts")]);
    if (about !== asked) {
      const found = (await wait(remote.ask(sceneOf(), question()))) as CodedAnswer;
      [asked, read] = [about, found];
      first = { image: found.reconstruction, masks: found.drawnMasks, slotImages: found.slotImages };
    }
    const said = readCodes(model.get("codes"), slots * blocks, size);
    const text = said ?? read.codes;
    drawn = said ? await wait(remote.call("decode", said)) : first;
    [codes, again] = [text, undefined];
    show();
    words = await wait(remote.call("words", text, slotOf(), blockOf()));
    showKeys();
    await wait(new Promise((next) => setTimeout(next, CALM, true)));
    again = (await wait(remote.ask(drawn.image, question()))) as CodedAnswer;
    showAgain();
    if (model.get("codes") && !said) {
      announce.say("The address holds no text of this model; the scene's own words are shown.");
    }
  });

  // --- pictures ---

  const scene = pictures.square("The scene", () => pictures.image(sceneOf(), stage.resolution));
  const said = pictures.square(
    "The scene as it is drawn from its words",
    () => drawn && pictures.image(drawn.image, stage.resolution),
  );
  const masks = pictures.square(
    "Which slot draws which pixel, in the slots' colours; a press chooses the slot",
    () => drawn && pictures.segmentation(drawn.masks, stage.resolution),
  );
  masks.element.addEventListener("click", (event) => {
    const { x, y } = ui.place(masks, event);
    const pixel = (at: number): number => Math.min(Math.floor((at / pictures.SIDE) * stage.resolution), stage.resolution - 1);
    if (drawn) model.set("slot", pictures.owners(drawn.masks)[pixel(y) * stage.resolution + pixel(x)]);
  });
  masks.element.style.cursor = "pointer";
  const back = pictures.square(
    "What the drawing is read as, drawn again",
    () => again && pictures.image(again.reconstruction, stage.resolution),
  );

  // --- the keyboard ---

  const tiles = Array.from({ length: slots * blocks }, (_, i) => {
    const [slot, block] = [Math.floor(i / blocks), i % blocks];
    const tile = ui.button("", () => {
      if (slot !== slotOf() || block !== blockOf()) return choose(slot, block);
      const present = words.findIndex((word) => word.codes.includes(codes[i]));
      sayWord(words[(present + 1) % words.length].codes[0]);
    });
    tile.className = "words-tile";
    return tile;
  });
  const choose = (slot: number, block: number): void => {
    model.set("slot", slot);
    model.set("block", block);
  };
  const slotPictures = Array.from({ length: slots }, (_, k) =>
    pictures.square(`What slot ${k} draws`, () => drawn && pictures.part(drawn, k, stage.resolution)),
  );
  const names = slotPictures.map((picture, k) => [picture.element, `slot ${k}`]);
  const { element: keyboard, lines } = sheet(names, tiles, "5.8rem");
  keyboard.addEventListener("keydown", (event) => {
    const ARROWS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const way = ARROWS[event.key as keyof typeof ARROWS];
    if (!way) return;
    const [down, across] = way;
    event.preventDefault();
    const [slot, block] = [(slotOf() + down + slots) % slots, (blockOf() + across + blocks) % blocks];
    choose(slot, block);
    tiles[at(slot, block)].focus();
  });

  // --- the words of one block ---

  const keys = Array.from({ length: size }, (_, i) => {
    const picture = pictures.square("what it draws", () => words[i] && pictures.image(words[i].image, stage.resolution));
    const name = ui.element("b");
    const change = ui.element("small");
    const key = ui.element("button", { type: "button", class: "words-key" }, picture.element, name, change);
    key.addEventListener("click", () => {
      if (words[i] && !words[i].codes.includes(codes[at()])) sayWord(words[i].codes[0]);
    });
    return { key, picture, name, change };
  });
  const choices = ui.element("div", { class: "words-keys", "data-lab-value": true }, ...keys.map(({ key }) => key));
  const swaps = Array.from({ length: slots }, (_, k) => ui.button(`slot ${k}`, () => swap(k)));
  const asRead = ui.button("As it was read", () => model.set("codes", AS_READ));
  const title = ui.element("figcaption", { "data-lab-value": true });

  // --- numbers ---

  const count = ui.readout("Words exchanged");
  const change = ui.readout("Picture changed by");
  const kept = ui.readout("Read back as said");
  const costs = ui.readout("Cost of each start");
  const announce = ui.announcer();
  // The lines tell of codes, which are known only after they were read.
  const codeLines = (): string => (read ? code(model, stage, read.codes, codes, blocks) : "");
  const shownCode = ui.code(model, codeLines);

  /** The scene as it is said now. */
  const show = (): void => {
    const changes = exchanged(read.codes, codes);
    const squares = drawn.image.reduce((sum, value, i) => sum + (value - first.image[i]) ** 2, 0);
    const owned = pictures.pixelsOwned(drawn.masks);
    for (const each of [scene, said, masks, ...slotPictures]) each.redraw();
    tiles.forEach((tile, i) => {
      const chosen = i === at();
      tile.classList.toggle("words-new", changes.includes(i));
      tile.tabIndex = chosen ? 0 : -1;
      tile.setAttribute("aria-pressed", String(chosen));
    });
    lines.forEach((line, k) => line.classList.toggle("words-empty", owned[k] === 0));
    swaps.forEach((button, k) => (button.disabled = codes[at(k)] === codes[at()]));
    asRead.disabled = !changes.length;
    count.show(String(changes.length));
    change.show(squares.toFixed(2));
    costs.show(read.costs.map((cost) => cost.toPrecision(4)).join(", "));
    shownCode.querySelector("code")!.textContent = codeLines();
    showAgain();
  };

  /** What the chosen key can say. */
  const showKeys = (): void => {
    title.textContent =
      `The words of block ${blockOf()}, said by slot ${slotOf()}. Under each: how much of the picture it changes. ` +
      "Codes with “=” are synonyms.";
    keys.forEach(({ key, picture, name, change }, i) => {
      key.hidden = i >= words.length;
      if (key.hidden) return;
      const present = String(words[i].codes.includes(codes[at()]));
      name.textContent = words[i].codes.join(" = ");
      change.textContent = words[i].change.toFixed(1);
      key.setAttribute("aria-pressed", present);
      key.setAttribute("aria-disabled", present);
      const synonyms = words[i].codes.join(", or its synonym ");
      key.setAttribute("aria-description", `code ${synonyms}; changes the picture by ${change.textContent}`);
      picture.redraw();
    });
  };

  /** What the drawing is read as; nothing as long as that is not known. */
  const showAgain = (): void => {
    const heard = again && agreement(drawn.masks, again.drawnMasks, codes, again.codes);
    back.redraw();
    tiles.forEach((tile, i) => {
      const other = heard?.[i] === codes[i] ? undefined : heard?.[i];
      const told = other === undefined ? "" : `, read back as ${other}`;
      const label = `slot ${Math.floor(i / blocks)}, block ${i % blocks}: ${codes[i]}${told}`;
      if (tile.getAttribute("aria-label") === label) return; // there are many tiles, and few change
      tile.setAttribute("aria-label", label);
      tile.style.setProperty("--hue", String((360 * codes[i]) / size));
      tile.textContent = String(codes[i]);
      tile.dataset.again = other === undefined ? "" : String(other); // drawn by the style: its name says it in words
    });
    if (!heard) return kept.show("…");
    const compared = heard.filter((code) => code !== undefined).length;
    const same = `${heard.filter((code, i) => code === codes[i]).length} of ${compared}`;
    kept.show(same);
    const changes = exchanged(read.codes, codes).length;
    const says = `Slot ${slotOf()}, block ${blockOf()} says ${codes[at()]}.`;
    announce.say(`${says} ${changes} ${changes === 1 ? "word" : "words"} exchanged; ${same} are read back as said.`);
  };

  // --- the page ---

  for (const name of ["scene", "start", "restarts"]) {
    model.on(`change:${name}`, () => {
      model.set("codes", AS_READ);
      model.set("slot", FREE);
    });
  }
  el.append(
    ui.element("style", {}, SHEET + STYLE),
    ui.row(
      ui.slider(model, "scene", "Scene"),
      ui.slider(model, "start", "Start"),
      ui.slider(model, "restarts", "Restarts"),
      asRead,
      ui.reset(model),
    ),
    ui.element(
      "div",
      { class: "lab-panels" },
      ui.panel("Scene", scene.element),
      ui.panel("Drawn from its words", said.element),
      ui.panel("Which slot draws what: press one", masks.element),
      ui.panel("The drawing, read and drawn again", back.element),
    ),
    ui.row(count.element, change.element, kept.element, costs.element),
    ui.panel(
      "A line for each slot, a key for each block. Press a key to choose it, again for its next word. " +
        "Small: what the drawing is read back as, where that is another word.",
      keyboard,
    ),
    ui.element("figure", { class: "lab-panel" }, title, choices),
    ui.row(ui.element("span", {}, "Swap this word with"), ...swaps),
    announce.element,
    shownCode,
  );
  model.on("change", ui.soon(() => void update().catch((reason) => ui.trouble(el, reason))));
  await update();
}

/** What computes the same in Python. */
function code(model: Words, stage: Stage, read: Codes, codes: Codes, blocks: number): string {
  const { scene, start, restarts } = model.all();
  const place = (i: number): string => `codes[0, ${Math.floor(i / blocks)}, ${i % blocks}]`;
  const changes = exchanged(read, codes).map((i) => `${place(i)} = ${codes[i]}\n`);
  return `import torch
import slotlib
from slotlib import metrics, svq

model = slotlib.load("${MODEL}").autoencoder
images = ${stage.inPython(scene)}["image"]


@torch.no_grad()
def read(images):
    return model(images, restarts=${restarts}, generator=torch.Generator().manual_seed(${start}))


first = read(images).codes
codes = first.clone()
${changes.join("")}drawn = model.decode(codes)
again = read(drawn.image)

# Each slot's words, beside those of the slot that the drawing shows in its place.
overlap = metrics.intersection_over_union(drawn.masks.argmax(1), again.drawn_masks.argmax(1))[0]
owners = svq.pixels_owned(drawn.masks)[0].nonzero().flatten()
same = codes[0, owners] == again.codes[0, overlap[owners].argmax(1)]
print("Words exchanged", int((codes != first).sum()))
print("Picture changed by", f"{(drawn.image - model.decode(first).image).square().sum():.2f}")
print("Read back as said", int(same.sum()), "of", same.numel())`;
}

const STYLE = `
section[data-lab] .sheet-slot canvas {
  width: 2rem;
}
section[data-lab] .words-tile {
  position: relative;
  min-height: 2rem;
  padding: 0;
  border-color: transparent;
  background: color-mix(in srgb, hsl(var(--hue) 70% 50%) 28%, var(--lab-ground));
  font-variant-numeric: tabular-nums;
}
section[data-lab] .words-tile::after {
  content: attr(data-again);
  position: absolute;
  right: 2px;
  bottom: 0;
  font-size: 0.65em;
}
section[data-lab] .words-tile.words-new {
  font-weight: 700;
  text-decoration: underline;
}
section[data-lab] .words-tile[aria-pressed="true"] {
  border-color: var(--lab-text);
  box-shadow: inset 0 0 0 1px var(--lab-text);
}
section[data-lab] .words-empty .words-tile {
  background: none;
  color: var(--lab-muted);
}
.words-keys {
  margin-top: 0.3rem;
  display: grid;
  grid-template-columns: repeat(auto-fill, minmax(4.6rem, 1fr));
  gap: 0.4rem;
}
section[data-lab] .words-key {
  display: grid;
  gap: 0.1rem;
  justify-items: center;
  padding: 0.25rem;
}
section[data-lab] .words-key[hidden] {
  display: none;
}
.words-key canvas {
  width: 100%;
}
.words-key small {
  color: var(--lab-muted);
  font-variant-numeric: tabular-nums;
}
@media (max-width: 600px) {
  section[data-lab] .sheet-slot canvas {
    width: 1.4rem;
  }
}
`;
