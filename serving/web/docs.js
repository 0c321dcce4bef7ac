// The API page: /openapi.json, to be read by people.

import { h } from "./dom.js";
import { markdown } from "./markdown.js";

const TAGS = { images: "Pictures", models: "Models", status: "Health and figures" };
const quote = (text) => `'${text.replaceAll("'", String.raw`'\''`)}'`;
const name = (reference) => reference.split("/").pop();

function type(schema) {
  if (schema.$ref) return h("a", { href: `#${name(schema.$ref)}` }, name(schema.$ref));
  if (schema.type === "array") return h("span", {}, "list of ", type(schema.items));
  if (schema.additionalProperties) return h("span", {}, "map to ", type(schema.additionalProperties));
  if (schema.contentEncoding) return schema.contentEncoding;
  return schema.format ?? [schema.type].flat().join(" or ");
}

function curl(path, verb, operation) {
  const model = operation["x-model"] ?? "digits_unet";
  const address = quote(location.origin + path.replace("{model}", model));
  if (verb === "get") return `curl ${address}`;
  const { example } = operation.requestBody.content["application/json"];
  const content = operation.responses["200"].content;
  const lines = [];
  if (operation.requestBody.content["image/*"] && content["image/png"]) {
    lines.push("# a picture in, a picture out", `curl -H 'Accept: image/png' --data-binary @in.png -o out.png \\`, `  ${address}`, "");
  } else if (content["image/png"]) {
    lines.push("# the picture itself", `curl -H 'Accept: image/png' -o out.png \\`, `  -d ${quote(JSON.stringify(example))} \\`, `  ${address}`, "");
  }
  const streams = content["text/event-stream"];
  lines.push(streams ? "# events as they come" : "# JSON", `curl ${streams ? "-N " : ""}-d ${quote(JSON.stringify(example))} \\`, `  ${address}`);
  return lines.join("\n");
}

function operationBlock(path, verb, operation) {
  const body = operation.requestBody?.content["application/json"];
  const [answer] = Object.values(operation.responses["200"].content);
  const links = [
    body && h("span", {}, "Request: ", type(body.schema), ". "),
    answer.schema.$ref && h("span", {}, "Answer: ", type(answer.schema), "."),
  ];
  return h("section", { class: "operation", id: operation.operationId },
    h("h3", {}, operation.summary),
    h("div", { class: "address" }, h("span", { class: "method" }, verb.toUpperCase()), h("span", {}, path)),
    operation.description && markdown(operation.description, "/"),
    links.some(Boolean) && h("p", {}, links),
    answer.schema.$ref && markdown(operation.responses["200"].description, "/"),
    h("pre", { tabIndex: 0 }, curl(path, verb, operation)));
}

function schemaBlock(title, schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([field, value]) => h("tr", {},
    h("td", {}, h("code", {}, field)), h("td", { class: "type" }, type(value)), h("td", {}, value.description ?? "")));
  const values = (schema.enum ?? []).map((value) => h("li", {}, h("code", {}, value)));
  return h("section", { class: "schema", id: title },
    h("h3", {}, title),
    schema.description && h("p", {}, schema.description),
    rows.length > 0 && h("div", { class: "scroll" }, h("table", {}, h("tbody", {}, rows))),
    values.length > 0 && h("ul", {}, values));
}

const api = await (await fetch("/openapi.json")).json();
const operations = Object.entries(api.paths).flatMap(([path, verbs]) =>
  Object.entries(verbs).map(([verb, operation]) => ({ path, verb, operation })));
const contents = document.querySelector("#contents");
const docs = document.querySelector("#docs");
docs.append(h("h1", {}, "HTTP API"), ...markdown(api.info.description, "/"),
  h("p", {}, "Over gRPC the same service is ", h("code", {}, "atelier.v1.ImageGeneration"), ", with health and reflection: ",
    h("code", {}, `grpcurl -plaintext ${location.hostname}:8081 list`), "."));
for (const [tag, title] of Object.entries(TAGS)) {
  const tagged = operations.filter(({ operation }) => operation.tags.includes(tag));
  contents.append(h("h2", {}, title), ...tagged.map(({ operation }) =>
    h("a", { href: `#${operation.operationId}` }, operation.summary)));
  docs.append(h("h2", {}, title), ...tagged.map(({ path, verb, operation }) => operationBlock(path, verb, operation)));
}
const schemas = Object.entries(api.components.schemas);
contents.append(h("h2", {}, "Messages"), ...schemas.map(([title]) => h("a", { href: `#${title}` }, title)));
docs.append(h("h2", {}, "Messages"), ...schemas.map(([title, schema]) => schemaBlock(title, schema)));
if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
