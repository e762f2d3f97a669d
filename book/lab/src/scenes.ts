/**
 * Scenes drawn as `slotlib.data` draws them: bevelled Tetrominoes, and flat figures in front of one another.
 *
 * How a model's scenes look comes with its weights, as the stage that `slotlib export lab` wrote.
 */

export type Rgb = [number, number, number];

/** Something in a scene. Colours are whole numbers up to 255. */
export interface Thing {
  /** Row of the stage's `shapes`. */
  shape: number;
  /** A piece's upper left corner, a figure's centre, in pixels. */
  x: number;
  y: number;
  /** In radians; of pieces each rotation is a shape of its own. */
  angle: number;
  /** One of the stage's `sizes`. */
  size: number;
  colour: Rgb;
}

export interface Scene {
  ground: Rgb;
  /** Those in front come last. */
  things: Thing[];
}

export interface Drawn {
  /** Channel by channel, in multiples of 1/255. */
  image: Float32Array;
  /** 0 is the background, i the i-th thing. */
  mask: Uint8Array;
}

/** What the export says of a kind of scenes. */
export interface Written {
  name: string;
  resolution: number;
  options: Record<string, unknown>;
  shapes: string[];
  sizes: number[];
  colours: Record<string, number[]>;
  scenes: { ground: number[]; things: number[][] }[];
  pieces?: number[][][];
  bevel?: number[][];
  outlines?: [string, Record<string, number>][];
  clockwise?: number;
  soft?: boolean;
}

export class Stage {
  readonly written: Written;
  readonly scenes: Scene[];

  constructor(written: Written) {
    this.written = written;
    this.scenes = written.scenes.map(({ ground, things }) => ({ ground: ground as Rgb, things: things.map(fromRow) }));
  }

  get resolution(): number {
    return this.written.resolution;
  }

  /** The lines of Python that give the i-th of its scenes. */
  inPython(i: number): string {
    const { name, options, scenes } = this.written;
    const given = Object.entries(options).map(([option, value]) => `, ${option}=${JSON.stringify(value)}`);
    return `slotlib.data.make("${name}", ${scenes.length}${given.join("")}).batch([${i}])`;
  }

  draw(scene: Scene): Drawn {
    return this.written.pieces ? this.#pieces(scene) : this.#figures(scene);
  }

  /** An image of whole pixels: of each the number of its colour among the stage's, or the ground. Laid out as `Drawn`'s. */
  painted(labels: Uint8Array, ground: Rgb): Float32Array {
    const colours = Object.values(this.written.colours);
    const image = new Float32Array(3 * labels.length);
    labels.forEach((label, i) => {
      for (let c = 0; c < 3; c++) image[c * labels.length + i] = (colours[label] ?? ground)[c] / 255;
    });
    return image;
  }

  /** Width and height of a thing's place in pixels: what stays within the image when it is moved. */
  extent({ shape }: Thing): [number, number] {
    const { pieces, bevel } = this.written;
    if (!pieces) return [0, 0];
    const far = (axis: number): number => (Math.max(...pieces[shape].map((block) => block[axis])) + 1) * bevel!.length;
    return [far(1), far(0)];
  }

  /** The nearest place that the data could have: within the image, and a piece on whole pixels. */
  placed(thing: Thing, x: number, y: number): Thing {
    const [width, height] = this.extent(thing);
    const side = this.resolution;
    const fit = (value: number, room: number): number => {
      const least = width ? 0 : side / 8; // a figure's centre stays away from the border
      const most = width ? side - room : (side * 7) / 8;
      const nearest = Math.min(Math.max(value, least), most);
      return width ? Math.round(nearest) : Math.round(nearest * 2) / 2;
    };
    return { ...thing, x: fit(x, width), y: fit(y, height) };
  }

  /** A quarter turn for a piece, an eighth for a figure, clockwise as seen. */
  turned(thing: Thing): Thing {
    const { pieces, clockwise } = this.written;
    if (!pieces) return { ...thing, angle: rounded((thing.angle + (clockwise! * Math.PI) / 8 + 2 * Math.PI) % (2 * Math.PI)) };
    const cells = pieces[thing.shape].map(([r, c]) => [c, -r]);
    const [top, left] = [0, 1].map((axis) => Math.min(...cells.map((cell) => cell[axis])));
    const wanted = cells.map(([r, c]) => [r - top, c - left].join()).sort().join(" ");
    const shape = pieces.findIndex((piece) => piece.map((cell) => cell.join()).sort().join(" ") === wanted);
    return this.placed({ ...thing, shape }, thing.x, thing.y);
  }

  /** Which thing covers a place of the image, or undefined. */
  at(drawn: Drawn, x: number, y: number): number | undefined {
    const side = this.resolution;
    const within = (value: number): number => Math.min(Math.max(Math.floor(value), 0), side - 1);
    const found = drawn.mask[within(y) * side + within(x)];
    return found ? found - 1 : undefined;
  }

  #pieces({ things }: Scene): Drawn {
    const { resolution: side, pieces, bevel } = this.written;
    const area = side * side;
    const [image, mask] = [new Float32Array(3 * area), new Uint8Array(area)];
    things.forEach(({ shape, x, y, colour }, k) => {
      for (const [row, column] of pieces![shape]) {
        bevel!.forEach((shades, dy) =>
          shades.forEach((shade, dx) => {
            const at = (y + row * bevel!.length + dy) * side + x + column * bevel!.length + dx;
            mask[at] = k + 1;
            colour.forEach((part, c) => (image[c * area + at] = ((part / 255) * shade) / 255));
          }),
        );
      }
    });
    return { image, mask };
  }

  /** From front to back: how much of each pixel every figure paints, and what is left for those behind it. */
  #figures({ ground, things }: Scene): Drawn {
    const { resolution: side, outlines, clockwise, soft } = this.written;
    const [area, zoom] = [side * side, side / 64];
    const [painted, left, mask] = [new Float32Array(3 * area), new Float32Array(area).fill(1), new Uint8Array(area)];
    for (let k = things.length - 1; k >= 0; k--) {
      const { shape, x, y, angle, size, colour } = things[k];
      const [name, numbers] = outlines![shape];
      const distance = OUTLINES[name];
      const [cosine, sine] = [Math.cos(angle), clockwise! * Math.sin(angle)];
      for (let at = 0; at < area; at++) {
        const [right, down] = [(at % side) + 0.5 - x, Math.floor(at / side) + 0.5 - y];
        const outside = distance(cosine * right + sine * down, cosine * down - sine * right, size * zoom, numbers);
        const share = soft ? Math.min(Math.max(0.5 - outside, 0), 1) : Number(outside <= 0);
        const cover = even(share * 256) / 256;
        if (!cover) continue;
        if (cover >= 0.5 && !mask[at]) mask[at] = k + 1;
        const paint = even(left[at] * cover * 256) / 256;
        colour.forEach((part, c) => (painted[c * area + at] += part * paint));
        left[at] -= paint;
      }
    }
    return { image: painted.map((sum, i) => even(sum + ground[Math.floor(i / area)] * left[i % area]) / 255), mask };
  }
}

/**
 * For every shape the distance from its outline, negative inside: of a pixel at (u, v) as the figure sees it, which stands
 * upright at the origin, v down.
 */
type Distance = (u: number, v: number, size: number, numbers: Record<string, number>) => number;

const SIDE = 12.8; // of the square standing on its corner that is most of the lobed heart
const RISE = (Math.SQRT1_2 * (Math.PI / 8 + 1 / 6)) / (1 + Math.PI / 4);

const OUTLINES: Record<string, Distance> = {
  // Shapes: `size` is the radius of the circle of the same area.
  circle_by_area: (u, v, size) => Math.hypot(u, v) - size,
  square_by_area: (u, v, size) => Math.max(Math.abs(u), Math.abs(v)) - (size * Math.sqrt(Math.PI)) / 2,
  triangle_by_area: (u, v, size) =>
    Math.max(v, Math.abs(u) * Math.sqrt(3 / 4) - v / 2) - (size * Math.sqrt((4 * Math.PI) / Math.sqrt(27))) / 2,

  // Multi-dSprites.
  square: (u, v, scale, { half }) => Math.max(Math.abs(u), Math.abs(v)) - half * scale,
  ellipse(u, v, scale, { a, b }) {
    const [across, along] = [a * scale, b * scale];
    [u, v] = [u / across, v / along];
    const level = Math.sqrt(u * u + v * v + 1e-6);
    [u, v] = [u / across, v / along];
    return (level * (level - 1)) / Math.sqrt(u * u + v * v + 1e-9);
  },
  lobed_heart(u, v, scale) {
    const side = SIDE * scale;
    const middle = side * Math.sqrt(1 / 8);
    [u, v] = [Math.abs(u), v - RISE * side];
    return Math.min((u + Math.abs(v)) * Math.SQRT1_2, Math.hypot(u - middle, v + middle)) - side / 2;
  },
  heart_curve(u, v, scale) {
    [u, v] = [Math.abs(u) / (9.6 * scale), v / (0.6625 * scale) + 2.19];
    const cosine = Math.sqrt(1 - Math.min(u, 1) ** (2 / 3));
    const [evenTerms, oddTerms] = [4 - 2 * cosine ** 2 - 8 * cosine ** 4, 19 * cosine - 8 * cosine ** 3];
    return Math.max(u - 1, Math.abs(v + evenTerms) - oddTerms);
  },
};

/** The nearest whole number, of two the even one, as torch rounds. */
function even(value: number): number {
  const low = Math.floor(value);
  const above = value - low;
  if (above !== 0.5) return above < 0.5 ? low : low + 1;
  return low % 2 ? low + 1 : low;
}

function rounded(value: number): number {
  return Math.round(value * 1000) / 1000;
}

// --- scenes as text, for the page's address ---

export function fromRow([shape, x, y, angle, size, ...colour]: number[]): Thing {
  return { shape, x, y, angle, size, colour: colour as Rgb };
}

/** Such as "3_10_12_0_1_255_0_0~…", a thing after another. */
export function write(things: Thing[]): string {
  return things
    .map(({ shape, x, y, angle, size, colour }) => [shape, x, y, rounded(angle), size, ...colour].join("_"))
    .join("~");
}

/** What `write` wrote, as far as the stage can draw it; undefined if it cannot. */
export function read(text: string, stage: Stage): Thing[] | undefined {
  if (text === "") return [];
  const things = text.split("~").map((part) => part.split("_").map(Number));
  const { shapes, sizes } = stage.written;
  const fits = ([shape, , , , size, ...colour]: number[]): boolean =>
    Number.isInteger(shape) && shape >= 0 && shape < shapes.length && sizes.includes(size) && colour.length === 3;
  if (!things.every((numbers) => numbers.every(Number.isFinite) && fits(numbers))) return undefined;
  return things.map(fromRow).map((thing) => stage.placed(thing, thing.x, thing.y));
}
