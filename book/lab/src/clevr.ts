/** The page's scenes of chapter 05: pictures, true objects, and where the camera stood. Written by describe.py. */
import written from "./clevr.json";
import { target, type Kind } from "./set_predictor.ts";

export const CATEGORIES: Record<keyof Kind, string[]> = written.categories;
export const COLOURS = written.colours.map((parts) => `rgb(${parts.join(" ")})`);
export const SIDE = 64; // pixels

export interface Scene {
  /** Channel by channel in [0, 1]. */
  image: Float32Array;
  /** The values of each object. */
  objects: Float32Array[];
  /** Where a place of the scene is seen, from 0 to 1 across and down the image. */
  seen(place: ArrayLike<number>): [number, number];
}

export const SCENES: Scene[] = written.scenes.map(({ pixels, camera, objects }) => {
  const bytes = atob(pixels);
  const area = SIDE * SIDE;
  return {
    image: Float32Array.from(
      { length: 3 * area },
      (_, i) => bytes.charCodeAt(3 * (i % area) + Math.floor(i / area)) / 255,
    ),
    objects: objects.map(([x, y, z, size, material, shape, colour]) =>
      target([x, y, z], { size, material, shape, colour }),
    ),
    seen(place) {
      const [across, down, depth] = camera.map(([a, b, c, d]) => a * place[0] + b * place[1] + c * place[2] + d);
      return [across / depth, down / depth];
    },
  };
});
