// Markdown to elements, as far as model cards use it: headings, tables, lists, quotes, code, images, links.
// Text becomes text nodes alone, so a card cannot bring script into the page.

import { h } from "./dom.js";

const INLINE = /!\[([^\]]*)\]\(([^)\s]+)\)|\[([^\]]+)\]\(([^)\s]+)\)|`([^`]+)`|\*\*([^*]+)\*\*|\*([^*]+)\*/g;

function inline(text, base) {
  const nodes = [];
  let end = 0;
  for (const match of text.matchAll(INLINE)) {
    nodes.push(text.slice(end, match.index));
    end = match.index + match[0].length;
    const [, alt, source, label, target, code, strong, emphasis] = match;
    if (source) nodes.push(h("img", { alt, src: address(source, base), class: "pixelated" }));
    else if (label) nodes.push(h("a", { href: address(target, base), rel: "noreferrer" }, label));
    else if (code) nodes.push(h("code", {}, code));
    else if (strong) nodes.push(h("strong", {}, ...inline(strong, base)));
    else nodes.push(h("em", {}, ...inline(emphasis, base)));
  }
  nodes.push(text.slice(end));
  return nodes;
}

function address(target, base) {
  const url = new URL(target, new URL(base, location.href));
  return ["http:", "https:"].includes(url.protocol) ? url.href : "#";
}

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());

function table(lines, base) {
  const [head, rule, ...rows] = lines.map(cells);
  const right = rule.map((cell) => cell.endsWith(":"));
  const row = (values, tag) => h("tr", {}, values.map((value, column) =>
    h(tag, { class: right[column] ? "number" : "" }, ...inline(value, base))));
  const body = h("tbody", {}, rows.map((values) => row(values, "td")));
  const titled = head.some((cell) => cell);
  return h("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": "Table" },
    h("table", {}, titled && h("thead", {}, row(head, "th")), body));
}

/** The elements of a Markdown text; relative addresses are taken from `base`. */
export function markdown(text, base) {
  const blocks = text.replace(/\r/g, "").split(/\n{2,}/).flatMap((block) => block.match(/^#.*$|(?:^(?!#).*\n?)+/gm) ?? []);
  return blocks.map((block) => block.trim()).filter(Boolean).map((block) => {
    const lines = block.split("\n");
    const heading = /^(#{1,4})\s+(.*)$/.exec(block);
    if (heading) return h(`h${heading[1].length + 2}`, {}, ...inline(heading[2], base));
    if (lines.length > 1 && /^\|?[\s:|-]+\|[\s:|-]*$/.test(lines[1])) return table(lines, base);
    if (/^```/.test(block)) return h("pre", {}, lines.filter((line) => !line.startsWith("```")).join("\n"));
    if (/^>/.test(block)) return h("blockquote", {}, ...inline(lines.map((line) => line.replace(/^>\s?/, "")).join(" "), base));
    if (/^[-*]\s/.test(block)) {
      const items = block.split(/\n(?=[-*]\s)/).map((item) => item.replace(/^[-*]\s+/, "").replace(/\n\s*/g, " "));
      return h("ul", {}, items.map((item) => h("li", {}, ...inline(item, base))));
    }
    return h("p", {}, ...inline(lines.join(" "), base));
  });
}
