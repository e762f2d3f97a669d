// What the pages do without a lab: let the keyboard scroll what is too wide, typeset formulas (those in view first), turn
// the pages of flipbooks, and print.
{
  // What scrolls can be reached by the keyboard; pictures and formulas then say what they are. What fits is left alone.
  const SCROLLS = "article :is(.picture, div.math, pre, .cell_output > .output, .pst-scrollable-table-container)";
  const NAMES = { math: "Formula, scrolls sideways", picture: "Figure, scrolls sideways" };
  const watcher = new ResizeObserver((entries) => {
    const seen = entries.map(({ target: box }) => {
      const name = NAMES[["math", "picture"].find((kind) => box.classList.contains(kind))];
      // Formulas and pictures are as high as they are.
      const scrolls = box.scrollWidth > box.clientWidth || (!name && box.scrollHeight > box.clientHeight);
      return { box, name, scrolls };
    });
    for (const { box, name, scrolls } of seen) {
      const says = { tabindex: 0, ...(name && { role: "group", "aria-label": name }) };
      for (const key in says) scrolls ? box.setAttribute(key, says[key]) : box.removeAttribute(key);
    }
  });

  // All formulas of a chapter at once keep a slow machine busy for a second. Those in or near the first view come
  // first, and the page is then ready, as MathJax calls it; the others when there is nothing else to do.
  if (window.MathJax) {
    const pageReady = () =>
      new Promise((done) => {
        const formulas = [...document.querySelectorAll(".math")];
        if (!formulas.length) return done();
        const first = new IntersectionObserver(
          (entries) => {
            first.disconnect();
            MathJax.typeset(entries.filter((entry) => entry.isIntersecting).map((entry) => entry.target));
            done();
            (window.requestIdleCallback ?? setTimeout)(() => {
              MathJax.typeset();
              for (const formula of formulas) if (formula.matches(SCROLLS)) watcher.observe(formula); // as wide as before
            });
          },
          { rootMargin: "100% 0px" },
        );
        for (const formula of formulas) first.observe(formula);
      });
    MathJax.startup = { pageReady };
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const box of document.querySelectorAll(SCROLLS)) watcher.observe(box);

    for (const book of document.querySelectorAll(".flipbook")) {
      const slider = book.querySelector("input");
      const pages = book.querySelectorAll("img");
      const turn = () => pages.forEach((page, i) => page.classList.toggle("closed", i !== slider.valueAsNumber));
      slider.addEventListener("input", turn);
      turn(); // a browser may remember where the slider was
    }

    // The theme calls it "Search" where it reads "Search Ctrl+K": who speaks to the page says what is read.
    document.querySelector(".search-button-field")?.removeAttribute("aria-label");
  });

  // Paper is white, does not fold, and nobody scrolls it.
  let before;
  addEventListener("beforeprint", () => {
    const folds = [...document.querySelectorAll("article details:not([open])")];
    before = { folds, theme: document.documentElement.dataset.theme };
    document.documentElement.dataset.theme = "light";
    for (const fold of folds) fold.open = true;
    window.MathJax?.typeset?.();
  });
  addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = before.theme;
    for (const fold of before.folds) fold.open = false;
  });
}
