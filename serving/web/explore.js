// The panel that walks through a model's latent space: from one picture to another, or along one dimension.

import { ApiError, call, pictureUrl } from "./api.js";
import { choice, classField, h, seedField, slider } from "./dom.js";
import { pixelate, runLine, runWords } from "./pictures.js";
import { curlJson, snippetPanel } from "./snippets.js";

const FRAMES = 24;
const FRAME_MILLISECONDS = 70;

export function explorePanel(model) {
  const size = model.latentShape.reduce((product, axis) => product * Number(axis), 1);
  let walk = "interpolation";
  let frames = [];
  let running = null;
  let playing = null;

  const picture = h("img", { class: "frame", alt: "Picture at this place of the walk", onload: () => pixelate(picture) });
  const strip = h("div", { class: "strip", role: "group", "aria-label": "Places of the walk" });
  const scrub = slider("Place", {
    min: 0, max: FRAMES - 1, step: 1, value: 0, name: "place", format: (v) => `${Math.round(100 * v / (FRAMES - 1))} %`, onchange: show,
  });
  const play = h("button", { type: "button", onclick: toggle, "aria-pressed": "false" }, "Play");
  const line = runLine();
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const snippets = snippetPanel();

  const from = seedField("From seed", "from", "1");
  const to = seedField("To seed", "to", "2");
  const dimension = slider("Dimension", { min: 0, max: size - 1, step: 1, value: 0, name: "dimension" });
  const reach = slider("Reach", { min: 0.5, max: 6, step: 0.5, value: 3, name: "reach", format: (v) => `± ${v.toFixed(1)}` });
  const form = h("form", { class: "controls", onsubmit: (event) => { event.preventDefault(); go(); }, oninput: soon },
    choice("Walk", "walk", [["interpolation", "between two"], ["traversal", "along one dimension"]], walk, (value) => {
      walk = value;
      arrange();
      go();
    }),
    classField(model.classLabels, false), from, to, dimension, reach);

  function arrange() {
    to.hidden = walk !== "interpolation";
    dimension.hidden = reach.hidden = walk !== "traversal";
  }

  function request() {
    const start = { seed: from.input.value || "0" };
    const label = new FormData(form).get("class_label");
    const common = { count: FRAMES, ...(label && { class_label: label }) };
    if (walk === "interpolation") {
      return { interpolation: { from: start, to: { seed: to.input.value || "0" } }, ...common };
    }
    const high = Number(reach.input.value);
    return { traversal: { from: start, dimension: Number(dimension.input.value), low: -high, high }, ...common };
  }

  let timer = null;
  function soon() {
    clearTimeout(timer);
    timer = setTimeout(go, 120);
  }

  async function go() {
    clearTimeout(timer);
    running?.abort();
    const mine = new AbortController();
    running = mine;
    problem.hidden = true;
    const body = request();
    snippets.set({ curl: curlJson(model.name, "explore", body, "walk.png"), Python: pythonWalk(model.name, body) });
    const started = performance.now();
    try {
      const answer = await call(model.name, "explore", body, mine.signal);
      frames = answer.images.map(pictureUrl);
      line.textContent = runWords(answer.run, performance.now() - started, { seeded: false });
      strip.replaceChildren(...frames.map((url, index) => h("button", {
        type: "button", "aria-label": `Place ${index + 1} of ${frames.length}`, onclick: () => goTo(index),
      }, h("img", { src: url, alt: "", onload: (event) => pixelate(event.target) }))));
      show(Number(scrub.input.value));
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error instanceof ApiError)) throw error;
      problem.textContent = error.message;
      problem.hidden = false;
    }
  }

  function goTo(index) {
    scrub.input.value = index;
    scrub.input.dispatchEvent(new Event("input"));
  }

  function show(index) {
    if (!frames.length) return;
    picture.src = frames[index];
    [...strip.children].forEach((child, place) => child.setAttribute("aria-pressed", String(place === index)));
  }

  function toggle() {
    if (playing) {
      clearInterval(playing);
      playing = null;
    } else {
      let tick = Number(scrub.input.value);
      playing = setInterval(() => {
        tick = (tick + 1) % (2 * FRAMES - 2);
        goTo(tick < FRAMES ? tick : 2 * FRAMES - 2 - tick);
      }, FRAME_MILLISECONDS);
    }
    play.textContent = playing ? "Pause" : "Play";
    play.setAttribute("aria-pressed", String(Boolean(playing)));
  }

  arrange();
  go();
  const walkView = h("div", { class: "walk" }, picture, h("div", { class: "walk-bar" }, scrub, play), strip);
  const stage = h("section", { class: "stage", "aria-label": "Walk" }, problem, walkView, line);
  const element = h("div", { class: "panel" }, form, stage, snippets);
  return Object.assign(element, { leave: () => { running?.abort(); if (playing) toggle(); } });
}

function pythonWalk(model, { interpolation, traversal, count, class_label: label }) {
  const kind = interpolation ? "Interpolation" : "Traversal";
  const walk = interpolation
    ? `Interpolation(start=${interpolation.from.seed}, end=${interpolation.to.seed})`
    : `Traversal(start=${traversal.from.seed}, dimension=${traversal.dimension}, low=${traversal.low}, high=${traversal.high})`;
  return [
    `from serving.client import Client, ${kind}`, "", "with Client() as client:",
    `    images = client.explore("${model}", ${walk}, count=${count}${label ? `, class_label=${JSON.stringify(label)}` : ""})`, '    images[0].save("first.png")',
  ].join("\n");
}
