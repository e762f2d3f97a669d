/** A text of codes on the page: a line for each slot, with its name in its colour and a tile for each block. */
import * as ui from "./ui.ts";

/** `names` holds what is said of each slot, `tiles` all tiles, slot after slot; `room` is how wide names are. */
export function sheet(names: (Node | string)[][], tiles: HTMLElement[], room: string): { element: HTMLElement; lines: HTMLElement[] } {
  const blocks = tiles.length / names.length;
  const lines = names.map((name, k) => {
    const named = ui.element("span", { class: "sheet-slot", style: `border-color: ${ui.slotColour(k)}` }, ...name);
    const own = ui.element("div", { class: "sheet-tiles" }, ...tiles.slice(k * blocks, (k + 1) * blocks));
    return ui.element("div", { class: "sheet-line", role: "group", "aria-label": `Slot ${k}` }, named, own);
  });
  const style = `--blocks: ${blocks}; --half: ${Math.ceil(blocks / 2)}; --room: ${room}`;
  const element = ui.element("div", { class: "sheet", style, "data-lab-value": true }, ...lines);
  return { element, lines };
}

/** To stand in the style of a lab that shows one. */
export const SHEET = `
.sheet {
  display: grid;
  gap: 0.35rem;
  --across: var(--blocks);
}
.sheet-line {
  display: grid;
  grid-template-columns: var(--room) minmax(0, 1fr);
  gap: 0.5rem;
  align-items: center;
}
.sheet-slot {
  display: flex;
  flex-wrap: wrap;
  gap: 0 0.4rem;
  align-items: center;
  padding-left: 0.35rem;
  border-left: 4px solid;
}
.sheet-tiles {
  display: grid;
  grid-template-columns: repeat(var(--across), minmax(0, 1fr));
  gap: 2px;
}
@media (max-width: 600px) {
  .sheet {
    --across: var(--half);
  }
  .sheet-line {
    grid-template-columns: calc(0.75 * var(--room)) minmax(0, 1fr);
  }
}
`;
