/** The page's scenes of chapter 05: pictures, true objects, and where the camera stood. Written by describe.py. */
import written from "./clevr.json";
import { target, type Kind } from "./set_predictor.ts";

export const CATEGORIES: Record<keyof Kind, string[]> = written.categories;
export const COLOURS = written.colours.map((parts) => `rgb(${parts.join(" ")})`);
export const SIDE = 64; // pixels
const AREA = SIDE * SIDE;
export const METRES = 6; // between 0 and 1

export interface Scene {
  /** Channel by channel in [0, 1]. */
  image: Float32Array;
  /** The values of each object. */
  objects: Float32Array[];
  /** The object that can be moved, by number, and where it may stand: in metres from the middle. */
  movable: number;
  places: number[][];
  /** The same scene with that object at the k-th of the places, as rendered there. */
  moved(k: number): Promise<Pick<Scene, "image" | "objects">>;
  /** Where a place of the scene is seen, from 0 to 1 across and down the image. */
  seen(place: ArrayLike<number>): [number, number];
}

export const SCENES: Scene[] = written.scenes.map(({ pixels, camera, objects, moved: { object, places, changes } }) => {
  const bytes = Uint8Array.from(atob(pixels), (byte) => byte.charCodeAt(0));
  const imageOf = (channel: (i: number, c: number) => number): Float32Array =>
    Float32Array.from({ length: 3 * AREA }, (_, at) => channel(at % AREA, Math.floor(at / AREA)) / 255);
  const values = objects.map(([x, y, z, size, material, shape, colour]) =>
    target([x, y, z], { size, material, shape, colour }),
  );
  let sheet: Promise<Uint8ClampedArray> | undefined;
  return {
    image: imageOf((i, c) => bytes[3 * i + c]),
    objects: values,
    movable: object,
    places,
    async moved(k) {
      const all = await (sheet ??= pixelsOf(changes));
      const image = imageOf((i, c) => (bytes[3 * i + c] + all[4 * (k * AREA + i) + c]) % 256);
      const there = Float32Array.from(values[object]);
      there.set(places[k].map((metres) => metres / METRES + 0.5));
      return { image, objects: values.with(object, there) };
    },
    seen(place) {
      const [across, down, depth] = camera.map(([a, b, c, d]) => a * place[0] + b * place[1] + c * place[2] + d);
      return [across / depth, down / depth];
    },
  };
});

/** Red, green, blue and opacity of every pixel of a PNG. */
async function pixelsOf(png: string): Promise<Uint8ClampedArray> {
  const image = new Image();
  image.src = `data:image/png;base64,${png}`;
  await image.decode();
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d")!;
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, image.width, image.height).data;
}
