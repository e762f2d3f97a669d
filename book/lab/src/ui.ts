/**
 * What labs are made of: controls bound to a setting, readouts, drawings, handles.
 *
 * Controls are ordinary `input`, `select` and `button` elements inside their label, so their names are accessible. What
 * only opens help carries `data-lab-aside`.
 */
import type { Choice, Model, Range, Setting, Settings } from "./settings.ts";

type Attributes = Record<string, string | number | boolean>;

/** An element, its attributes and what is in it. */
export function element<T extends keyof HTMLElementTagNameMap>(
  tag: T,
  attributes: Attributes = {},
  ...inside: (Node | string)[]
): HTMLElementTagNameMap[T] {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false) made.setAttribute(name, value === true ? "" : String(value));
  }
  made.append(...inside);
  return made;
}

// --- controls ---

/** Names of the settings of `S` whose value is a `V`. */
type Named<S extends Settings, V> = { [K in keyof S & string]: S[K] extends Setting<infer W> ? (W extends V ? K : never) : never }[keyof S & string];

/** A slider with its name and its value. `show` says a value in words; `most` is where it ends, if that may change. */
export function slider<S extends Settings>(
  model: Model<S>,
  name: Named<S, number>,
  label: string,
  show: (value: number) => string = String,
  most?: () => number,
): HTMLElement {
  const range = model.settings[name] as unknown as Range;
  const input = element("input", { type: "range", min: range.least, max: range.most, step: range.step });
  const value = element("output");
  const update = (): void => {
    if (most) input.max = String(most());
    const now = Math.min(model.get(name) as number, Number(input.max));
    input.value = String(now);
    value.textContent = show(now);
    input.setAttribute("aria-valuetext", show(now));
  };
  input.addEventListener("input", () => set(model, name, Number(input.value)));
  model.on(most ? "change" : `change:${name}`, update);
  update();
  return element("span", { class: "lab-control" }, element("label", {}, element("span", {}, label), input), value);
}

/** A menu of the names that a choice allows; or of `options`, if these may change. */
export function menu<S extends Settings>(
  model: Model<S>,
  name: Named<S, string>,
  label: string,
  options?: () => Choice["options"],
): HTMLElement {
  const select = element("select");
  let listed = "";
  const update = (): void => {
    const named = Object.entries(options?.() ?? (model.settings[name] as unknown as Choice).options);
    if (listed !== (listed = named.join())) {
      select.replaceChildren(...named.map(([value, text]) => element("option", { value }, text)));
    }
    select.value = model.get(name) as string;
  };
  select.addEventListener("change", () => set(model, name, select.value));
  model.on(options ? "change" : `change:${name}`, update);
  update();
  return element("label", { class: "lab-control" }, element("span", {}, label), select);
}

/** A box to tick. */
export function tick<S extends Settings>(model: Model<S>, name: Named<S, boolean>, label: string): HTMLElement {
  const input = element("input", { type: "checkbox" });
  const update = (): void => void (input.checked = model.get(name) as boolean);
  input.addEventListener("change", () => set(model, name, input.checked));
  model.on(`change:${name}`, update);
  update();
  return element("label", { class: "lab-control lab-tick" }, input, element("span", {}, label));
}

function set<S extends Settings>(model: Model<S>, name: keyof S & string, value: number | string | boolean): void {
  model.set(name, value as S[typeof name]["start"]);
  model.save_changes();
}

export function button(label: string, press: () => void): HTMLButtonElement {
  const made = element("button", { type: "button" }, label);
  made.addEventListener("click", press);
  return made;
}

/** Back to where the lab started. */
export function reset<S extends Settings>(model: Model<S>): HTMLButtonElement {
  const made = button("Reset", () => model.reset());
  const update = (): void => void (made.disabled = model.write() === "");
  model.on("change", update);
  update();
  return made;
}

/** Controls side by side, as far as there is room. */
export function row(...inside: Node[]): HTMLElement {
  return element("div", { class: "lab-row" }, ...inside);
}

/** A drawing with its caption. */
export function panel(caption: string, ...inside: Node[]): HTMLElement {
  return element("figure", { class: "lab-panel" }, ...inside, element("figcaption", {}, caption));
}

// --- what is shown ---

/** A number or word that the lab computes, with its name: `show(text)` changes it. */
export function readout(label: string): { element: HTMLElement; show(text: string): void } {
  const value = element("output", { "data-lab-value": true });
  return {
    element: element("span", { class: "lab-readout" }, element("span", {}, label), " ", value),
    show: (text) => void (value.textContent = text),
  };
}

/** What a screen reader is told: the last thing said, once nothing has changed for a second. */
export function announcer(): { element: HTMLElement; say(text: string): void } {
  const region = element("p", { class: "lab-said", role: "status" });
  let timer = 0;
  return {
    element: region,
    say(text) {
      clearTimeout(timer);
      timer = window.setTimeout(() => (region.textContent = text), 1000);
    },
  };
}

/** The lines of slotlib that compute what is seen, for the settings as they are. */
export function code<S extends Settings>(model: Model<S>, lines: () => string): HTMLElement {
  const text = element("code");
  const copy = button("Copy", () => void navigator.clipboard?.writeText(text.textContent ?? ""));
  copy.dataset.labAside = "";
  const update = (): void => void (text.textContent = lines());
  model.on("change", update);
  update();
  return element(
    "details",
    { class: "lab-code" },
    element("summary", { "data-lab-aside": true }, "Show me the code"),
    element("pre", { tabindex: 0 }, text),
    copy,
  );
}

/** Call `draw` now, and once before the next picture is shown after any change of the settings. */
export function follow<S extends Settings>(model: Model<S>, draw: () => void): void {
  model.on("change", soon(draw));
  draw();
}

/** A function that calls `work` once before the next picture is shown, however often it is called until then. */
export function soon(work: () => void): () => void {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}

/**
 * A button that calls `step` again and again, until that returns false or it is pressed once more. For a reader who wants
 * no motion a press is one such step, or what `quiet` does instead.
 */
export function player(label: string, pace: number, step: () => boolean, quiet: () => void = step): HTMLButtonElement {
  let timer = 0;
  const stop = (): void => {
    clearInterval(timer);
    timer = 0;
    made.textContent = label;
  };
  const made = button(label, () => {
    if (timer) return stop();
    if (still()) return quiet();
    made.textContent = "Stop";
    timer = window.setInterval(() => {
      if (!made.isConnected || !step()) stop();
    }, pace);
  });
  return made;
}

/** Whether the reader has asked for pages that keep still. */
export function still(): boolean {
  return matchMedia("(prefers-reduced-motion: reduce)").matches;
}

export const TROUBLE = "lab-trouble";

/** The lab cannot go on: the page shows why in its place, a sentence or what was thrown. */
export function trouble(el: HTMLElement, reason: unknown): void {
  const sentence = reason instanceof Error ? reason.message : String(reason);
  el.dispatchEvent(new CustomEvent(TROUBLE, { detail: sentence, bubbles: true }));
}

// --- colours ---

const SLOTS = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#8c8c8c"];

/** The colour of a slot or cluster, as in the book's figures: Okabe and Ito's palette, darker each time it repeats. */
export function slotRgb(k: number): [number, number, number] {
  const hex = SLOTS[k % SLOTS.length];
  const dark = 0.6 ** Math.floor(k / SLOTS.length);
  return [1, 3, 5].map((at) => Math.round(parseInt(hex.slice(at, at + 2), 16) * dark)) as [number, number, number];
}

export function slotColour(k: number): string {
  return `rgb(${slotRgb(k).join(" ")})`;
}

/** The page's own colour of this name (see lab.css), light or dark as the page is now. */
export function themed(el: Element, name: "text" | "muted" | "line" | "ground" | "accent"): string {
  return getComputedStyle(el).getPropertyValue(`--lab-${name}`).trim();
}

// --- drawings ---

export interface Drawing {
  element: HTMLCanvasElement;
  /** Width and height in units of the drawing, whatever the screen's resolution. */
  width: number;
  height: number;
}

/**
 * A canvas that is `width` × `height` units large and fits the page, sharp on any screen. `paint` draws it in these
 * units, at first and whenever its size, the screen's resolution or the theme changes; `redraw` asks for it.
 */
export function drawing(
  width: number,
  height: number,
  label: string,
  paint: (context: CanvasRenderingContext2D) => void,
): Drawing & { redraw(): void } {
  const canvas = element("canvas", { role: "img", "aria-label": label, style: `aspect-ratio: ${width} / ${height}` });
  const draw = (): void => {
    const shown = canvas.clientWidth || width;
    const scale = (shown / width) * devicePixelRatio;
    const [across, down] = [Math.round(width * scale), Math.round(height * scale)];
    if (canvas.width !== across || canvas.height !== down) {
      canvas.width = across;
      canvas.height = down;
    }
    const context = canvas.getContext("2d")!;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, width, height);
    context.imageSmoothingEnabled = false;
    paint(context);
  };
  const redraw = soon(draw);
  new ResizeObserver(redraw).observe(canvas);
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  return { element: canvas, width, height, redraw };
}

export interface Point {
  x: number;
  y: number;
}

/** Where on a drawing a pointer is, in its units. */
export function place({ element, width, height }: Drawing, { clientX, clientY }: MouseEvent): Point {
  const box = element.getBoundingClientRect();
  return { x: ((clientX - box.left) / box.width) * width, y: ((clientY - box.top) / box.height) * height };
}

/** What can be dragged on a drawing, by finger, mouse or arrow keys. */
export interface Handles {
  /** Where they are, in the drawing's units. */
  points(): Point[];
  /** What a screen reader calls one. */
  label(k: number): string;
  /** Handle k is wanted at `to`, which lies within the drawing. */
  move(k: number, to: Point): void;
  /** How close to a handle one has to press, and how far an arrow key moves it. */
  reach: number;
  step: number;
  /** Which handle is meant by a press at `at`, if not the nearest within reach. */
  hit?(at: Point): number | undefined;
  /** Any other key while handle k has the focus; true if it meant something. */
  key?(k: number, key: string): boolean;
  /** Handle k was pressed or got the focus. */
  chosen?(k: number): void;
}

/**
 * Lets the reader drag handles on a drawing. Returns an element that holds it, and a button over each handle for the
 * keyboard: Tab reaches it, arrow keys move it, ten steps with Shift. Call `update` when handles move or change in number.
 */
export function draggable(on: Drawing, handles: Handles): { element: HTMLElement; update(): void } {
  const canvas = on.element;
  const holder = element("div", { class: "lab-draggable" }, canvas);
  const buttons: HTMLButtonElement[] = [];
  const within = ({ x, y }: Point): Point => ({
    x: Math.min(Math.max(x, 0), on.width),
    y: Math.min(Math.max(y, 0), on.height),
  });
  const nearest = (at: Point): number | undefined => {
    if (handles.hit) return handles.hit(at);
    let [found, least]: [number | undefined, number] = [undefined, handles.reach];
    handles.points().forEach(({ x, y }, k) => {
      const distance = Math.hypot(x - at.x, y - at.y);
      if (distance <= least) [found, least] = [k, distance];
    });
    return found;
  };

  let held: { k: number; grip: Point } | undefined;
  canvas.addEventListener("pointerdown", (event) => {
    const at = place(on, event);
    const k = nearest(at);
    if (k === undefined) return;
    const point = handles.points()[k];
    held = { k, grip: { x: point.x - at.x, y: point.y - at.y } };
    canvas.setPointerCapture(event.pointerId);
    handles.chosen?.(k);
    event.preventDefault();
  });
  canvas.addEventListener("pointermove", (event) => {
    const at = place(on, event);
    canvas.style.cursor = held ? "grabbing" : nearest(at) === undefined ? "" : "grab";
    if (held) handles.move(held.k, within({ x: at.x + held.grip.x, y: at.y + held.grip.y }));
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (held = undefined));
  // A finger on a handle drags it; elsewhere it scrolls the page.
  canvas.addEventListener("touchstart", (event) => held && event.preventDefault(), { passive: false });

  const ARROWS: Record<string, [number, number]> = {
    ArrowLeft: [-1, 0],
    ArrowRight: [1, 0],
    ArrowUp: [0, -1],
    ArrowDown: [0, 1],
  };
  const press = (k: number, event: KeyboardEvent): void => {
    const way = ARROWS[event.key];
    if (way) {
      const { x, y } = handles.points()[k];
      const far = handles.step * (event.shiftKey ? 10 : 1);
      handles.move(k, within({ x: x + way[0] * far, y: y + way[1] * far }));
    }
    if (way || handles.key?.(k, event.key)) event.preventDefault();
  };

  const update = (): void => {
    const points = handles.points();
    while (buttons.length > points.length) buttons.pop()!.remove();
    while (buttons.length < points.length) {
      const k = buttons.length;
      const made = element("button", { type: "button", class: "lab-handle", "data-lab-aside": true });
      made.addEventListener("keydown", (event) => press(k, event));
      made.addEventListener("focus", () => handles.chosen?.(k));
      buttons.push(made);
      holder.append(made);
    }
    points.forEach(({ x, y }, k) => {
      buttons[k].style.left = `${(x / on.width) * 100}%`;
      buttons[k].style.top = `${(y / on.height) * 100}%`;
      buttons[k].setAttribute("aria-label", `${handles.label(k)}; arrow keys move it`);
    });
  };
  update();
  return { element: holder, update };
}
