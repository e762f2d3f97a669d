/** Runs in a worker: one model, and the last image it was asked about, whose features are kept. */
import type { Answer, Prepared, Question } from "./autoencoder.ts";
import { made, type Computed, type Methods } from "./models.ts";
import { weightsOf, type Exported } from "./weights.ts";

/** A call of one of the other things that a model can do. */
export interface Call {
  method: keyof Methods;
  given: unknown[];
}

export type Asked = Exported | { image: Float32Array; question: Question } | Call;
/** A model is answered with "ready"; what goes wrong with a sentence for the reader. */
export type Reply = "ready" | Answer | { returned: unknown } | { trouble: string };

let model: Computed;
let last: { image: Float32Array; prepared: Prepared } | undefined;

function reply(asked: Asked): Reply {
  if ("tensors" in asked) {
    model = made(asked.model, weightsOf(asked));
    return "ready";
  }
  if ("method" in asked) {
    const methods = model as unknown as Record<string, (...given: unknown[]) => unknown>;
    return { returned: methods[asked.method](...asked.given) };
  }
  const { image, question } = asked;
  if (!last || image.some((value, i) => value !== last!.image[i])) last = { image, prepared: model.prepare(image) };
  return model.answer(last.prepared, question);
}

self.onmessage = ({ data }: MessageEvent<Asked>) => {
  try {
    self.postMessage(reply(data));
  } catch (error) {
    self.postMessage({ trouble: error instanceof Error ? error.message : String(error) });
  }
};
