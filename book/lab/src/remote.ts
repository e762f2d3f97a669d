/** A trained model that answers from a worker, so that the page stays free while it computes. */
import source from "worker:./worker.ts";
import type { Answer, Question } from "./autoencoder.ts";
import type { Methods } from "./models.ts";
import { loadModel } from "./script.ts";
import type { Exported } from "./weights.ts";
import type { Asked, Reply } from "./worker.ts";

const BLOCKED = "This experiment could not start: the browser does not let the page compute in the background.";

interface Waiting {
  asked: Asked;
  resolve(reply: Reply | undefined): void;
  reject(error: Error): void;
}

type Arguments<M extends keyof Methods> = Methods[M] extends (...given: infer G) => unknown ? G : never;
type Returned<M extends keyof Methods> = Methods[M] extends (...given: never[]) => infer R ? R : never;

export class Remote {
  readonly exported: Exported;
  readonly #worker: Worker;
  #busy = false;
  #waiting: Waiting | undefined;

  private constructor(exported: Exported) {
    this.exported = exported;
    try {
      this.#worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })));
    } catch {
      throw new Error(BLOCKED);
    }
  }

  /** The shipped model of this name. Rejects with a sentence for the reader. */
  static async load(name: string): Promise<Remote> {
    const exported = await loadModel(name);
    const remote = new Remote(exported);
    await remote.#exchange(exported);
    return remote;
  }

  /** The answer, or undefined if something else was asked before this question's turn came. */
  ask(image: Float32Array, question: Question): Promise<Answer | undefined> {
    return this.#wait({ image, question }) as Promise<Answer | undefined>;
  }

  /** The same for what else a model can do. */
  async call<M extends keyof Methods>(method: M, ...given: Arguments<M>): Promise<Returned<M> | undefined> {
    const reply = await this.#wait({ method, given });
    return reply && (reply as { returned: Returned<M> }).returned;
  }

  #wait(asked: Asked): Promise<Reply | undefined> {
    return new Promise((resolve, reject) => {
      this.#waiting?.resolve(undefined);
      this.#waiting = { asked, resolve, reject };
      this.#next();
    });
  }

  #next(): void {
    if (this.#busy || !this.#waiting) return;
    const { asked, resolve, reject } = this.#waiting;
    this.#waiting = undefined;
    this.#exchange(asked).then(resolve, reject);
  }

  /** One question and its reply; there is never more than one under way. */
  #exchange(asked: Asked): Promise<Reply> {
    this.#busy = true;
    return new Promise((resolve, reject) => {
      const over = (settle: () => void): void => {
        this.#busy = false;
        settle();
        this.#next();
      };
      this.#worker.onmessage = ({ data }: MessageEvent<Reply>) =>
        over(() => (typeof data === "object" && "trouble" in data ? reject(new Error(data.trouble)) : resolve(data)));
      this.#worker.onerror = (event) => {
        event.preventDefault();
        over(() => reject(new Error(BLOCKED)));
      };
      this.#worker.postMessage(asked);
    });
  }
}

/** Resolves to what a reply says. Nobody waits any longer once the work that it was for is out of date. */
export type Wait = <T>(reply: Promise<T | undefined>) => Promise<T>;

const OUT_OF_DATE = Symbol();

/** Work that is given up where it waits as soon as it was begun anew. Until the newest is done, `el` says it is busy. */
export function latest(el: Element, work: (wait: Wait) => Promise<void>): () => Promise<void> {
  let turn = 0;
  return async () => {
    const own = ++turn;
    const wait: Wait = async (reply) => {
      const found = await reply;
      if (own !== turn || found === undefined) throw OUT_OF_DATE;
      return found;
    };
    el.setAttribute("aria-busy", "true");
    try {
      await work(wait);
    } catch (reason) {
      if (reason !== OUT_OF_DATE) throw reason;
    }
    if (own === turn) el.removeAttribute("aria-busy");
  };
}
