/** The models that the page computes, by the names of their classes. */
import { AdaptiveAutoencoder } from "./adaptive.ts";
import { SlotAutoencoder } from "./autoencoder.ts";
import { CodePrior } from "./prior.ts";
import { SVQAutoencoder } from "./svq.ts";
import type { Made, Weights } from "./weights.ts";

export type Computed = SlotAutoencoder | CodePrior;

/** All that one model or another can do besides `answer`. */
export type Methods = { [M in keyof CodePrior]: CodePrior[M] } & { [M in keyof SlotAutoencoder]: SlotAutoencoder[M] };

const KINDS: Record<string, new (model: Made, weights: Weights) => Computed> = {
  SlotAutoencoder,
  OutlinedAutoencoder: SlotAutoencoder,
  AdaptiveAutoencoder,
  AdaptiveOutlinedAutoencoder: AdaptiveAutoencoder,
  SVQAutoencoder,
  CodePrior,
};

/** Throws a sentence for the reader where the page does not know the class. */
export function made(model: Made, weights: Weights): Computed {
  const Kind = KINDS[model.class_path];
  if (!Kind) throw new Error(`The page cannot compute a ${model.class_path}.`);
  return new Kind(model, weights);
}
