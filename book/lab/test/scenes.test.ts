import { describe, expect, test } from "vitest";
import golden from "../golden/stages.json";
import { read, Stage, write, type Written } from "../src/scenes.ts";
import { bytes, largest } from "./golden.ts";

describe.each(golden)("$stage.name $stage.options", ({ stage: written, ...expected }) => {
  const stage = new Stage(written as unknown as Written);
  const area = stage.resolution ** 2;

  test.each(stage.scenes.map((scene, i) => ({ scene, i })))("scene $i is drawn as slotlib draws it", ({ scene, i }) => {
    const drawn = stage.draw(scene);
    const levels = drawn.image.map((value) => value * 255);
    expect(largest(levels, bytes(expected.images).subarray(i * 3 * area, (i + 1) * 3 * area))).toBeLessThan(1e-3);
    expect(largest(drawn.mask, bytes(expected.masks).subarray(i * area, (i + 1) * area))).toBe(0);
  });

  test("four turns of a piece, sixteen of a figure, lead back", () => {
    const thing = stage.placed(stage.scenes[0].things[0], stage.resolution / 2, stage.resolution / 2);
    let turned = thing;
    for (let i = 0; i < (written.pieces ? 4 : 16); i++) turned = stage.turned(turned);
    expect(turned.shape).toBe(thing.shape);
    expect(Math.cos(turned.angle - thing.angle)).toBeCloseTo(1, 3);
  });

  test("things stay within the image, wherever they are dragged", () => {
    const { things, ground } = stage.scenes[1];
    for (const [x, y] of [[-100, -100], [1e4, 3], [7, 1e4]]) {
      const moved = things.map((thing) => stage.placed(thing, x, y));
      const covered = stage.draw({ ground, things: moved.slice(0, 1) }).mask.filter((owner) => owner === 1).length;
      expect(covered).toBeGreaterThan(10);
      if (written.pieces) expect(covered).toBe(100); // four blocks of 5×5
    }
  });

  test("a scene can be written into an address and read again", () => {
    const things = stage.scenes[2].things.map((thing) => stage.placed(thing, thing.x, thing.y));
    const again = read(write(things), stage)!;
    expect(write(again)).toBe(write(things));
    expect(read("", stage)).toEqual([]);
    for (const wrong of ["99_1_1_0_1_255_0_0", "0_1_1_0_7.77_255_0_0", "0_1_1", "x~y"]) expect(read(wrong, stage)).toBeUndefined();
  });
});
