// A grid of pictures that can be looked at closely, saved, and handed on to a translator.

import { h } from "./dom.js";

const SMALL = 128; // pictures up to this many pixels are shown with their pixels

/** A grid. `actions` make buttons for the close view of the picture at an address: (url) => [{label, run}]. */
export function pictureGrid(actions = () => []) {
  const element = h("div", { class: "pictures" });
  let urls = [];
  function show(next, { settled, label }) {
    urls = next;
    const columns = Math.ceil(Math.sqrt(urls.length));
    element.style.setProperty("--columns", columns);
    element.dataset.count = urls.length;
    element.classList.toggle("unsettled", !settled);
    if (element.querySelectorAll("button").length !== urls.length) element.replaceChildren(...urls.map((_, index) => tile(index)));
    urls.forEach((url, index) => {
      const image = element.children[index].firstElementChild;
      image.src = url;
      image.alt = `${label} ${index + 1} of ${urls.length}`;
    });
  }
  const tile = (index) => h("button", {
    type: "button", class: "tile", "aria-label": `Look at picture ${index + 1}`,
    onclick: () => view(urls[index], actions(urls[index])),
  }, h("img", { onload: (event) => pixelate(event.target) }));
  /** Empty places while the first answer is on its way. */
  function wait(count) {
    urls = [];
    element.style.setProperty("--columns", Math.ceil(Math.sqrt(count)));
    element.dataset.count = count;
    element.replaceChildren(...Array.from({ length: count }, () => h("div", { class: "tile waiting" })));
  }
  return Object.assign(element, { show, wait, clear: () => { urls = []; element.replaceChildren(); } });
}

export const pixelate = (image) => image.classList.toggle("pixelated", image.naturalWidth <= SMALL);

/** A picture close up, with what can be done with it. */
export function view(url, actions) {
  const dialog = document.querySelector("#viewer");
  const close = () => dialog.close();
  dialog.replaceChildren(
    h("img", { src: url, alt: "Picture, enlarged", onload: (event) => pixelate(event.target) }),
    h("div", { class: "viewer-actions" },
      actions.map(({ label, run }) => h("button", { type: "button", onclick: () => { close(); run(); } }, label)),
      h("a", { class: "button", href: url, download: "atelier.png" }, "Save"),
      h("button", { type: "button", class: "quiet", onclick: close, autofocus: true }, "Close")));
  dialog.onclick = (event) => { if (event.target === dialog) close(); };
  dialog.showModal();
}

/** A line of what was done and how long it took. */
export function runLine() {
  return h("p", { class: "run-line", "aria-live": "polite" });
}

/** The words of that line, for a RunInfo and the milliseconds that the whole took. */
export function runWords(run, milliseconds, { seeded = true } = {}) {
  const time = (duration) => `${(Number.parseFloat(duration ?? "0") * 1000).toFixed(1)} ms`;
  return [
    `${run.model} v${run.version}`,
    seeded && `seed ${run.seed}`,
    run.sampler && `${run.sampler}, ${run.steps} steps`,
    run.sampler && ![0, 1].includes(run.guidanceScale) && `guidance ${Number(run.guidanceScale.toFixed(2))}`,
    `queue ${time(run.queueTime)}`,
    `compute ${time(run.computeTime)}`,
    `round trip ${milliseconds.toFixed(0)} ms`,
  ].filter(Boolean).join(" · ");
}
