/** Images and masks as pictures. Images are channel by channel in [0, 1]. */
import { row, type Rows } from "./tensor.ts";
import { drawing, slotRgb, type Drawing } from "./ui.ts";

export const SIDE = 100; // of a square picture on the page, in the units of its drawing

/** A square on the page for what `source` gives, if it gives anything; `over` draws on top of it. */
export function square(
  label: string,
  source: () => HTMLCanvasElement | undefined,
  over?: (context: CanvasRenderingContext2D) => void,
): Drawing & { redraw(): void } {
  return drawing(SIDE, SIDE, label, (context) => {
    const found = source();
    if (!found) return;
    context.drawImage(found, 0, 0, SIDE, SIDE);
    over?.(context);
  });
}

/** A frame around a square. */
export function framed(context: CanvasRenderingContext2D, colour: string): void {
  context.strokeStyle = colour;
  context.lineWidth = 5;
  context.strokeRect(2.5, 2.5, SIDE - 5, SIDE - 5);
}

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

/** What slot k paints, as far as a pixel is its own. */
export function part({ slotImages, masks }: { slotImages: Rows; masks: Rows }, k: number, side: number): HTMLCanvasElement {
  return image(row(slotImages, k), side, row(masks, k));
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
