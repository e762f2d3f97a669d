import { expect, test, vi } from "vitest";
import { choice, flag, Model, range, text } from "../src/settings.ts";

const settings = {
  slots: range(1, 12, 4),
  sigma: range(0, 2, 1, 0.1),
  over: choice({ keys: "over keys", queries: "over queries" }, "keys"),
  gru: flag(true),
  places: text("", (found) => /^\d*$/.test(found)),
};

test("an address repeats what was set", () => {
  const model = new Model(settings);
  model.set("slots", 9);
  model.set("sigma", 0.3);
  model.set("over", "queries");
  model.set("gru", false);
  const other = new Model(settings);
  other.read(model.write());
  expect(other.all()).toEqual(model.all());
  other.reset();
  expect(other.write()).toBe("");
});

test("what an address may not say becomes the nearest that it may, or the start", () => {
  const model = new Model(settings);
  model.read("slots=99&sigma=0.3333&over=__proto__&gru=maybe&places=x&nonsense=1");
  expect(model.all()).toEqual({ slots: 12, sigma: 0.3, over: "keys", gru: true, places: "" });
  model.read("slots=&sigma=-3");
  expect(model.all()).toMatchObject({ slots: 4, sigma: 0 });
  model.read("slots=NaN");
  expect(model.get("slots")).toBe(4);
});

test("a chapter's own start is where reset leads to", () => {
  const model = new Model(settings);
  model.starting("slots=7");
  expect(model.write()).toBe("");
  model.set("slots", 4);
  expect(model.write()).toBe("slots=4");
  model.reset();
  expect(model.get("slots")).toBe(7);
});

test("listeners hear of changes, and of nothing else", () => {
  const model = new Model(settings);
  const [slots, any] = [vi.fn(), vi.fn()];
  model.on("change:slots", slots);
  model.on("change", any);
  model.set("slots", 4);
  expect(any).not.toHaveBeenCalled();
  model.set("slots", 5);
  model.set("sigma", 0.5);
  expect([slots.mock.calls.length, any.mock.calls.length]).toEqual([1, 2]);
});
