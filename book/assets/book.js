// Two repairs to widgets in the static page.

document.addEventListener("DOMContentLoaded", () => {
  // The widget library asks MathJax 2's queue to typeset its labels. Answer with MathJax 3, which is what the
  // book has; without an answer every slider with a label throws.
  const mathjax = window.MathJax;
  if (mathjax?.typesetPromise && !mathjax.Hub) {
    mathjax.Hub = {
      Queue: ([, , element]) => mathjax.startup.promise.then(() => mathjax.typesetPromise([element])),
    };
  }

  // An Image widget has no field for alt text. book/ext/slotbook.py leaves that of its cell in a template.
  const describe = () => {
    for (const image of document.querySelectorAll("img.widget-image:not([alt])")) {
      image.alt = image.closest(".cell")?.querySelector("template.widget-alt")?.content.textContent ?? "";
    }
  };
  new MutationObserver(describe).observe(document.querySelector("main"), { childList: true, subtree: true });
});
