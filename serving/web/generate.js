// The panel that draws pictures from a model, with previews while the sampler runs.

import { ApiError, generate, pictureUrl } from "./api.js";
import { classField, field, h, seedField, slider } from "./dom.js";
import { pictureGrid, runLine, runWords } from "./pictures.js";
import { curlJson, python, snippetPanel } from "./snippets.js";

const PREVIEWS = 12; // at most so many previews of one run

/** The panel. `actions` are what can be done with a picture, a preview too: (url) => [{label, run}]. */
export function generatePanel(model, actions) {
  const grid = pictureGrid(actions);
  const line = runLine();
  const problem = h("p", { class: "problem", role: "alert", hidden: true });
  const bar = h("progress", { max: 1, value: 0, "aria-label": "Steps done", hidden: true });
  const snippets = snippetPanel();
  const go = h("button", { type: "submit", class: "primary" }, "Generate");
  const stop = h("button", { type: "button", onclick: () => running?.abort(), hidden: true }, "Stop");
  const form = h("form", { class: "controls", onsubmit: start, oninput: describe, onchange: describe },
    controls(model), h("div", { class: "go" }, go, stop));
  let running = null;

  function request() {
    const data = new FormData(form);
    const body = {};
    const label = data.get("class_label");
    if (label) body.class_label = label;
    body.count = Number(data.get("count"));
    if (data.get("seed") !== "") body.seed = data.get("seed");
    for (const name of ["steps", "guidance_scale", "truncation"]) {
      if (data.has(name)) body[name] = Number(data.get(name));
    }
    if (data.get("sampler")) body.sampler = data.get("sampler");
    return body;
  }

  function describe() {
    const body = request();
    const words = { ...body, ...(body.seed && { seed: Number(body.seed) }) };
    snippets.set({
      curl: curlJson(model.name, "generate", words, `${model.name}.png`),
      Python: python("generate", model.name, [], words, `images[0].save("${model.name}.png")`),
    });
  }

  async function start(event) {
    event?.preventDefault();
    if (event) stage.scrollIntoView({ block: "nearest" });
    running?.abort();
    const mine = new AbortController();
    running = mine;
    const body = request();
    const steps = body.steps ?? model.defaultSteps ?? 1;
    problem.hidden = true;
    clearMarks(form);
    grid.wait(body.count);
    busy(true);
    line.textContent = "";
    const started = performance.now();
    try {
      for await (const item of generate(model.name, { ...body, preview_every: Math.ceil(steps / PREVIEWS) }, mine.signal)) {
        if (item.result) {
          grid.show(item.result.images.map(pictureUrl), { settled: true, label: `${model.name}, picture` });
          line.textContent = runWords(item.result.run, performance.now() - started);
        } else {
          const { step, steps: all, previews } = item.progress;
          bar.max = all || 1;
          bar.value = step;
          line.textContent = `step ${step} of ${all}`;
          if (previews?.length) grid.show(previews.map(pictureUrl), { settled: false, label: "preview" });
        }
      }
    } catch (error) {
      if (running !== mine) return;
      grid.clear();
      line.textContent = error.name === "AbortError" ? "stopped" : "";
      if (error.name !== "AbortError") complain(error);
    } finally {
      if (running === mine) { running = null; busy(false); }
    }
  }

  function busy(now) {
    stop.hidden = !now;
    bar.hidden = !now || !model.samplers.length;
    bar.value = 0;
    grid.setAttribute("aria-busy", String(now));
  }

  function complain(error) {
    if (!(error instanceof ApiError)) throw error;
    problem.textContent = error.message;
    problem.hidden = false;
    form.elements[error.field]?.setAttribute?.("aria-invalid", "true");
  }

  describe();
  const stage = h("section", { class: "stage", "aria-label": "Pictures" }, problem, grid, bar, line);
  const element = h("div", { class: "panel" }, form, stage, snippets);
  return Object.assign(element, { start, leave: () => running?.abort() });
}

const clearMarks = (form) => form.querySelectorAll("[aria-invalid]").forEach((e) => e.removeAttribute("aria-invalid"));

function controls(model) {
  const parts = [];
  const labels = model.classLabels;
  if (labels.length) parts.push(classField(labels, true));
  parts.push(slider("Pictures", { min: 1, max: 64, step: 1, value: 9, name: "count" }));
  parts.push(seedField("Seed", "seed"));
  if (model.samplers.length) {
    parts.push(slider("Steps", { min: 1, max: Math.max(50, model.defaultSteps), step: 1, value: model.defaultSteps, name: "steps" }));
    if (labels.length) {
      parts.push(slider("Guidance", {
        min: 0, max: 8, step: 0.1, value: model.defaultGuidanceScale || 1, name: "guidance_scale", format: (v) => v.toFixed(1),
      }));
    }
    parts.push(field("Sampler", h("select", { name: "sampler" }, model.samplers.map((name) =>
      h("option", { value: name, selected: name === model.defaultSampler }, name)))));
  } else {
    parts.push(slider("Truncation", { min: 0, max: 1.5, step: 0.05, value: 1, name: "truncation", format: (v) => v.toFixed(2) }));
  }
  return parts;
}
