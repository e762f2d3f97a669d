import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import kinds from "../golden/kinds.json";
import { made } from "../src/models.ts";
import { owners } from "../src/pictures.ts";
import { Generator } from "../src/random.ts";
import { Stage } from "../src/scenes.ts";
import { row } from "../src/tensor.ts";
import { decode, weights, weightsOf, type Made } from "../src/weights.ts";
import { bytes, exported, floats, largest } from "./golden.ts";

const UNDECIDED = 255; // a pixel that two slots own alike, as far as single precision can tell
const FOLDER = new URL("../golden/", import.meta.url);
const MODELS = readdirSync(FOLDER).filter((file) => file.startsWith("model_"));

describe.each(kinds)("$model.class_path with random parameters, $seed", ({ model: kind, tensors, seed, ...golden }) => {
  const generator = new Generator(seed);
  const draw = (shape: number[]): Float32Array => generator.normal(shape.reduce((all, extent) => all * extent, 1));
  const numbers = Object.values(tensors).flatMap((shape) => [...draw(shape as number[]).map((value) => value / 3)]);
  const model = made(kind, weights(tensors as never, Float32Array.from(numbers)));
  const image = generator.uniform(3 * model.resolution ** 2);
  const question = { slots: 4, iterations: 3, seed, restarts: 2, spread: 1 };
  const answer = model.answer(model.prepare(image), question);

  test("says what PyTorch says", () => {
    expect(largest(answer.slots.data, floats(golden.found))).toBeLessThan(1e-4);
    expect(largest(answer.masks.data, floats(golden.masks))).toBeLessThan(1e-4);
    expect(largest(answer.reconstruction, floats(golden.reconstruction))).toBeLessThan(1e-4);
  });
});

test("what the page cannot compute is said by name", () => {
  const kind = structuredClone(kinds[0].model) as Made;
  kind.init_args.decoder.class_path = "Broadcast";
  expect(() => made(kind, weights({}, new Float32Array()))).toThrow("the decoder Broadcast");
  kind.init_args.decoder.class_path = "Separable";
  kind.init_args.softness = 0.8;
  expect(() => made(kind, weights({}, new Float32Array()))).toThrow("soften");
  expect(() => made({ ...kind, class_path: "SetPredictor" }, weights({}, new Float32Array()))).toThrow("SetPredictor");
});

test("weights that are not what was written are refused", () => {
  const { data, crc32 } = exported("tetrominoes");
  expect(decode({ data, crc32 }).length).toBeGreaterThan(1e5);
  for (const wrong of [data.slice(4), `////${data.slice(4)}`, "?", ""]) expect(() => decode({ data: wrong, crc32 })).toThrow("damaged");
});

describe.each(MODELS)("%s", (file) => {
  const name = file.slice("model_".length, -".json".length);
  const golden = JSON.parse(readFileSync(new URL(file, FOLDER), "utf8"));
  const found = exported(name);
  const stage = new Stage(found.stage);
  const model = made(found.model, weightsOf(found));
  test.each(golden as any[])(
    "scene $scene: $slots slots, $iterations iterations, seed $seed, $restarts restarts",
    ({ scene, slots, iterations, seed, restarts, ...expected }) => {
      const { image } = stage.draw(stage.scenes[scene]);
      const answer = model.answer(model.prepare(image), { slots, iterations, seed, restarts, spread: 1 });
      // Slots of a collapsed model are long; single precision is as fine as its numbers are small.
      const slotsThere = floats(expected.found);
      const scale = Math.max(1, largest(slotsThere, new Float32Array(slotsThere.length)) / 10);
      // Three times as many slots as a model was made for need not settle: then rounding grows, in PyTorch as here.
      expect(largest(answer.slots.data, slotsThere)).toBeLessThan(Math.max(1e-4 * scale, 3 * expected.rounding));
      for (const [found, there] of [[answer.masks, expected.masks], [answer.drawnMasks, expected.drawn_masks]]) {
        const whose = bytes(there);
        expect(owners(found).filter((slot, i) => whose[i] !== UNDECIDED && slot !== whose[i])).toHaveLength(0);
        // Of three times as many slots as a model was made for, several draw the ground, all alike.
        expect(whose.filter((slot) => slot === UNDECIDED).length).toBeLessThan(whose.length * (slots > 9 ? 0.25 : 0.01));
      }
      const corner = expected.attention.map((_: number, k: number) => row(answer.attention[iterations - 1], k)[0]);
      expect(largest(corner, expected.attention)).toBeLessThan(1e-4);
      const error = answer.reconstruction.reduce((sum, value, i) => sum + (value - image[i]) ** 2, 0) / image.length;
      expect(error / expected.squared_error).toBeCloseTo(1, 4);
    },
  );
});
