// The API key, where the gateway wants one: asked for when it does, and forgotten with the tab.

import { h } from "./dom.js";

const KEPT = "atelier-api-key";

/** Headers that show the key, if there is one. */
export function keyHeaders() {
  const key = sessionStorage.getItem(KEPT);
  return key ? { "x-api-key": key } : {};
}

let asking = null;

/** Asks for the key, once for all who need it; rejects where it is not given. */
export function askForKey(message) {
  asking ??= new Promise((resolve, reject) => {
    const key = h("input", { type: "password", id: "api-key", autocomplete: "off", required: true });
    const dialog = h("dialog", { class: "key" },
      h("form", { method: "dialog" },
        h("label", { htmlFor: "api-key" }, "API key"), key,
        h("p", { class: "hint" }, message),
        h("button", { type: "submit", class: "primary" }, "Come in")));
    dialog.addEventListener("close", () => {
      const given = key.value.trim();
      dialog.remove();
      if (!given) return reject(new DOMException("no key was given", "AbortError"));
      sessionStorage.setItem(KEPT, given);
      return resolve();
    });
    document.body.append(dialog);
    dialog.showModal();
  }).finally(() => { asking = null; });
  return asking;
}
