// What the pages do without a lab: turn the pages of flipbooks, let the keyboard scroll what is too wide, and print.

document.addEventListener("DOMContentLoaded", () => {
  for (const book of document.querySelectorAll(".flipbook")) {
    const slider = book.querySelector("input");
    const pages = book.querySelectorAll("img");
    const turn = () => pages.forEach((page, i) => page.classList.toggle("closed", i !== slider.valueAsNumber));
    slider.addEventListener("input", turn);
    turn(); // a browser may remember where the slider was
  }

  // The theme calls it "Search" where it reads "Search Ctrl+K": who speaks to the page says what is read.
  document.querySelector(".search-button-field")?.removeAttribute("aria-label");

  // What scrolls can be reached by the keyboard, and says what it is; what fits is left alone.
  const NAMES = { math: "Formula, scrolls sideways", picture: "Figure, scrolls sideways" };
  const watcher = new ResizeObserver((entries) => {
    const wide = entries.map(({ target }) => target.scrollWidth > target.clientWidth);
    entries.forEach(({ target }, i) => {
      if (!wide[i]) return ["tabindex", "role", "aria-label"].forEach((name) => target.removeAttribute(name));
      target.tabIndex = 0;
      target.setAttribute("role", "group");
      target.setAttribute("aria-label", target.matches(".math") ? NAMES.math : NAMES.picture);
    });
  });
  const watch = () => document.querySelectorAll("article :is(div.math, .picture)").forEach((e) => watcher.observe(e));
  window.MathJax?.startup?.promise ? MathJax.startup.promise.then(watch) : watch();
});

// Paper is white and does not fold.
{
  let before;
  addEventListener("beforeprint", () => {
    const folds = [...document.querySelectorAll("article details:not([open])")];
    before = { folds, theme: document.documentElement.dataset.theme };
    document.documentElement.dataset.theme = "light";
    for (const fold of folds) fold.open = true;
  });
  addEventListener("afterprint", () => {
    document.documentElement.dataset.theme = before.theme;
    for (const fold of before.folds) fold.open = false;
  });
}
