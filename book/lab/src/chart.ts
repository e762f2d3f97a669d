/** Curves within a frame. Places in it are shares of its width and height, from 0 to 1, to the right and up. */
import * as ui from "./ui.ts";

export interface Box {
  left: number;
  top: number;
  right: number;
  bottom: number;
}

export type Share = readonly [number, number];

export interface Chart {
  across(share: number): number;
  up(share: number): number;
  /** Numbers along the lower and the left edge. */
  below(share: number, text: string): void;
  beside(share: number, text: string): void;
  /** Through these places, as far as they are finite and within the frame. */
  curve(places: readonly Share[], colour: string, width?: number, dash?: number[]): void;
  /** Dots, each in a colour of its own if there are several. */
  dots(places: readonly Share[], colour: string | ((i: number) => string), radius?: number): void;
  /** Draw within the frame only. */
  within(draw: () => void): void;
}

/** A frame, drawn at once, with the page's colours as they are at `el`. */
export function chart(context: CanvasRenderingContext2D, el: Element, box: Box): Chart {
  const { left, top, right, bottom } = box;
  const across = (share: number): number => left + share * (right - left);
  const up = (share: number): number => bottom - share * (bottom - top);
  context.font = "12px sans-serif";
  context.textBaseline = "middle";
  context.fillStyle = ui.themed(el, "muted");
  context.strokeStyle = ui.themed(el, "line");
  context.lineWidth = 1;
  context.strokeRect(left, top, right - left, bottom - top);
  const write = (text: string, x: number, y: number, align: CanvasTextAlign): void => {
    context.fillStyle = ui.themed(el, "muted");
    context.textAlign = align;
    context.fillText(text, x, y);
    context.textAlign = "start";
  };
  const within = (draw: () => void): void => {
    context.save();
    context.beginPath();
    context.rect(left, top, right - left, bottom - top);
    context.clip();
    draw();
    context.restore();
  };
  return {
    across,
    up,
    below: (share, text) => write(text, across(share), bottom + 12, "center"),
    beside: (share, text) => write(text, left - 5, up(share), "end"),
    within,
    curve: (places, colour, width = 2, dash = []) =>
      within(() => {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.setLineDash(dash);
        context.beginPath();
        for (const [u, v] of places) if (Number.isFinite(v)) context.lineTo(across(u), up(v));
        context.stroke();
      }),
    dots: (places, colour, radius = 3) =>
      within(() =>
        places.forEach(([u, v], i) => {
          context.fillStyle = typeof colour === "string" ? colour : colour(i);
          context.beginPath();
          context.arc(across(u), up(v), radius, 0, 2 * Math.PI);
          context.fill();
        }),
      ),
  };
}
