// The page: which models there are, which one is open, and what can be asked of it.

import { listModels, notReadyReason, readCard, samplesUrl } from "./api.js";
import { h, tabs } from "./dom.js";
import { explorePanel } from "./explore.js";
import { generatePanel } from "./generate.js";
import { markdown } from "./markdown.js";
import { translatePanel } from "./translate.js";

const FAMILIES = {
  vae: "variational autoencoder",
  gan: "adversarial generator",
  cyclegan: "unpaired translator",
  diffusion: "diffusion",
};
const THUMB_CELL = 30; // how large one picture of a sample grid is shown beside its model's name

const list = document.querySelector("#models");
const work = document.querySelector("#work");
let models = [];
let open = null;

const family = (model) => FAMILIES[model.family] ?? model.family;
const size = (model) => (model.width > 0 ? `${model.width}×${model.height}` : "any size");
const can = (model, task) => model.tasks.includes(`TASK_${task}`);

/** A name that may be broken behind its underscores. */
const breakable = (name) => name.split(/(?<=_)/).flatMap((part) => [part, h("wbr")]);

function thumbnail(model) {
  const image = h("img", { alt: "" });
  samplesUrl(model.name).then((url) => { image.src = url; }, () => image.remove());
  image.addEventListener("load", () => {
    URL.revokeObjectURL(image.src);
    const cell = image.naturalWidth > 400 ? 68 : 34;
    image.style.width = `${image.naturalWidth * THUMB_CELL / cell}px`;
  });
  return image;
}

function modelButton(model) {
  return h("a", { class: "model", href: `#/${model.name}`, id: `model-${model.name}` },
    h("span", { class: "thumb", "aria-hidden": "true" }, h("span", {}, model.name[0]), model.hasSamples && thumbnail(model)),
    h("span", { class: "model-words" }, h("strong", {}, breakable(model.name)), h("small", {}, `${family(model)}, ${size(model)}`)));
}

function facts(model) {
  const parts = [family(model), size(model), model.channels === 1 ? "grey" : "colour"];
  if (model.classLabels.length) parts.push(`${model.classLabels.length} classes`);
  if (model.defaultSampler) parts.push(`${model.defaultSampler}, ${model.defaultSteps} ${model.defaultSteps === 1 ? "step" : "steps"}`);
  parts.push(`version ${model.defaultVersion}`);
  return h("ul", { class: "facts" }, parts.map((part) => h("li", {}, part)));
}

function cardPanel(model) {
  if (!model.hasCard) {
    return h("article", { class: "card" },
      h("p", { class: "hint" }, "It has no card: ", h("code", {}, `atelier evaluate ${model.name}`), " measures it and writes one."));
  }
  const element = h("article", { class: "card" }, h("p", { class: "hint" }, "Reading the card…"));
  readCard(model.name)
    .then((text) => element.replaceChildren(...markdown(text, `/v1/models/${model.name}/card`)))
    .catch((error) => element.replaceChildren(h("p", { class: "hint" }, error.message)));
  return element;
}

function openModel(name, wanted) {
  const model = models.find((each) => each.name === name) ?? models[0];
  if (!model) return;
  if (open?.name === model.name) {
    if (wanted && wanted !== open.tab) open.tabs.select(wanted);
    return;
  }
  open?.leave();
  const made = [];
  const keep = (panel) => { made.push(panel); return panel; };
  const translators = models.filter((other) => can(other, "TRANSLATE") && fits(other, model));
  const sources = models.filter((other) => can(other, "GENERATE") && fits(model, other));
  const actions = (url) => translators.map((other) => ({
    label: `Translate with ${other.name}`, run: () => handOver(other.name, url),
  }));
  const entries = [];
  if (can(model, "GENERATE")) entries.push({ id: "generate", label: "Generate", make: () => keep(generatePanel(model, actions)) });
  if (can(model, "TRANSLATE")) entries.push({ id: "translate", label: "Translate", make: () => keep(translatePanel(model, sources)) });
  if (can(model, "DECODE")) entries.push({ id: "explore", label: "Explore", make: () => keep(explorePanel(model)) });
  entries.push({ id: "card", label: "Model card", make: () => cardPanel(model) });

  const chosen = entries.some((entry) => entry.id === wanted) ? wanted : entries[0].id;
  open = { name: model.name, tab: chosen, leave: () => made.forEach((panel) => panel.leave()) };
  open.tabs = tabs(`What to do with ${model.name}`, entries, chosen, (tab) => {
    open.tab = tab;
    history.replaceState(null, "", `#/${model.name}/${tab}`);
  });
  work.replaceChildren(h("header", { class: "model-head" }, h("h1", {}, model.name), facts(model)), open.tabs.element);
  document.title = `${model.name} · Atelier`;
  for (const link of list.children) link.removeAttribute("aria-current");
  const link = document.getElementById(`model-${model.name}`);
  link.setAttribute("aria-current", "page");
  link.scrollIntoView({ block: "nearest", inline: "nearest" });
  if (chosen === "generate") open.tabs.panel("generate").start();
}

function fits(translator, model) {
  return translator.channels === model.channels && (translator.width <= 0 || translator.width === model.width);
}

function handOver(translator, url) {
  openModel(translator, "translate");
  open.tabs.panel("translate").take(url);
}

function route() {
  const [name, tab] = location.hash.replace(/^#\//, "").split("/").map(decodeURIComponent);
  openModel(name, tab);
}

async function connect() {
  const status = document.querySelector("#status");
  const words = document.querySelector("#status-text");
  try {
    const reason = await notReadyReason();
    models = (await listModels()).filter((model) => model.ready);
    status.dataset.state = reason ? "waiting" : "ready";
    words.textContent = reason ?? `${models.length} ${models.length === 1 ? "model" : "models"} ready`;
    list.replaceChildren(...models.map(modelButton));
    if (models.length) route();
    else work.replaceChildren(h("p", { class: "notice" }, "No model is ready yet."));
    if (reason) setTimeout(connect, 1000);
  } catch (error) {
    status.dataset.state = "gone";
    words.textContent = "no answer";
    setTimeout(connect, 2000);
  }
}

function theme() {
  const root = document.documentElement;
  const apply = (scheme) => { root.style.colorScheme = scheme; };
  const saved = localStorage.getItem("theme");
  if (saved) apply(saved);
  document.querySelector("#theme").addEventListener("click", () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = root.style.colorScheme || (dark ? "dark" : "light");
    const next = now === "dark" ? "light" : "dark";
    localStorage.setItem("theme", next);
    apply(next);
  });
}

theme();
addEventListener("hashchange", route);
connect();
