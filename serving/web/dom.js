// Elements, small pieces of interface that several panels share, and nothing about models.

/** An element with properties, `on…` handlers, `class`, `data-…` and `aria-…` attributes, and children. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class") element.className = value;
    else if (name in element && !name.includes("-") && name !== "list") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

let lastId = 0;
/** An id that no other element has. */
export const freshId = (prefix) => `${prefix}-${++lastId}`;

/** A labelled control; `hint` is a word beside the label. */
export function field(label, control, hint = "") {
  control.id ||= freshId("field");
  return h("div", { class: "field" },
    h("label", { htmlFor: control.id }, label, hint && h("span", { class: "hint" }, hint)),
    control);
}

/** A slider that shows its value. `value` on the element itself is its input. */
export function slider(label, { min, max, step, value, name, format = String, onchange = () => {} }) {
  const input = h("input", { type: "range", min, max, step, name, id: freshId("slider") });
  const output = h("output", {}, format(value));
  output.htmlFor = input.id;
  input.value = value;
  input.addEventListener("input", () => {
    output.textContent = format(Number(input.value));
    onchange(Number(input.value));
  });
  const head = h("div", { class: "field-head" }, h("label", { htmlFor: input.id }, label), output);
  const element = h("div", { class: "field" }, head, input);
  return Object.assign(element, { input });
}

/** A row of choices of which one holds, as radio buttons. `choices` is pairs of value and label. */
export function choice(legend, name, choices, chosen, onchange = () => {}) {
  return h("fieldset", { class: "field choice" },
    h("legend", {}, legend),
    h("div", { class: "chips" }, choices.map(([value, label]) =>
      h("label", { class: "chip" },
        h("input", { type: "radio", name, value, checked: value === chosen, onchange: () => onchange(value) }),
        h("span", {}, label)))));
}

const FEW_CLASSES = 12;

/** The classes of a model to choose from; `any` is a first choice that sends none. Null where there are none. */
export function classField(labels, any) {
  const choices = [...(any ? [["", "any"]] : []), ...labels.map((label) => [label, label])];
  if (!labels.length) return null;
  if (labels.length <= FEW_CLASSES) return choice("Class", "class_label", choices, choices[0][0]);
  return field("Class", h("select", { name: "class_label" },
    choices.map(([value, label]) => h("option", { value }, label))));
}

/** A seed that can be typed, thrown anew, and kept. */
export function seedField(label, name, value = randomSeed()) {
  const input = h("input", { type: "number", name, min: 0, step: 1, inputMode: "numeric", id: freshId("seed") });
  input.value = value;
  const dice = h("button", {
    type: "button", class: "quiet", title: "Another seed", "aria-label": `Another seed for ${label}`,
    onclick: () => { input.value = randomSeed(); input.dispatchEvent(new Event("input", { bubbles: true })); },
  }, "⚄");
  const element = h("div", { class: "field" }, h("label", { htmlFor: input.id }, label), h("div", { class: "joined" }, input, dice));
  return Object.assign(element, { input });
}

export const randomSeed = () => String(crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000);

/** Tabs over panels that are made when first shown. `tabs` is of {id, label, make}. */
export function tabs(label, entries, chosen, onchange) {
  const list = h("div", { class: "tabs", role: "tablist", "aria-label": label });
  const body = h("div", { class: "tab-body", role: "tabpanel", tabIndex: -1 });
  const buttons = entries.map((entry) => h("button", {
    type: "button", role: "tab", id: `tab-${entry.id}`, onclick: () => select(entry.id),
  }, entry.label));
  const panels = new Map();
  function select(id, focus = false) {
    entries.forEach((entry, index) => {
      const selected = entry.id === id;
      buttons[index].setAttribute("aria-selected", String(selected));
      buttons[index].tabIndex = selected ? 0 : -1;
      if (!selected) return;
      if (focus) buttons[index].focus();
      if (!panels.has(id)) panels.set(id, entry.make());
      body.replaceChildren(panels.get(id));
      body.setAttribute("aria-labelledby", `tab-${id}`);
    });
    onchange(id);
  }
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const now = entries.findIndex((_, index) => buttons[index].tabIndex === 0);
    select(entries[(now + step + entries.length) % entries.length].id, true);
  });
  list.append(...buttons);
  select(chosen);
  return { element: h("div", {}, list, body), select, panel: (id) => { select(id); return panels.get(id); } };
}
