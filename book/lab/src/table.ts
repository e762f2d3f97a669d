/** A scene on a table: a picture whose things the reader drags, and what stands there as a setting. */
import * as pictures from "./pictures.ts";
import { read, write, type Drawn, type Scene, type Stage, type Thing } from "./scenes.ts";
import { text } from "./settings.ts";
import * as ui from "./ui.ts";

export const SIDE = 100; // of the picture, in the units of its drawing
export const UNTOUCHED = "";
const EMPTY = "none";

/** The setting: the things of the scene once the reader has changed them, see scenes.ts. */
export const things = () =>
  text(UNTOUCHED, (found) => found === UNTOUCHED || found === EMPTY || /^[-\d._~]+$/.test(found));

/** What reads in Python the picture that `save` saved, and what that needs. */
export const FROM_PNG = `pixels = np.array(Image.open("scene.png").convert("RGB"))  # saved from the page
images = torch.tensor(pixels).permute(2, 0, 1)[None] / 255`;
export const PNG_IMPORTS = "import numpy as np\nfrom PIL import Image";

/** What a lab tells its table. */
export interface Place {
  stage(): Stage;
  /** The scene as long as nobody has changed it. */
  own(): Scene;
  /** The setting above. */
  said(): string;
  say(things: string): void;
  /** A thing was pressed or got the focus. */
  chosen?(): void;
}

export class Table {
  scene!: Scene;
  drawn!: Drawn;
  /** Number of the thing that was pressed last. */
  chosen = 0;
  readonly element: HTMLElement;
  /** The button that saves the scene as a picture. */
  readonly save = ui.button("Save as PNG", () => {
    const href = pictures.image(this.drawn.image, this.#place.stage().resolution).toDataURL();
    ui.element("a", { href, download: "scene.png" }).click();
  });
  readonly #place: Place;
  readonly #show: () => void;

  constructor(place: Place) {
    this.#place = place;
    this.save.dataset.labAside = "";
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
        place.chosen?.();
        picture.redraw();
      },
    });
    this.element = handles.element;
    this.#show = () => {
      handles.update();
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

  #look(): void {
    const [own, said, stage] = [this.#place.own(), this.#place.said(), this.#place.stage()];
    const things = said === UNTOUCHED ? undefined : read(said === EMPTY ? "" : said, stage);
    this.scene = { ground: own.ground, things: things ?? own.things };
    this.drawn = stage.draw(this.scene);
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
