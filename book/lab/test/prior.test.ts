import { readdirSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { made } from "../src/models.ts";
import { owners } from "../src/pictures.ts";
import { CodePrior, nucleus, nucleusSample } from "../src/prior.ts";
import { Generator } from "../src/random.ts";
import { Stage } from "../src/scenes.ts";
import { weightsOf } from "../src/weights.ts";
import { bytes, exported, floats, largest } from "./golden.ts";

const FOLDER = new URL("../golden/", import.meta.url);
const PRIORS = readdirSync(FOLDER).filter((file) => file.startsWith("prior_"));

describe.each(PRIORS)("%s", (file) => {
  const found = exported(file.slice("prior_".length, -".json".length));
  const model = made(found.model, weightsOf(found)) as CodePrior;
  const { prior, autoencoder } = model;
  const blocks = prior.numBlocks;
  const stage = new Stage(found.stage);
  const golden: any[] = JSON.parse(readFileSync(new URL(file, FOLDER), "utf8"));

  describe.each(golden)("temperature $temperature, top-p $top_p, seed $seed", (expected) => {
    const { text, given, seed, temperature } = expected;
    const drawing = { temperature, topP: expected.top_p, seed };

    test("a text is slotlib's, token for token", () => expect(model.sample(given, drawing)).toEqual(text));

    test("logits are PyTorch's, whether a text is read at once or token by token", () => {
      const logits = floats(expected.logits);
      const size = prior.numCodes;
      let read = prior.begin();
      for (let i = 0; i < text.length; i++) {
        expect(largest(read.logits!, logits.subarray(i * size, (i + 1) * size))).toBeLessThan(1e-3);
        read = prior.more(read, [text[i]]);
      }
      expect(read.logits).toBeUndefined();
      expect(largest(prior.more(prior.begin(), text).surprise, read.surprise)).toBeLessThan(1e-4);
    });

    test("it is drawn as slotlib draws it", () => {
      const { image, masks } = autoencoder.decode(text);
      const levels = image.map((value) => Math.min(Math.max(255 * value, 0), 255));
      expect(largest(levels, bytes(expected.image))).toBeLessThan(0.51);
      expect(largest(owners(masks), bytes(expected.owners))).toBe(0);
    });

    test("the scene of this number is read in the same codes", () => {
      const { num_slots: slots, num_iterations: iterations } = found.model.init_args.autoencoder.init_args.attention;
      const { image } = stage.draw(stage.scenes[seed]);
      const answer = model.answer(model.prepare(image), { slots, iterations, seed, restarts: 1, spread: 1 });
      expect(answer.codes).toEqual(expected.codes);
    });

    test("blanks stand last, and where slotlib writes them", () => {
      const rowsOf = (codes: number[]): string[] =>
        Array.from({ length: codes.length / blocks }, (_, k) => codes.slice(k * blocks, (k + 1) * blocks).join());
      const ordered = rowsOf(model.textOf(expected.codes));
      expect([...ordered].sort()).toEqual(rowsOf(expected.with_blanks).sort());
      const blank = model.blank!.join();
      const first = ordered.indexOf(blank);
      if (first >= 0) expect(new Set(ordered.slice(first))).toEqual(new Set([blank]));
    });
  });

  test("what a text says of its tokens does not depend on what is to come", () => {
    const { text } = golden[0];
    const whole = model.read(text, { temperature: 1, topP: 1, seed: 0 });
    const part = model.read(text.slice(0, 21), { temperature: 1, topP: 1, seed: 0 });
    expect(whole.next).toBeUndefined();
    expect(largest(part.surprise, whole.surprise.slice(0, 21))).toBeLessThan(1e-4);
    expect(-Math.log(part.next![text[21]])).toBeCloseTo(whole.surprise[21], 4);
    expect(part.ends).toEqual([whole.ends[0]]);
  });

  test("an exchanged word is drawn as the whole text would be", () => {
    const { text } = golden[0];
    const [slot, block] = [1, blocks - 1];
    const words = model.words(text, slot, block);
    const every = Array.from({ length: prior.numCodes }, (_, code) => code);
    expect(words.flatMap(({ codes }) => codes).sort((a, b) => a - b)).toEqual(every);
    const before = model.decode(text).image;
    for (const { codes, image, change } of words) {
      for (const code of codes) {
        const exchanged = text.map((said: number, i: number) => (i === slot * blocks + block ? code : said));
        const drawn = model.decode(exchanged).image;
        expect(largest(image, drawn)).toBeLessThan(1e-5);
        expect(drawn.reduce((sum, value, i) => sum + (value - before[i]) ** 2, 0)).toBeCloseTo(change, 3);
      }
    }
  });

  test("nothing written yet is nothing drawn", () => {
    const { drawn, ends, surprise, next } = model.read([], { temperature: 1, topP: 1, seed: 0 });
    expect([drawn, ends, surprise]).toEqual([undefined, [], []]);
    expect(next!.reduce((sum, p) => sum + p, 0)).toBeCloseTo(1, 6);
  });
});

test("of the nucleus the fewest are kept that together have top-p, and always one", () => {
  const logits = [0.05, 0.5, 0.15, 0.3].map(Math.log);
  const kept = (topP: number): number[] =>
    nucleus(logits, 1, topP).flatMap(({ token, probability }) => (probability ? [token] : []));
  expect([kept(1), kept(0.9), kept(0.7), kept(0.4)]).toEqual([[1, 3, 2, 0], [1, 3, 2], [1, 3], [1]]);
  expect(nucleus(logits, 1e-3, 1)[0]).toEqual({ token: 1, probability: 1 });
});

test("tokens are drawn as often as they are probable", () => {
  const generator = new Generator(0);
  const counts = [0, 0, 0];
  for (let i = 0; i < 20_000; i++) counts[nucleusSample([0.6, 0.3, 0.1].map(Math.log), 1, 1, generator)]++;
  [0.6, 0.3, 0.1].forEach((share, token) => expect(counts[token] / 20_000).toBeCloseTo(share, 1.7));
});
