/** A scene on a table: a picture whose things the reader drags, and what stands there as a setting. */
import * as pictures from "./pictures.ts";
import { SIDE } from "./pictures.ts";
import { read, write, type Drawn, type Rgb, type Scene, type Stage, type Thing } from "./scenes.ts";
import { text } from "./settings.ts";
import * as ui from "./ui.ts";

export const UNTOUCHED = "";
const EMPTY = "none";

/** The setting: the things of the scene once the reader has changed them, see scenes.ts. */
export const things = () =>
  text(UNTOUCHED, (found) => found === UNTOUCHED || found === EMPTY || /^[-\d._~]+$/.test(found));

/** What reads in Python the picture that `save` saved, and what that needs. */
export const FROM_PNG = `pixels = np.array(Image.open("scene.png").convert("RGB"))  # saved from the page
images = torch.tensor(pixels).permute(2, 0, 1)[None] / 255`;
export const PNG_IMPORTS = "import numpy as np\nfrom PIL import Image";

/** The button that saves an image of so many pixels a side, for `FROM_PNG` to read. */
export function saver(image: () => Float32Array, side: () => number): HTMLButtonElement {
  const save = ui.button("Save as PNG", () => {
    const href = pictures.image(image(), side()).toDataURL();
    ui.element("a", { href, download: "scene.png" }).click();
  });
  save.dataset.labAside = "";
  return save;
}

/** What a lab tells its table. */
export interface Place {
  stage(): Stage;
  /** The scene as long as nobody has changed it. */
  own(): Scene;
  /** The setting above. */
  said(): string;
  say(things: string): void;
}

export class Table {
  scene!: Scene;
  drawn!: Drawn;
  /** Number of the thing that was pressed last. */
  chosen = 0;
  readonly element: HTMLElement;
  /** The button that saves the scene as a picture. */
  readonly save = saver(() => this.drawn.image, () => this.#place.stage().resolution);
  #touched = false;
  readonly #place: Place;
  readonly #show: () => void;
  #showTools = (): void => {};

  constructor(place: Place) {
    this.#place = place;
    this.#look();
    const unit = (): number => this.#unit;
    const picture = ui.drawing(SIDE, SIDE, "The scene. Things in it can be dragged.", (context) =>
      this.#paint(context),
    );
    const handles = ui.draggable(picture, {
      points: () =>
        this.scene.things
          .map((thing) => this.#middle(thing))
          .map(([x, y]) => ({ x: x * this.#unit, y: y * this.#unit })),
      label: (k) => `${place.stage().written.shapes[this.scene.things[k].shape]}, number ${k + 1}; T turns it`,
      move: (k, to) => this.#move(k, to),
      reach: 0,
      get step() {
        return unit();
      },
      hit: ({ x, y }) => this.#under(x / this.#unit, y / this.#unit),
      key: (k, key) => {
        if (key.toLowerCase() !== "t") return false;
        this.turn(k);
        return true;
      },
      chosen: (k) => {
        this.chosen = k;
        this.#showTools();
        picture.redraw();
      },
    });
    this.element = handles.element;
    this.#show = () => {
      handles.update();
      this.#showTools();
      picture.redraw();
    };
  }

  /** Look again at what the settings say. */
  update(): void {
    this.#look();
    this.#show();
  }

  change(things: Thing[]): void {
    this.#place.say(things.length ? write(things) : EMPTY);
  }

  replace(k: number, thing: Thing): void {
    this.change(this.scene.things.map((old, i) => (i === k ? thing : old)));
  }

  /** Without the thing that was pressed last. */
  remove(): void {
    this.change(this.scene.things.filter((_, k) => k !== this.chosen));
  }

  turn(k: number): void {
    this.replace(k, this.#place.stage().turned(this.scene.things[k]));
  }

  /** What turns, colours and removes the thing that was pressed last, adds another up to `most`, and saves the picture. */
  tools(most: number): HTMLElement {
    const stage = (): Stage => this.#place.stage();
    const turn = ui.button("Turn", () => this.turn(this.chosen));
    const colour = ui.element("select");
    colour.addEventListener("change", () => {
      const parts = stage().written.colours[colour.value];
      if (parts) this.replace(this.chosen, { ...this.scene.things[this.chosen], colour: parts as Rgb });
    });
    const add = ui.button("Add", () => {
      const { things } = this.scene;
      const { shapes, sizes, colours } = stage().written;
      const own = Object.values(colours) as Rgb[];
      const shape = (things.length * 5 + 3) % shapes.length;
      const size = sizes[Math.floor(sizes.length / 2)];
      const thing: Thing = { shape, x: 0, y: 0, angle: 0, size, colour: own[things.length % own.length] };
      this.chosen = things.length;
      this.change([...things, stage().placed(thing, stage().resolution * 0.4, stage().resolution * 0.4)]);
    });
    const remove = ui.button("Remove", () => this.change(this.scene.things.filter((_, k) => k !== this.chosen)));
    this.#showTools = () => {
      const thing = this.scene.things[this.chosen];
      const known = Object.entries(stage().written.colours);
      const own = known.find(([, parts]) => parts.join() === thing?.colour.join())?.[0] ?? "";
      const names = [...(own ? [] : [""]), ...known.map(([name]) => name)];
      colour.replaceChildren(...names.map((name) => ui.element("option", { value: name }, name || "its own")));
      colour.value = own;
      for (const control of [colour, turn, remove]) control.disabled = !thing;
      add.disabled = this.scene.things.length >= most;
    };
    this.#showTools();
    const named = ui.element("label", { class: "lab-control" }, ui.element("span", {}, "Colour"), colour);
    return ui.row(turn, named, add, remove, this.save);
  }

  #look(): void {
    const [own, said, stage] = [this.#place.own(), this.#place.said(), this.#place.stage()];
    const things = said === UNTOUCHED ? undefined : read(said === EMPTY ? "" : said, stage);
    this.scene = { ground: own.ground, things: things ?? own.things };
    this.drawn = stage.draw(this.scene);
    if (this.#touched && said === UNTOUCHED) this.chosen = 0; // as at the start
    this.#touched = said !== UNTOUCHED;
    this.chosen = Math.min(this.chosen, Math.max(0, this.scene.things.length - 1));
  }

  get #unit(): number {
    return SIDE / this.#place.stage().resolution;
  }

  #middle(thing: Thing): [number, number] {
    const [width, height] = this.#place.stage().extent(thing);
    return [thing.x + width / 2, thing.y + height / 2];
  }

  #move(k: number, to: ui.Point): void {
    const [thing, stage] = [this.scene.things[k], this.#place.stage()];
    const [width, height] = stage.extent(thing);
    const placed = stage.placed(thing, to.x / this.#unit - width / 2, to.y / this.#unit - height / 2);
    if (placed.x !== thing.x || placed.y !== thing.y) this.replace(k, placed);
  }

  /** The thing under a place; a finger may miss its middle a little. */
  #under(x: number, y: number): number | undefined {
    const stage = this.#place.stage();
    const far = this.scene.things
      .map((thing) => this.#middle(thing))
      .map((place) => Math.hypot(place[0] - x, place[1] - y));
    const [least, near] = [Math.min(...far), stage.resolution / 10];
    return stage.at(this.drawn, x, y) ?? (least <= near ? far.indexOf(least) : undefined);
  }

  #paint(context: CanvasRenderingContext2D): void {
    const stage = this.#place.stage();
    context.drawImage(pictures.image(this.drawn.image, stage.resolution), 0, 0, SIDE, SIDE);
    const thing = this.scene.things[this.chosen];
    if (!thing) return;
    const [x, y] = this.#middle(thing).map((place) => place * this.#unit);
    context.strokeStyle = "white";
    context.setLineDash([2, 2]);
    context.lineWidth = 0.8;
    const [width, height] = stage.extent(thing).map((length) => (length ? length * this.#unit : 24));
    context.strokeRect(x - width / 2, y - height / 2, width, height);
  }
}
