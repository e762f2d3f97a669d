/** Scripts and weights that are loaded when they are needed, with script tags: a page from a file may not fetch. */

import { DAMAGED, type Exported } from "./weights.ts";

declare global {
  interface Window {
    /** Labs by name, and what the scripts in `lab/weights` put beside them. */
    slotlab?: Record<string, unknown> & {
      base?: string;
      /** Of each script below `base` a hash of what is in it, from the shell: a browser may keep what has not changed. */
      versions?: Record<string, string>;
      weights?: Record<string, unknown>;
    };
  }
}

// The folder of the script that is running when the page loads: the shell's.
const running = document.currentScript as HTMLScriptElement | null;
if (running) {
  window.slotlab ??= {};
  window.slotlab.base ??= new URL(".", running.src).href;
}

const loading = new Map<string, Promise<void>>();

/** Run the script at `path` below the folder of the labs, once. Rejects with a sentence for the reader. */
export function load(path: string): Promise<void> {
  if (!loading.has(path)) {
    const script = document.createElement("script");
    const { base, versions = {} } = window.slotlab!;
    script.src = new URL(path in versions ? `${path}?v=${versions[path]}` : path, base).href;
    const done = new Promise<void>((resolve, reject) => {
      script.onload = () => resolve();
      script.onerror = () => {
        loading.delete(path);
        reject(new Error(`This experiment could not start: ${path} could not be loaded.`));
      };
    });
    loading.set(path, done);
    document.head.append(script);
  }
  return loading.get(path)!;
}

/** The exported model of this name. Rejects with a sentence for the reader. */
export async function loadModel(name: string): Promise<Exported> {
  await load(`weights/${name}.js`);
  const exported = window.slotlab?.weights?.[name] as Exported | undefined;
  if (!exported) throw new Error(DAMAGED);
  return exported;
}
