/**
 * Quizzes and predictions answer in the page.
 *
 * A chapter asks in two ways. In its quiz a numbered question stands above a folded answer. A box that begins with
 * "Predict." asks what the next picture will show. Here the reader writes an answer first, then compares: with the
 * explanation, or with the picture, below which the guess stands again. What was written stays in this browser. Without
 * JavaScript the page is as it was.
 */
import { button, element } from "../ui.ts";

type Mark = "right" | "partly" | "wrong";
const MARKS: Record<Mark, string> = { right: "I had it", partly: "Partly", wrong: "I did not" };

interface Answer {
  text: string;
  mark?: Mark;
}

/** What was answered on this page, by the question's own words. A browser that keeps nothing forgets with the page. */
class Memory {
  #answers: Record<string, Answer> = {};
  #key: string;

  constructor(page: string) {
    this.#key = `slotlib quiz ${page}`;
    try {
      this.#answers = JSON.parse(localStorage.getItem(this.#key) ?? "{}") as Record<string, Answer>;
    } catch {
      this.#answers = {}; // blocked, or not written by this page
    }
  }

  get(question: string): Answer | undefined {
    return this.#answers[question];
  }

  set(question: string, answer: Answer): void {
    this.#answers[question] = answer;
    this.#keep();
  }

  forget(): void {
    this.#answers = {};
    this.#keep();
  }

  #keep(): void {
    try {
      localStorage.setItem(this.#key, JSON.stringify(this.#answers));
    } catch {
      // Then only this page remembers.
    }
  }
}

/** Something asked. `compare` shows what the answer is to be compared with; `marking` is where that is judged. */
interface Question {
  text: string;
  kind: "question" | "prediction";
  below: Element;
  compare(): void;
  marking: { after: Element };
}

/** A numbered question with the folded answer that follows it. */
function questions(main: Element): Question[] {
  return [...main.querySelectorAll("details")].flatMap((answer) => {
    const asked = answer.previousElementSibling;
    if (answer.querySelector("summary")?.textContent?.trim() !== "Answer" || !asked) return [];
    if (!/^\d+\./.test(asked.querySelector("strong")?.textContent ?? "")) return [];
    const compare = (): void => void (answer.open = true);
    return [{ text: words(asked), kind: "question" as const, below: asked, compare, marking: { after: answer } }];
  });
}

/** A box to predict in, and the first thing after it that shows something. */
function predictions(main: Element): Question[] {
  return [...main.querySelectorAll("blockquote")].flatMap((box) => {
    const asked = [...box.querySelectorAll("p")].at(-1);
    if (!asked || box.querySelector("strong")?.textContent !== "Predict.") return [];
    let shown = box.nextElementSibling;
    while (shown && !shows(shown)) shown = shown.nextElementSibling;
    const compare = (): void => undefined; // the reader reads on
    return [{ text: words(box), kind: "prediction" as const, below: asked, compare, marking: { after: shown ?? box } }];
  });
}

/** A lab, a picture, or what a cell prints that the reader is to see. */
function shows(element: Element): boolean {
  const picture = "section[data-lab], .cell_output :is(img, script)"; // a widget is a script at first
  if (element.matches("section[data-lab]") || element.querySelector(picture)) return true;
  return element.querySelector(".cell_output") !== null && !element.matches(".tag_hide-input, .tag_hide-cell");
}

const words = (of: Element): string => (of.textContent ?? "").replace(/\s+/g, " ").trim();

/** Let every question of the page be answered. */
export function enhance(main: Element): void {
  const memory = new Memory(location.pathname.split("/").at(-1)!);
  const asked = [...questions(main), ...predictions(main)];
  if (asked.length === 0) return;
  const tally = element("output");
  const count = (): void => void (tally.textContent = sum(asked, memory));
  const forms = asked.map((question) => ask(question, memory, count));
  const forget = button("Forget my answers", () => {
    memory.forget();
    for (const form of forms) form();
    count();
  });
  main
    .querySelector("section#quiz > :is(h1, h2)")
    ?.after(element("p", { class: "quiz-tally" }, tally, " Kept in this browser only. ", forget));
  document.head.append(element("style", {}, STYLE));
  count();
}

/** The form of one question. Returns what shows it as the memory has it. */
function ask({ text, kind, below, compare, marking }: Question, memory: Memory, count: () => void): () => void {
  const field = kind === "question" ? element("textarea", { rows: 2 }) : element("input", { type: "text" });
  const label = kind === "question" ? "Your answer" : "Your guess";
  const submit = element("button", { type: "submit" }, kind === "question" ? "Compare" : "Keep it");
  const reply = element("output");
  const form = element("form", { class: "quiz-form" }, element("label", {}, label, " ", field), submit, reply);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const written = field.value.trim();
    if (!written) return void (reply.textContent = "Write something first: a wrong guess teaches more than none.");
    memory.set(text, { text: written });
    compare();
    show();
    count();
  });
  below.after(form);

  const echo = element("span");
  const marks = Object.entries(MARKS).map(([mark, name]) => {
    const made = button(name, () => {
      memory.set(text, { text: memory.get(text)!.text, mark: mark as Mark });
      show();
      count();
    });
    return { mark, made };
  });
  const verdict = element("p", { class: "quiz-verdict" }, echo, ...marks.map(({ made }) => made));
  marking.after.after(verdict);

  const show = (): void => {
    const kept = memory.get(text);
    field.value = kept?.text ?? "";
    verdict.hidden = !kept;
    reply.textContent = !kept
      ? ""
      : kind === "question"
        ? "Compare with the answer below."
        : "Kept. Read on: it comes back below what is shown.";
    echo.textContent = kept ? `You ${kind === "question" ? "wrote" : "predicted"}: “${kept.text}” ` : "";
    for (const { mark, made } of marks) made.setAttribute("aria-pressed", String(kept?.mark === mark));
  };
  show();
  return show;
}

function sum(asked: Question[], memory: Memory): string {
  return (["question", "prediction"] as const)
    .map((kind) => {
      const these = asked.filter((question) => question.kind === kind);
      const answers = these.flatMap(({ text }) => memory.get(text) ?? []);
      const right = answers.filter(({ mark }) => mark === "right").length;
      return these.length ? `${answers.length} of ${these.length} ${kind}s answered, ${right} right.` : "";
    })
    .join(" ")
    .trim();
}

const STYLE = `
.quiz-form,
.quiz-verdict,
.quiz-tally {
  display: flex;
  flex-wrap: wrap;
  gap: 0.4rem 0.7rem;
  align-items: center;
  margin: 0.4rem 0 0.8rem;
}
.quiz-form label {
  display: flex;
  flex: 1 1 16rem;
  gap: 0.5rem;
  align-items: center;
  margin: 0;
}
.quiz-form :is(input, textarea) {
  flex: 1;
  min-width: 8rem;
  padding: 0.2rem 0.4rem;
  border: 1px solid var(--pst-color-border, #c9d3dd);
  border-radius: 0.25rem;
  background: var(--pst-color-background, #fff);
  color: inherit;
  font: inherit;
}
.quiz-form output {
  flex-basis: 100%;
  font-size: 0.9em;
  color: var(--pst-color-text-muted, #48566b);
}
.quiz-form output:empty {
  display: none;
}
.quiz-verdict[hidden] {
  display: none;
}
:is(.quiz-form, .quiz-verdict, .quiz-tally) button {
  padding: 0.15rem 0.7rem;
  border: 1px solid var(--pst-color-text-muted, #48566b);
  border-radius: 0.25rem;
  background: var(--pst-color-surface, #f3f4f5);
  color: inherit;
  font: inherit;
}
.quiz-verdict button[aria-pressed="true"] {
  border-color: var(--pst-color-primary, #0a7d91);
  box-shadow: inset 0 0 0 1px var(--pst-color-primary, #0a7d91);
}
@media print {
  .quiz-form,
  .quiz-verdict,
  .quiz-tally {
    display: none;
  }
}
`;

const main = document.querySelector("main") ?? document.body;
enhance(main);
