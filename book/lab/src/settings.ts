/**
 * What a lab can be set to, and the model that holds it: anywidget's `get`, `set` and `on`.
 *
 * A lab says once what its settings are; its controls, its address in the page's URL and its reset follow from that.
 */

export type Value = number | string | boolean;

/** One thing that can be set. `read` makes of a text the value nearest to it that is allowed. */
export interface Setting<V extends Value> {
  start: V;
  read(text: string): V;
}

export interface Range extends Setting<number> {
  least: number;
  most: number;
  step: number;
}

/** One of several names; `options` gives each its label. */
export interface Choice extends Setting<string> {
  options: Record<string, string>;
}

export type Settings = Record<string, Setting<number> | Setting<string> | Setting<boolean>>;
export type Values<S extends Settings> = { [K in keyof S]: S[K]["start"] };

/** A number from `least` to `most` in steps; whole numbers by default. */
export function range(least: number, most: number, start: number, step = 1): Range {
  const decimals = (String(step).split(".")[1] ?? "").length;
  return {
    least,
    most,
    step,
    start,
    read(text) {
      const number = Number(text);
      if (text.trim() === "" || !Number.isFinite(number)) return start;
      const steps = Math.round((Math.min(Math.max(number, least), most) - least) / step);
      return Number((least + steps * step).toFixed(decimals));
    },
  };
}

/** One of the names that `options` gives labels to. */
export function choice(options: Record<string, string>, start: string): Choice {
  return { options, start, read: (text) => (Object.hasOwn(options, text) ? text : start) };
}

/** On or off. */
export function flag(start: boolean): Setting<boolean> {
  return { start, read: (text) => (text === "true" || text === "false" ? text === "true" : start) };
}

/** What no single control shows, such as a list of places. `valid` says what may stand there. */
export function text(start: string, valid: (text: string) => boolean): Setting<string> {
  return { start, read: (found) => (valid(found) ? found : start) };
}

type Listener = () => void;

/** The values of a lab's settings, with the part of anywidget's model that labs use. */
export class Model<S extends Settings> {
  readonly settings: S;
  #start: Values<S>;
  #values: Values<S>;
  #listeners = new Map<string, Set<Listener>>();

  constructor(settings: S) {
    this.settings = settings;
    this.#start = Object.fromEntries(Object.entries(settings).map(([name, { start }]) => [name, start])) as Values<S>;
    this.#values = { ...this.#start };
  }

  /** Start elsewhere than the lab itself would: a chapter may ask for its own. */
  starting(query: string): void {
    this.#start = this.#said(query);
    this.reset();
  }

  get<K extends keyof S & string>(name: K): Values<S>[K] {
    return this.#values[name];
  }

  set<K extends keyof S & string>(name: K, value: Values<S>[K]): void {
    if (this.#values[name] === value) return;
    this.#values[name] = value;
    this.#tell(`change:${name}`);
    this.#tell("change");
  }

  /** `event` is "change", or "change:NAME" of one setting. */
  on(event: string, listener: Listener): void {
    if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
    this.#listeners.get(event)!.add(listener);
  }

  /** Anywidget sends what was set to Python here. In a page there is nobody to send it to. */
  save_changes(): void {}

  all(): Values<S> {
    return { ...this.#values };
  }

  reset(): void {
    this.#assign(this.#start);
  }

  /** Take over what a text such as `slots=9&start=3` says; what it does not say is as at the start. */
  read(query: string): void {
    this.#assign(this.#said(query));
  }

  /** The same text, of what differs from the start. */
  write(): string {
    const said = new URLSearchParams();
    for (const name of keys(this.settings)) {
      if (this.#values[name] !== this.#start[name]) said.set(name, String(this.#values[name]));
    }
    return said.toString();
  }

  #said(query: string): Values<S> {
    const said = new URLSearchParams(query);
    const values = { ...this.#start };
    for (const name of keys(this.settings)) {
      const text = said.get(name);
      if (text !== null) values[name] = this.settings[name].read(text) as Values<S>[typeof name];
    }
    return values;
  }

  #assign(values: Values<S>): void {
    for (const name of keys(this.settings)) this.set(name, values[name]);
  }

  #tell(event: string): void {
    for (const listener of this.#listeners.get(event) ?? []) listener();
  }
}

function keys<S extends Settings>(settings: S): (keyof S & string)[] {
  return Object.keys(settings);
}

/** What a lab's module exports. `render` fills `el`. */
export interface Lab<S extends Settings> {
  settings: S;
  render(context: { model: Model<S>; el: HTMLElement }): void | Promise<void>;
}
