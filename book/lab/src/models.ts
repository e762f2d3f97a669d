/** The models that the page computes, by the names of their classes. */
import { SlotAutoencoder } from "./autoencoder.ts";
import { CodePrior } from "./prior.ts";
import { SVQAutoencoder } from "./svq.ts";
import type { Made, Weights } from "./weights.ts";

export type Computed = SlotAutoencoder | CodePrior;

export function made(model: Made, weights: Weights): Computed {
  if (model.class_path === "CodePrior") return new CodePrior(model, weights);
  if (model.class_path === "SVQAutoencoder") return new SVQAutoencoder(model, weights);
  return new SlotAutoencoder(model, weights);
}
