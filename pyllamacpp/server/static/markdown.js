// Markdown as DOM nodes. Text never becomes markup, whatever a model writes.

import { copy, el, iconButton } from "./dom.js";
import { inline } from "./inline.js";

const FENCE = /^ {0,3}(`{3,}|~{3,})[ \t]*([^`\s]*)[^`]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:[ \t]+|$)/;
const TABLE_LINE = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const MOST_NESTED = 12; // deeper lists and quotes are text

/** Shows Markdown in an element; what has not changed since the last call is left as it is. */
export class MarkdownView {
  constructor(root) {
    this.root = root;
    this.shown = [];
  }

  update(text) {
    const blocks = parse(text.replace(/\r\n?/g, "\n").split("\n"), 0);
    let same = 0;
    while (same < blocks.length && same < this.shown.length && blocks[same].source === this.shown[same].source) same += 1;
    for (const old of this.shown.splice(same)) old.node.remove();
    for (const block of blocks.slice(same)) {
      const node = draw(block);
      this.root.append(node);
      this.shown.push({ source: block.source, node });
    }
  }
}

/** The blocks of some lines: {kind, source, ...}. */
function parse(lines, depth) {
  const blocks = [];
  let i = 0;
  while (i < lines.length) {
    if (!lines[i].trim()) {
      i += 1;
      continue;
    }
    const start = i;
    const block = fence(lines, i) ?? line(lines, i) ?? (depth < MOST_NESTED ? quote(lines, i, depth) ?? list(lines, i, depth) : null) ?? table(lines, i) ?? paragraph(lines, i);
    i = block.end;
    block.source = `${block.kind}\n${lines.slice(start, i).join("\n")}`;
    blocks.push(block);
  }
  return blocks;
}

function fence(lines, i) {
  const found = FENCE.exec(lines[i]);
  if (!found) return null;
  const [, mark, language] = found;
  const closing = new RegExp(`^ {0,3}\\${mark[0]}{${mark.length},}[ \\t]*$`);
  let end = i + 1;
  while (end < lines.length && !closing.test(lines[end])) end += 1;
  return { kind: "code", language, text: lines.slice(i + 1, end).join("\n"), end: end + 1 };
}

function line(lines, i) {
  if (RULE.test(lines[i])) return { kind: "rule", end: i + 1 };
  const found = HEADING.exec(lines[i]);
  return found && { kind: "heading", level: found[1].length, text: found[2] ?? "", end: i + 1 };
}

function quote(lines, i, depth) {
  if (!QUOTE.test(lines[i])) return null;
  let end = i;
  while (end < lines.length && QUOTE.test(lines[end])) end += 1;
  const inner = lines.slice(i, end).map((text) => text.replace(QUOTE, ""));
  return { kind: "quote", blocks: parse(inner, depth + 1), end };
}

/** A list goes on while lines are items of its kind, indented, or lazy paragraph text. */
function list(lines, i, depth) {
  const first = ITEM.exec(lines[i]);
  if (!first) return null;
  const mark = first[2].at(-1);
  const items = [];
  let isLoose = false;
  let end = i;
  let width = 0;
  while (end < lines.length) {
    const text = lines[end];
    const found = ITEM.exec(text);
    const indent = text.length - text.trimStart().length;
    const follows = items.length > 0 && indent >= width;
    if (found && !follows && found[2].at(-1) === mark && !RULE.test(text)) {
      width = Math.min(found[0].length, found[1].length + found[2].length + 4);
      items.push([text.slice(found[0].length)]);
    } else if (!text.trim()) {
      const next = lines[end + 1] ?? "";
      const goesOn = next.trim() && (next.length - next.trimStart().length >= Math.min(width, 2) || ITEM.exec(next)?.[2].at(-1) === mark);
      if (!goesOn) break;
      isLoose = true;
      items.at(-1).push("");
    } else if (indent >= Math.min(width, 2)) {
      items.at(-1).push(text.slice(Math.min(indent, width)));
    } else if (lines[end - 1].trim() && !found && !FENCE.test(text) && !HEADING.test(text) && !QUOTE.test(text) && !RULE.test(text)) {
      items.at(-1).push(text);
    } else {
      break;
    }
    end += 1;
  }
  const number = Number.parseInt(first[2], 10);
  return {
    kind: "list",
    start: Number.isNaN(number) ? null : number,
    isLoose,
    items: items.map((inner) => parse(inner, depth + 1)),
    end,
  };
}

const cells = (text) =>
  text.trim().replace(/^\||(?<!\\)\|$/g, "").split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));

function table(lines, i) {
  if (!lines[i].includes("|") || !TABLE_LINE.test(lines[i + 1] ?? "")) return null;
  const head = cells(lines[i]);
  const rule = cells(lines[i + 1]);
  if (head.length !== rule.length) return null;
  const sides = rule.map((cell) => (cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "end") : null));
  let end = i + 2;
  while (end < lines.length && lines[end].includes("|")) end += 1;
  return { kind: "table", head, sides, rows: lines.slice(i + 2, end).map(cells), end };
}

function paragraph(lines, i) {
  let end = i + 1;
  const interrupts = (text) =>
    !text.trim() || FENCE.test(text) || HEADING.test(text) || RULE.test(text) || QUOTE.test(text) || /^ {0,3}(?:[-*+]|1[.)])[ \t]+\S/.test(text);
  while (end < lines.length && !interrupts(lines[end])) end += 1;
  return { kind: "paragraph", text: lines.slice(i, end).map((text) => text.trimStart()).join("\n"), end };
}

function draw(block) {
  switch (block.kind) {
    case "code":
      return codeBlock(block.language, block.text);
    case "rule":
      return el("hr");
    case "heading":
      // The page has h1 and h2; those of an answer go below.
      return el(`h${Math.min(6, block.level + 2)}`, { class: `heading-${block.level}` }, ...inline(block.text));
    case "quote":
      return el("blockquote", {}, ...block.blocks.map(draw));
    case "list": {
      const items = block.items.map((blocks) => el("li", {}, ...blocks.flatMap((inner) => drawItem(inner, block.isLoose))));
      return block.start === null ? el("ul", {}, ...items) : el("ol", { start: block.start }, ...items);
    }
    case "table":
      return drawTable(block);
    default:
      return el("p", {}, ...inline(block.text));
  }
}

const drawItem = (block, isLoose) => (block.kind === "paragraph" && !isLoose ? inline(block.text) : [draw(block)]);

function drawTable({ head, sides, rows }) {
  const row = (tag, texts) =>
    el("tr", {}, ...head.map((_, k) => el(tag, { class: sides[k] && `side-${sides[k]}`, scope: tag === "th" && "col" }, ...inline(texts[k] ?? ""))));
  const body = el("tbody", {}, ...rows.map((texts) => row("td", texts)));
  return el("div", { class: "table", tabindex: "0", role: "region", "aria-label": "Table" }, el("table", {}, el("thead", {}, row("th", head)), body));
}

function codeBlock(language, text) {
  const name = language || "text";
  const button = iconButton("copy", "Copy the code", () => copy(text, button));
  return el(
    "figure",
    { class: "code" },
    el("figcaption", {}, el("span", {}, name), button),
    el("pre", { tabindex: "0", "aria-label": `Code, ${name}` }, el("code", {}, text)),
  );
}
