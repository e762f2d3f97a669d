/**
 * A brush over a square of pixels: pointer, finger or keys put labels there. What is painted is a setting, and so part of
 * a page's address: letters, and of how many pixels each is the label, row by row.
 */
import { text } from "./settings.ts";
import * as ui from "./ui.ts";

export const OPEN = 0xff; // a pixel that was not painted
const LETTERS = "abcdefghijklmnopqrstuvwxy"; // z is OPEN

/** The setting: so many labels at most, on so many pixels at most. */
export const painting = (labels: number, pixels: number) =>
  text("", (found) => {
    if (!new RegExp(`^([a-${LETTERS[labels - 1]}z]\\d{1,4})*$`).test(found)) return false;
    return [...found.matchAll(/\d+/g)].reduce((sum, [count]) => sum + Number(count), 0) <= pixels;
  });

/** Runs such as "z455c3z61"; empty if nothing is painted. */
export function encode(painted: Uint8Array): string {
  return painted.every((label) => label === OPEN) ? "" : runs(painted);
}

/** The same, whatever is painted. */
export function runs(painted: Uint8Array): string {
  const letters = Array.from(painted, letterOf).join("");
  return letters.replace(/(.)\1*/g, (run) => run[0] + run.length);
}

export function letterOf(label: number): string {
  return LETTERS[label] ?? "z";
}

/** What `encode` wrote of so many pixels. */
export function decode(found: string, pixels: number): Uint8Array {
  const painted = new Uint8Array(pixels).fill(OPEN);
  let at = 0;
  for (const [, letter, count] of found.matchAll(/([a-z])(\d+)/g)) {
    if (letter !== "z") painted.fill(LETTERS.indexOf(letter), at, at + Number(count));
    at += Number(count);
  }
  return painted;
}

/** What a lab tells its brush. */
export interface Sheet {
  /** In pixels. */
  side(): number;
  /** That the brush puts. */
  label(): number;
  /** Of the brush, in pixels. */
  width(): number;
  /** The setting above. */
  painted(): string;
  paint(painted: string): void;
}

export class Brush {
  /** The drawing, and the brush over it. */
  readonly element: HTMLElement;
  readonly undo = ui.button("Undo", () => this.#back());
  readonly #on: ui.Drawing & { redraw(): void };
  readonly #sheet: Sheet;
  readonly #at: ui.Point;
  readonly #past: { side: number; painted: string }[] = [];
  readonly #handles: ReturnType<typeof ui.draggable>;
  #inking = false; // the pointer is down, or a key paints along

  constructor(on: ui.Drawing & { redraw(): void }, sheet: Sheet) {
    [this.#on, this.#sheet] = [on, sheet];
    this.#at = { x: on.width / 2, y: on.height / 2 };
    const grain = (): number => this.#grain;
    this.#handles = ui.draggable(on, {
      points: () => [this.#at],
      label: () => `Brush at ${this.#pixel().join(", ")}; Space paints here, Enter paints along the way`,
      move: (_, to) => this.#move(to),
      reach: 0,
      get step() {
        return grain();
      },
      hit: (to) => {
        Object.assign(this.#at, to); // the brush is where the pointer is
        on.redraw();
        return 0;
      },
      key: (_, key) => {
        if (key === "Enter") this.#inking = !this.#inking;
        if (key !== " " && !(key === "Enter" && this.#inking)) return key === "Enter";
        this.#begin();
        return true;
      },
    });
    this.element = this.#handles.element;
    on.element.style.touchAction = "none";
    on.element.addEventListener("pointerdown", () => {
      this.#inking = true;
      this.#begin();
    });
    for (const end of ["pointerup", "pointercancel"]) on.element.addEventListener(end, () => (this.#inking = false));
    this.element.addEventListener("focusout", () => (this.#inking = false));
    this.update();
  }

  /** After any change of the settings. */
  update(): void {
    this.undo.disabled = this.#earlier() < 0;
    this.#handles.update();
    this.#on.redraw();
  }

  /** Undo will lead back to what is painted now. */
  remember(): void {
    this.#past.push({ side: this.#sheet.side(), painted: this.#sheet.painted() });
  }

  /** Draw the brush as a ring of its colour, which stands out from what it lies on by a rim. */
  ring(context: CanvasRenderingContext2D, colour: string, rim: string): void {
    const line = this.#on.width / 170;
    context.beginPath();
    context.arc(this.#at.x, this.#at.y, (this.#sheet.width() * this.#grain) / 2, 0, 2 * Math.PI);
    for (const [width, style] of [[2 * line, rim], [line, colour]] as const) {
      context.lineWidth = width;
      context.strokeStyle = style;
      context.stroke();
    }
  }

  /** Units of the drawing to a pixel. */
  get #grain(): number {
    return this.#on.width / this.#sheet.side();
  }

  #pixel(): number[] {
    const last = this.#sheet.side() - 1;
    return [this.#at.x, this.#at.y].map((place) => Math.min(Math.floor(place / this.#grain), last));
  }

  #begin(): void {
    this.remember();
    this.#stroke(this.#at, this.#at);
  }

  #move(to: ui.Point): void {
    const from = { ...this.#at };
    Object.assign(this.#at, to);
    if (this.#inking) this.#stroke(from, to);
    this.update();
  }

  /** Paint all pixels under the brush on its way from one place to another. */
  #stroke(from: ui.Point, to: ui.Point): void {
    const [side, grain, label] = [this.#sheet.side(), this.#grain, this.#sheet.label()];
    const painted = decode(this.#sheet.painted(), side * side);
    const radius = this.#sheet.width() / 2;
    const steps = Math.max(1, Math.ceil(Math.hypot(to.x - from.x, to.y - from.y) / grain));
    for (let i = 0; i <= steps; i++) {
      const [x, y] = [from.x + ((to.x - from.x) * i) / steps, from.y + ((to.y - from.y) * i) / steps].map(
        (place) => place / grain,
      );
      for (let v = Math.max(0, Math.floor(y - radius)); v <= Math.min(side - 1, y + radius); v++) {
        for (let u = Math.max(0, Math.floor(x - radius)); u <= Math.min(side - 1, x + radius); u++) {
          const near = Math.hypot(u + 0.5 - x, v + 0.5 - y) <= radius;
          const under = u === Math.min(Math.floor(x), side - 1) && v === Math.min(Math.floor(y), side - 1);
          if (near || under) painted[v * side + u] = label;
        }
      }
    }
    this.#sheet.paint(encode(painted));
  }

  /** Where in the past something else was painted on a sheet of this size; −1 if nowhere. */
  #earlier(): number {
    const [side, now] = [this.#sheet.side(), this.#sheet.painted()];
    return this.#past.findLastIndex((then) => then.side === side && then.painted !== now);
  }

  #back(): void {
    const found = this.#earlier();
    const { painted } = this.#past[found];
    this.#past.length = found;
    this.#sheet.paint(painted);
  }
}
