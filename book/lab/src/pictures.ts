/** Images and masks as pictures. Images are channel by channel in [0, 1]. */
import type { Rows } from "./tensor.ts";
import { slotRgb } from "./ui.ts";

/** A square picture, a canvas of its own that others paint from. `fill` writes red, green, blue, opacity of each pixel. */
function picture(side: number, fill: (pixels: Uint8ClampedArray) => void): HTMLCanvasElement {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [side, side];
  const data = new ImageData(side, side);
  fill(data.data);
  canvas.getContext("2d")!.putImageData(data, 0, 0);
  return canvas;
}

/** An image; where a mask is given it is its opacity, so that an empty slot shows the page. */
export function image(values: Float32Array, side: number, mask?: Float32Array): HTMLCanvasElement {
  const area = side * side;
  return picture(side, (pixels) => {
    for (let i = 0; i < area; i++) {
      for (let c = 0; c < 3; c++) pixels[4 * i + c] = 255 * values[c * area + i];
      pixels[4 * i + 3] = mask ? 255 * mask[i] : 255;
    }
  });
}

/** Soft masks: every pixel mixes the slots' colours by how much each slot claims it; opaque, unless `opacity` says less. */
export function segmentation({ data, count, width }: Rows, side: number, opacity?: Float32Array): HTMLCanvasElement {
  const colours = Array.from({ length: count }, (_, k) => slotRgb(k));
  return picture(side, (pixels) => {
    for (let i = 0; i < width; i++) {
      let red = 0, green = 0, blue = 0;
      for (let k = 0; k < count; k++) {
        const share = data[k * width + i];
        red += share * colours[k][0];
        green += share * colours[k][1];
        blue += share * colours[k][2];
      }
      pixels[4 * i] = red;
      pixels[4 * i + 1] = green;
      pixels[4 * i + 2] = blue;
      pixels[4 * i + 3] = opacity ? 255 * opacity[i] : 255;
    }
  });
}

/** How many pixels each slot holds. */
export function pixelsOwned(masks: Rows): number[] {
  const owned = new Array<number>(masks.count).fill(0);
  for (const slot of owners(masks)) owned[slot]++;
  return owned;
}

/** The slot that holds most of each pixel. */
export function owners({ data, count, width }: Rows): Uint8Array {
  return Uint8Array.from({ length: width }, (_, i) => {
    let best = 0;
    for (let k = 1; k < count; k++) if (data[k * width + i] > data[best * width + i]) best = k;
    return best;
  });
}
