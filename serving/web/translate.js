// The panel that carries a picture to another domain: drawn, dropped, opened, or drawn from another model.

import { ApiError, call, pictureUrl } from "./api.js";
import { choice, h, randomSeed } from "./dom.js";
import { pixelate, runLine, runWords, view } from "./pictures.js";
import { sketchpad } from "./sketchpad.js";
import { curlPicture, python, snippetPanel } from "./snippets.js";

const SIDES = ["32", "64", "128", "256"]; // of what may be sent to a model that takes any size

/** The panel. `sources` are models that can draw pictures of the right size. */
export function translatePanel(model, sources) {
  const directions = model.directions.length ? model.directions : [""];
  let direction = directions[0];
  let running = null;
  let result = null;
  let side = SIDES[0];

  const pad = sketchpad(() => (model.width > 0 ? [model.width, model.height] : [Number(side), Number(side)]), translate);
  const sideChoice = model.width > 0 ? null : choice("Sent at", "side", SIDES.map((value) => [value, `${value}×${value}`]), side,
    (value) => { side = value; translate(); });
  const output = h("img", { class: "translated", alt: "Translated picture", onload: () => pixelate(output), hidden: true });
  const open = h("button", { type: "button", class: "translated-frame", "aria-label": "Look at the translated picture", disabled: true,
    onclick: () => view(result, [{ label: "Translate it back", run: back }]) },
    output, h("span", { class: "placeholder" }, "Draw, or take a picture: its translation appears here"));
  const again = h("button", { type: "button", disabled: true, onclick: back }, "Translate it back");
  const line = runLine();
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const snippets = snippetPanel();
  const directionChoice = directions.length > 1 && choice("Direction", "direction",
    directions.map((name) => [name, directionLabel(model, name)]), direction, (value) => { direction = value; describe(); translate(); });

  function describe() {
    snippets.set({
      curl: curlPicture(model.name, "translate", direction ? { direction } : {}, "out.png"),
      Python: python("translate", model.name, ['Path("in.png")'], direction ? { direction } : {}, 'images[0].save("out.png")')
        .replace(/^/, "from pathlib import Path\n"),
    });
  }

  async function translate() {
    running?.abort();
    const mine = new AbortController();
    running = mine;
    problem.hidden = true;
    const started = performance.now();
    try {
      const body = { images: [{ data: pad.picture() }], ...(direction && { direction }) };
      const answer = await call(model.name, "translate", body, mine.signal);
      result = pictureUrl(answer.images[0]);
      output.src = result;
      output.hidden = false;
      open.classList.add("filled");
      open.disabled = again.disabled = false;
      line.textContent = runWords(answer.run, performance.now() - started, { seeded: false });
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ApiError)) throw error;
      problem.textContent = error.message;
      problem.hidden = false;
    }
  }

  function back() {
    const other = directions.find((name) => name !== direction);
    if (other) {
      direction = other;
      for (const radio of directionChoice.querySelectorAll("input")) radio.checked = radio.value === other;
      describe();
    }
    pad.load(result);
  }

  async function drawFrom(source) {
    try {
      const answer = await call(source.name, "generate", { seed: randomSeed() });
      await pad.load(pictureUrl(answer.images[0]));
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
  }

  describe();
  const form = h("form", { class: "controls", onsubmit: (event) => event.preventDefault() },
    directionChoice, h("div", { class: "field" }, h("span", { class: "label" }, "Picture"), pad), sideChoice,
    sources.length > 0 && h("div", { class: "row" }, sources.map((source) =>
      h("button", { type: "button", onclick: () => drawFrom(source) }, `One from ${source.name}`))));
  const stage = h("section", { class: "stage", "aria-label": "Translation" }, problem, open, h("div", { class: "row" }, again), line);
  const element = h("div", { class: "panel" }, form, stage, snippets);
  return Object.assign(element, { take: (url) => pad.load(url), leave: () => running?.abort() });
}

function directionLabel(model, name) {
  const domains = domainNames(model);
  if (!domains) return name.replaceAll("_", " ");
  return name === "a_to_b" ? `${domains[0]} → ${domains[1]}` : `${domains[1]} → ${domains[0]}`;
}

function domainNames({ metadata }) {
  return metadata.domain_a && metadata.domain_b ? [metadata.domain_a, metadata.domain_b] : null;
}
