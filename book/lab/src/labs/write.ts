/** Write a scene (chapter 08): what the prior expects next, what it dreams, and where a scene surprises it. */
import * as pictures from "../pictures.ts";
import type { Drawing, Reading } from "../prior.ts";
import { latest, Remote } from "../remote.ts";
import { Stage } from "../scenes.ts";
import { choice, range, text, type Model } from "../settings.ts";
import { SHEET, sheet } from "../sheet.ts";
import type { CodedAnswer, Codes } from "../svq.ts";
import { FROM_PNG, PNG_IMPORTS, Table, things, UNTOUCHED } from "../table.ts";
import { readCodes, writeCodes } from "../texts.ts";
import * as ui from "../ui.ts";

const MODEL = "svq_draft_shapes";
const RESTARTS = 4; // of the reading of a scene
const PACE = 120; // ms from token to token
const STARTLED = 6; // nats: a token of this surprise has the full colour
const LONGEST = 512;
const MOST_THINGS = 8;

export const settings = {
  source: choice(
    { ground: "a dream on the scene's ground", dream: "a dream from nothing", scene: "the scene, read" },
    "ground",
  ),
  scene: range(0, 7, 3),
  seed: range(0, 99, 0),
  temperature: range(0.1, 2, 1, 0.1),
  nucleus: range(0.05, 1, 1, 0.05),
  /** How much of the text is written. */
  tokens: range(0, LONGEST, 52),
  /** What the reader wrote; the rest is drawn. */
  begun: text("", (found) => /^[0-9a-z]*$/.test(found)),
  things: things(),
};

type Write = Model<typeof settings>;

export async function render({ model, el }: { model: Write; el: HTMLElement }): Promise<void> {
  const remote = await Remote.load(MODEL);
  const stage = new Stage(remote.exported.stage!);
  const { attention } = remote.exported.model.init_args.autoencoder.init_args;
  const { num_slots: slots, num_iterations: iterations, quantizer } = attention;
  const { num_blocks: blocks, num_codes: size } = quantizer.init_args;
  const length: number = slots * blocks;

  let whole: Codes = []; // the text, as if all of it were written
  let reading: Reading;

  // --- what is computed ---

  const tokensOf = (): number => Math.min(model.get("tokens"), length);
  const ownWords = (): Codes => {
    const said = model.get("begun");
    return said.length <= length ? (readCodes(said, said.length, size) ?? []) : [];
  };
  const drawing = (): Drawing => ({
    temperature: model.get("temperature"),
    topP: model.get("nucleus"),
    seed: model.get("seed"),
  });
  const table: Table = new Table({
    stage: () => stage,
    own: () => stage.scenes[model.get("scene")],
    said: () => model.get("things"),
    say: (said) => {
      model.set("things", said);
      readTheScene();
    },
  });
  const readTheScene = (): void => {
    model.set("source", "scene");
    model.set("begun", "");
    model.set("tokens", length);
  };

  let [askedScene, asked] = ["", ""];
  let [sceneText, dreamt]: Codes[] = [[], []]; // with the largest slot first, which is the background
  const update = latest(el, async (wait) => {
    table.update();
    const { source, scene, seed, temperature, nucleus, begun, things } = model.all();
    const aboutScene = JSON.stringify([scene, things, seed]);
    if (aboutScene !== askedScene && (source === "scene" || (source === "ground" && !begun))) {
      const question = { slots, iterations, seed, restarts: RESTARTS, spread: 1 };
      const found = await wait(remote.ask(table.drawn.image, question));
      sceneText = await wait(remote.call("textOf", (found as CodedAnswer).codes));
      askedScene = aboutScene;
    }
    if (source === "scene") whole = sceneText;
    else {
      const given = begun ? ownWords() : source === "ground" ? sceneText.slice(0, blocks) : [];
      const about = JSON.stringify([given, seed, temperature, nucleus]);
      if (about !== asked) {
        dreamt = await wait(remote.call("sample", given, drawing()));
        asked = about;
      }
      whole = dreamt;
    }
    reading = await wait(remote.call("read", whole.slice(0, tokensOf()), drawing()));
    show();
    if (begun && !ownWords().length) said.say("The address holds no text of this model; all of it is a dream.");
  });

  // --- the text ---

  const picture = ui.drawing(pictures.SIDE, pictures.SIDE, "What the text says", (context) => {
    const found = reading?.drawn;
    if (found) context.drawImage(pictures.image(found.image, stage.resolution), 0, 0, pictures.SIDE, pictures.SIDE);
    else {
      context.fillStyle = ui.themed(el, "ground");
      context.fillRect(0, 0, pictures.SIDE, pictures.SIDE);
    }
  });
  const owners = pictures.square(
    "Which slot draws which pixel, in the slots' colours",
    () => reading?.drawn && pictures.segmentation(reading.drawn.masks, stage.resolution),
  );
  const tiles = Array.from({ length }, (_, i) => {
    const tile = ui.element("span", { class: "write-tile" });
    tile.addEventListener("click", () => model.set("tokens", i + 1));
    return tile;
  });
  const notes = Array.from({ length: slots }, () => ui.element("small"));
  const page = sheet(notes.map((note, k) => [`slot ${k}`, note]), tiles, "8.5rem").element;

  // --- the next token ---

  const title = ui.element("figcaption", { "data-lab-value": true });
  const bars = Array.from({ length: size }, (_, code) => {
    const name = ui.element("b", {}, String(code));
    const share = ui.element("span", { "data-lab-value": true });
    const bar = ui.element("button", { type: "button", class: "write-bar" }, name, share);
    bar.addEventListener("click", () => {
      const written = [...whole.slice(0, tokensOf()), code];
      if (model.get("source") === "scene") model.set("source", "dream");
      model.set("begun", writeCodes(written));
      model.set("tokens", written.length);
    });
    return { bar, share };
  });

  const choices = ui.element("div", { class: "write-bars" }, ...bars.map(({ bar }) => bar));

  // --- numbers ---

  const count = ui.readout("Tokens");
  const total = ui.readout("Surprise, in nats");
  const last = ui.readout("Last token");
  const most = ui.readout("Most surprising");
  const end = ui.readout("p(end) after the last whole slot");
  const said = ui.announcer();
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

  const show = (): void => {
    const { surprise, next, ends } = reading;
    const tokens = surprise.length;
    const sum = (from: number, to = tokens): number => surprise.slice(from, to).reduce((all, each) => all + each, 0);
    const begun = model.get("source") === "scene" ? 0 : ownWords().length;
    picture.redraw();
    owners.redraw();
    tiles.forEach((tile, i) => {
      tile.textContent = i < tokens ? String(whole[i]) : "·";
      tile.classList.toggle("write-own", i < Math.min(begun, tokens));
      tile.classList.toggle("write-next", i === tokens);
      tile.style.setProperty("--surprise", `${i < tokens ? Math.min(75, (75 * surprise[i]) / STARTLED) : 0}%`);
      tile.title = i < tokens ? `block ${i % blocks}: ${surprise[i].toFixed(2)} nats` : "";
    });
    notes.forEach((note, k) => {
      const cost = k * blocks < tokens ? `${sum(k * blocks, (k + 1) * blocks).toFixed(1)} nats` : "";
      note.textContent = ends[k] === undefined ? cost : `${cost}, end ${(100 * ends[k]).toFixed(0)} %`;
    });
    const [slot, block] = [Math.floor(tokens / blocks), tokens % blocks];
    title.textContent = next
      ? `Next comes block ${block} of slot ${slot}. Bars: how probable each code is to be drawn. Press one to write it.`
      : "The scene is written to its end.";
    bars.forEach(({ bar, share }, code) => {
      bar.hidden = !next;
      if (!next) return void (share.textContent = "");
      bar.style.setProperty("--share", String(next[code]));
      bar.classList.toggle("write-never", next[code] === 0);
      share.textContent = percent(next[code]);
    });
    const worst = surprise.indexOf(Math.max(...surprise));
    const place = `slot ${Math.floor(worst / blocks)}, block ${worst % blocks}`;
    const where = tokens ? `${place}: ${surprise[worst].toFixed(2)}` : "–";
    count.show(`${tokens} of ${length}`);
    total.show(sum(0).toFixed(2));
    last.show(tokens ? surprise[tokens - 1].toFixed(2) : "–");
    most.show(where);
    const ending = slot ? ends[slot - 1] : undefined;
    end.show(ending === undefined ? "–" : ending.toFixed(3));
    const things = table.scene.things.length;
    colour.disabled = remove.disabled = things === 0;
    copy.disabled = things === 0 || things >= MOST_THINGS;
    oneToken.disabled = oneSlot.disabled = dream.disabled = tokens >= length;
    back.disabled = tokens === 0;
    forget.disabled = !model.get("begun");
    said.say(`${tokens} of ${length} tokens, ${sum(0).toFixed(1)} nats. ${tokens ? `Most surprising: ${where}.` : ""}`);
  };

  // --- writing ---

  const to = (tokens: number): void => model.set("tokens", Math.max(0, Math.min(tokens, length)));
  const oneToken = ui.button("One token", () => to(tokensOf() + 1));
  const oneSlot = ui.button("One slot", () => to((Math.floor(tokensOf() / blocks) + 1) * blocks));
  const back = ui.button("Back", () => to(tokensOf() - 1));
  const dreamOn = (): boolean => {
    to(tokensOf() + 1);
    return tokensOf() < length;
  };
  const dream = ui.player("Dream on", PACE, dreamOn, () => to(length));
  const forget = ui.button("Forget my words", () => model.set("begun", ""));

  const colour = ui.button("Another colour", () => {
    const thing = table.scene.things[table.chosen];
    const colours = Object.values(stage.written.colours);
    const now = colours.findIndex((parts) => parts.join() === thing.colour.join());
    table.replace(table.chosen, { ...thing, colour: colours[(now + 1) % colours.length] as [number, number, number] });
  });
  const copy = ui.button("Copy it", () => {
    const thing = table.scene.things[table.chosen];
    const aside = (thing.x < stage.resolution / 2 ? 1 : -1) * (stage.resolution / 4);
    table.change([...table.scene.things, stage.placed(thing, thing.x + aside, thing.y)]);
  });
  const remove = ui.button("Remove it", () => table.remove());

  // --- the page ---

  const source = ui.menu(model, "source", "Text");
  source.addEventListener("change", () => {
    if (model.get("source") === "scene") readTheScene();
  });
  const scene = ui.slider(model, "scene", "Scene");
  scene.addEventListener("input", () => {
    model.set("things", UNTOUCHED);
    if (model.get("source") === "dream") readTheScene();
  });
  const shownCode = ui.code(model, () => code(model, stage, ownWords(), [slots, blocks, tokensOf()]));

  el.append(
    ui.element("style", {}, SHEET + STYLE),
    ui.row(
      source,
      ui.slider(model, "seed", "Seed"),
      ui.slider(model, "temperature", "Temperature", (value) => value.toFixed(1)),
      ui.slider(model, "nucleus", "Top-p", (value) => value.toFixed(2)),
      ui.reset(model),
    ),
    ui.row(ui.slider(model, "tokens", "Tokens", String, () => length), oneToken, oneSlot, back, dream, forget),
    ui.element(
      "div",
      { class: "lab-panels" },
      ui.panel("What the text says; a slot that is only begun, finished as is likeliest", picture.element),
      ui.panel("Which slot draws what", owners.element),
      ui.panel("A scene to be read: drag what is in it", table.element),
    ),
    ui.row(scene, colour, copy, remove, table.save),
    ui.row(count.element, total.element, last.element, most.element, end.element),
    ui.panel(
      "The text, a line for each slot. The redder a token, the more it surprised the prior. Beside it: what the slot " +
        "cost, and how probable the prior thought it that the scene ends there. Underlined: your own words.",
      page,
    ),
    ui.element("figure", { class: "lab-panel" }, title, choices),
    said.element,
    shownCode,
  );
  model.on("change", ui.soon(() => void update().catch((reason) => ui.trouble(el, reason))));
  await update();
}

/** What computes the same in Python. */
function code(model: Write, stage: Stage, begun: Codes, [slots, blocks, tokens]: number[]): string {
  const { source, scene, seed, temperature, nucleus, things } = model.all();
  const drawn = `temperature=${temperature}, top_p=${nucleus}`;
  const generator = `torch.Generator().manual_seed(${seed})`;
  const own = things === UNTOUCHED;
  const image = own ? `images = ${stage.inPython(scene)}["image"]` : FROM_PNG;
  const read = `${image}
read = writer.autoencoder.tokenise(images, slotlib.Draws(${generator}), restarts=${RESTARTS})
owned = pixels_owned(writer.decode(read).masks)[0]
text = writer.with_blanks(read)[:, owned.argsort(descending=True, stable=True)]  # the largest slot first`;
  const dreamt = begun.length
    ? `begun = [${begun.join(", ")}]
text = torch.zeros(1, ${slots * blocks}, dtype=torch.int64)
text[0, : len(begun)] = torch.tensor(begun)
generator = ${generator}
for i in range(len(begun), ${slots * blocks}):
    with torch.no_grad():
        logits = writer.prior.logits(text.view(1, ${slots}, ${blocks})).flatten(1, 2)[:, i]
    text[:, i] = nucleus_sample(logits, ${drawn}, generator=generator)
text = text.view(1, ${slots}, ${blocks})`
    : source === "ground"
      ? `${read}
text = writer.prior.sample(1, given=text[:, :1], ${drawn}, generator=${generator})`
      : `text = writer.sample(1, ${drawn}, generator=${generator})`;
  const [slot, block] = [Math.floor(tokens / blocks), tokens % blocks];
  const reads = source === "scene" || (source === "ground" && !begun.length);
  const imports = [
    "import torch",
    ...(reads && !own ? [PNG_IMPORTS] : []),
    "import slotlib",
    ...(reads ? ["from slotlib.svq import pixels_owned"] : []),
    ...(!reads && begun.length ? ["from slotlib.prior import nucleus_sample"] : []),
  ];
  const next =
    slot < slots
      ? `

share, order = (logits[0, ${slot}, ${block}] / ${temperature}).softmax(-1).sort(descending=True)
share = share.where(share.cumsum(-1) - share < ${nucleus}, 0)[order.argsort()]
print("Next token", *[f"{100 * each:.1f}" for each in share / share.sum()])`
      : "";
  const written = tokens ? `\nprint("Text", *text.flatten()[:${tokens}].tolist())` : "";
  const ending =
    slot && slot < slots
      ? `

ended = text.clone()
ended[0, ${slot}] = writer.blank
blank = writer.prior.logits(ended)[0, ${slot}].log_softmax(-1).gather(-1, writer.blank[:, None])
print("p(end) after the last whole slot", f"{blank.sum().exp():.3f}")`
      : "";
  return `${imports.join("\n")}

writer = slotlib.load("${MODEL}")
${source === "scene" ? read : dreamt}
logits = writer.prior.logits(text)
surprise = -logits.log_softmax(-1).gather(-1, text.unsqueeze(-1)).flatten()[:${tokens}]
print("Surprise, in nats", f"{surprise.sum():.2f}")${written}${next}${ending}`;
}

const STYLE = `
section[data-lab] .sheet-slot small {
  flex-basis: 100%;
  min-height: 1.3em;
  color: var(--lab-muted);
  font-variant-numeric: tabular-nums;
}
.write-tile {
  padding: 0.2rem 0;
  border-bottom: 2px solid transparent;
  border-radius: 0.2rem;
  background: color-mix(in srgb, #d55e00 var(--surprise), var(--lab-ground));
  text-align: center;
  font-variant-numeric: tabular-nums;
  cursor: pointer;
}
.write-own {
  text-decoration: underline;
}
.write-next {
  border-color: var(--lab-accent);
}
.write-bars {
  display: grid;
  grid-template-columns: repeat(auto-fill, minmax(6.4rem, 1fr));
  gap: 0.3rem;
  margin-top: 0.3rem;
}
section[data-lab] .write-bar {
  display: flex;
  justify-content: space-between;
  background: linear-gradient(
    to right,
    color-mix(in srgb, var(--lab-accent) 40%, transparent) calc(100% * var(--share)),
    transparent 0
  );
  font-variant-numeric: tabular-nums;
}
section[data-lab] .write-bar[hidden] {
  display: none;
}
.write-never {
  color: var(--lab-muted);
  text-decoration: line-through;
}
`;
