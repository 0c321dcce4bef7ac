// The same request for whoever would rather type it: curl and Python.

import { modelPath } from "./api.js";
import { h } from "./dom.js";

const quote = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;

/** curl for a request whose answer is wanted as a picture. */
export function curlJson(model, verb, body, file) {
  return [
    `curl -H 'Accept: image/png' -o ${file} \\`,
    `  -d ${quote(JSON.stringify(body))} \\`,
    `  ${quote(location.origin + modelPath(model, verb))}`,
  ].join("\n");
}

/** curl for a request that is a picture. */
export function curlPicture(model, verb, query, file) {
  const parameters = new URLSearchParams(query).toString();
  return [
    `curl -H 'Accept: image/png' -o ${file} \\`,
    "  --data-binary @in.png \\",
    `  ${quote(`${location.origin}${modelPath(model, verb)}${parameters && `?${parameters}`}`)}`,
  ].join("\n");
}

/** Python for a call of the client; `values` are its keyword arguments. */
export function python(method, model, positional, values, after, imports = "Client") {
  const literal = (value) => ({ true: "True", false: "False" })[value] ?? JSON.stringify(value);
  const keywords = Object.entries(values).map(([name, value]) => `${name}=${value.python ?? literal(value)}`);
  const list = [JSON.stringify(model), ...positional, ...keywords].join(", ");
  return [
    `from serving.client import ${imports}`, "",
    `with Client() as client:`, `    images = client.${method}(${list})`, `    ${after}`,
  ].join("\n");
}

/** A panel that shows snippets by name, to be copied. */
export function snippetPanel() {
  const code = h("pre", { tabIndex: 0 });
  const names = h("div", { class: "chips", role: "group", "aria-label": "Language" });
  const copy = h("button", { type: "button", class: "quiet", onclick: copyCode }, "Copy");
  let snippets = {};
  let chosen = "curl";
  async function copyCode() {
    await navigator.clipboard.writeText(code.textContent);
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  }
  function show() {
    code.textContent = snippets[chosen] ?? "";
    for (const button of names.children) button.setAttribute("aria-pressed", String(button.textContent === chosen));
  }
  const nameButton = (name) => h("button", {
    type: "button", class: "chip-button", onclick: () => { chosen = name; show(); },
  }, name);
  function set(next) {
    snippets = next;
    // Buttons are kept: a click that ends an edit elsewhere must still find the one it began on.
    if (!names.childElementCount) names.append(...Object.keys(next).map(nameButton));
    show();
  }
  const element = h("details", { class: "snippets", open: true },
    h("summary", {}, "The same request by hand"),
    h("div", { class: "snippet-head" }, names, copy), code);
  return Object.assign(element, { set });
}
