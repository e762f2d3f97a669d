/**
 * Slots made of codes (chapter 07): Wu, Lee and Ahn, 2024, arXiv 2402.01203, as in `slotlib/svq.py` and `vq.py`.
 *
 * A slot is cut into blocks, each with a codebook of its own. After the attention nothing mixes the blocks: GRU, MLP
 * and LayerNorm are block-diagonal. An iteration ends in codes, but for the first ones, which search in plain numbers.
 */
import { SlotAutoencoder, type Answer, type Drawn, type Prepared, type Question } from "./autoencoder.ts";
import { iteration, type History, type Prepared as Inputs } from "./slot_attention.ts";
import { layerNorm, row, rows, type Rows } from "./tensor.ts";
import type { Made, Tensor, Weights } from "./weights.ts";

/** A scene as text: slot after slot, block after block. */
export type Codes = number[];

export interface CodedAnswer extends Answer {
  codes: Codes;
}

/** What a block of a slot may say: codes that stand for the same, and what the scene looks like then. */
export interface Word {
  codes: number[];
  image: Float32Array;
  /** How much of the picture changes: the squared error, summed over it. */
  change: number;
}

export class SVQAutoencoder extends SlotAutoencoder {
  readonly numBlocks: number;
  readonly numCodes: number;
  readonly #layers: Weights;
  readonly #search: number;
  readonly #mixing: boolean;
  /** `[blocks, codes, width of a block]`. */
  readonly #codebook: Float32Array;
  readonly #width: number;

  constructor(model: Made, weights: Weights) {
    super(model, weights);
    const { quantizer, quantise, search_iterations: search, mixing } = model.init_args.attention;
    const kind = quantizer.class_path ?? "Nearest";
    if (kind !== "Nearest") throw new Error(`The page cannot compute a model with the quantizer ${kind}.`);
    if (quantise === false) throw new Error("The page cannot compute a model whose slots are not made of codes.");
    [this.numBlocks, this.numCodes, this.#width] = this.attention.shape("quantizer.codebook");
    this.#codebook = this.attention.tensor("quantizer.codebook");
    this.#layers = mixing ? this.attention : renamed(this.attention);
    [this.#search, this.#mixing] = [search, mixing];
  }

  override answer(prepared: Prepared, question: Question): CodedAnswer {
    const found = super.answer(prepared, question);
    return { ...found, codes: this.nearest(found.slots) };
  }

  protected override attend(inputs: Inputs, start: Rows, iterations: number): History {
    const search = Math.min(this.#search, iterations - 1);
    const mixing = this.#mixing ? {} : { normMlp: (slots: Rows) => this.#normBlocks(slots) };
    const change = { compete: this.compete, ...mixing };
    const history: History = { slots: [start], attention: [] };
    for (let i = 0; i < iterations; i++) {
      const { slots, attention } = iteration(this.#layers, history.slots[i], inputs, change);
      history.slots.push(i < search ? slots : this.slotsOf(this.nearest(slots)));
      history.attention.push(attention);
    }
    return history;
  }

  /** Every block normalised on its own, without learned scale and shift. */
  #normBlocks(x: Rows): Rows {
    const blocks = rows(x.count * this.numBlocks, this.#width, x.data);
    return rows(x.count, x.width, layerNorm(blocks, undefined, 1e-5).data);
  }

  #code(block: number, code: number): Float32Array {
    const at = (block * this.numCodes + code) * this.#width;
    return this.#codebook.subarray(at, at + this.#width);
  }

  /** For each block of each slot the closest code; the first of equals. */
  nearest(slots: Rows): Codes {
    const codes: Codes = [];
    for (let at = 0; at < slots.data.length; at += this.#width) {
      const vector = slots.data.subarray(at, at + this.#width);
      const block = codes.length % this.numBlocks;
      let [best, least] = [0, Infinity];
      for (let code = 0; code < this.numCodes; code++) {
        const distance = this.#code(block, code).reduce((sum, value, i) => sum + (value - vector[i]) ** 2, 0);
        if (distance < least) [best, least] = [code, distance];
      }
      codes.push(best);
    }
    return codes;
  }

  /** The slots that codes stand for. */
  slotsOf(codes: Codes): Rows {
    const slots = rows(codes.length / this.numBlocks, this.numBlocks * this.#width);
    codes.forEach((code, i) => slots.data.set(this.#code(i % this.numBlocks, code), i * this.#width));
    return slots;
  }

  /** Draw a scene from codes. */
  decode(codes: Codes): Drawn {
    return this.shown(this.decoder(this.slotsOf(codes)));
  }

  /** The codes of a block, those together that stand for the same: synonyms, of which the first is chosen. */
  synonyms(block: number): number[][] {
    const groups = new Map<string, number[]>();
    for (let code = 0; code < this.numCodes; code++) {
      const value = this.#code(block, code).join();
      groups.set(value, [...(groups.get(value) ?? []), code]);
    }
    return [...groups.values()];
  }

  /** The scene with each word in this block of this slot. Only that slot is drawn anew. */
  words(codes: Codes, slot: number, block: number): Word[] {
    const groups = this.synonyms(block);
    const own = codes.slice(slot * this.numBlocks, (slot + 1) * this.numBlocks);
    const scene = this.decoder(this.slotsOf(codes));
    const before = this.shown(scene).image;
    const variants = groups.flatMap(([code]) => own.map((said, m) => (m === block ? code : said)));
    const others = this.decoder(this.slotsOf(variants));
    return groups.map((group, i) => {
      row(scene.colours, slot).set(row(others.colours, i));
      row(scene.logits, slot).set(row(others.logits, i));
      const { image } = this.shown(scene);
      const change = image.reduce((sum, value, pixel) => sum + (value - before[pixel]) ** 2, 0);
      return { codes: group, image, change };
    });
  }
}

/** A GRU's blocks under the names that a GRU's matrices have. */
function renamed(layers: Weights): Weights {
  const of = (name: string): Tensor => ({ data: layers.tensor(name), shape: layers.shape(name) });
  return layers.with({ "gru.weight_ih": of("gru.input_blocks"), "gru.weight_hh": of("gru.hidden_blocks") });
}
