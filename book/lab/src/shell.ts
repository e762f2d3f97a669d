/**
 * Finds the labs of a page and starts each when it comes into view.
 *
 *     <section data-lab="desk" data-state="idle" data-settings="slots=4"> a picture and a sentence </section>
 *
 * `data-state` goes from idle to loading to ready. If anything fails it is "failed": what stood there before comes back,
 * with one sentence that says why, and the rest of the page does not notice.
 */
import { Model, type Lab, type Settings } from "./settings.ts";
import { load } from "./script.ts";
import { TROUBLE } from "./ui.ts";
import versions from "versions:";

const AHEAD = "200px"; // a lab starts loading before it is seen
const PAUSE = 300; // ms without a change until the page's address follows: browsers limit how often it may

window.slotlab!.versions = versions;

async function start(section: HTMLElement): Promise<void> {
  const name = section.dataset.lab!;
  const before = [...section.childNodes];
  const el = document.createElement("div");
  el.className = "lab";
  section.dataset.state = "loading";
  section.setAttribute("aria-busy", "true");

  const fail = (sentence: string): void => {
    const notice = document.createElement("p");
    notice.className = "lab-trouble";
    notice.setAttribute("role", "alert");
    notice.textContent = sentence;
    section.replaceChildren(notice, ...before);
    section.dataset.state = "failed";
    section.removeAttribute("aria-busy");
  };

  try {
    await load(`${name}.js`);
    const lab = window.slotlab?.[name] as Lab<Settings> | undefined;
    if (!lab) throw new Error(`This page knows no experiment called ${name}.`);
    const model = new Model(lab.settings);
    model.starting(section.dataset.settings ?? "");
    follow(name, model, section);
    el.addEventListener(TROUBLE, (event) => fail((event as CustomEvent<string>).detail));
    section.append(el); // a lab may need to know its width
    await lab.render({ model, el });
    if (section.dataset.state !== "loading") return;
    section.replaceChildren(el);
    section.dataset.state = "ready";
    section.removeAttribute("aria-busy");
  } catch (error) {
    fail(error instanceof Error ? error.message : String(error));
  }
}

/** Keep a lab's settings and the page's address the same: `#lab=desk&slots=9`. */
function follow(name: string, model: Model<Settings>, section: HTMLElement): void {
  const arrive = (hash: string): void => {
    const said = settingsOf(hash, name);
    if (said === undefined) return;
    model.read(said);
    section.scrollIntoView({ block: "nearest" });
  };
  arrive(location.hash);
  // What the event says: the page's address may have followed an earlier change by now.
  window.addEventListener("hashchange", ({ newURL }) => arrive(new URL(newURL).hash));
  let timer = 0;
  model.on("change", () => {
    clearTimeout(timer);
    timer = window.setTimeout(() => {
      const said = model.write();
      const hash = said ? `#lab=${name}&${said}` : `#lab=${name}`;
      if (location.hash !== hash) history.replaceState(history.state, "", hash);
    }, PAUSE);
  });
}

/** What an address says of the lab called `name`; undefined if it speaks of something else. */
function settingsOf(hash: string, name: string): string | undefined {
  const said = new URLSearchParams(hash.slice(1));
  if (said.get("lab") !== name) return undefined;
  said.delete("lab");
  return said.toString();
}

function prepare(section: HTMLElement): void {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.labStart = "";
  button.textContent = "Start the experiment";
  section.append(button);
  const begin = (): void => {
    if (section.dataset.state !== "idle") return;
    seen.disconnect();
    window.removeEventListener("hashchange", named);
    button.remove();
    void start(section);
  };
  const named = (): void => {
    if (settingsOf(location.hash, section.dataset.lab!) === undefined) return;
    section.scrollIntoView({ block: "nearest" });
    begin();
  };
  const seen = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && begin(), {
    rootMargin: AHEAD,
  });
  button.addEventListener("click", begin);
  window.addEventListener("hashchange", named);
  seen.observe(section);
  named();
}

for (const section of document.querySelectorAll<HTMLElement>("section[data-lab]")) prepare(section);
