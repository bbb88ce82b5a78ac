// Markdown inside a paragraph, as DOM nodes: code, emphasis, links. Emphasis nests to a depth of 50.

import { el } from "./dom.js";

const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };
const SAFE = /^(https?:\/\/|mailto:)/i;
const PUNCTUATION = /[!-/:-@[-`{-~]/;
const BARE_URL = /https?:\/\/[^\s<>"'`*\])]{1,2000}/y;
const TARGET = /\((?:<([^<>\n]{0,2000})>|([^\s()<>]{0,2000}(?:\([^\s()<>]{0,200}\)[^\s()<>]{0,500})?))(?:[ \t]+"[^"\n]{0,500}")?\)/y;
const ENTITY = /&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|([a-z]{2,5}));/iy;

/** The nodes of a text. */
export function inline(text) {
  const nodes = scan(text);
  emphasize(nodes);
  return nodes.map((node) => node.dom ?? node.text);
}

/**
 * Cuts a text into {text}, {dom} and runs of emphasis marks {text, mark, canOpen, canClose}.
 * Links are closed here: at their `]`, all since the `[` becomes their content.
 */
function scan(text) {
  const nodes = [];
  const brackets = []; // places in nodes of each `[` that is still open
  const runs = codeRuns(text);
  let plain = "";
  let i = 0;
  const flush = () => {
    if (plain) nodes.push({ text: plain });
    plain = "";
  };
  const add = (node) => {
    flush();
    nodes.push(node);
  };
  while (i < text.length) {
    const c = text[i];
    if (c === "\\" && i + 1 < text.length && (PUNCTUATION.test(text[i + 1]) || text[i + 1] === "\n")) {
      if (text[i + 1] === "\n") add({ dom: el("br") });
      else plain += text[i + 1];
      i += 2;
    } else if (c === "`") {
      const length = runLength(text, i);
      const end = runs.closing(i, length);
      if (end < 0) {
        plain += text.slice(i, i + length);
        i += length;
      } else {
        let code = text.slice(i + length, end).replace(/\n/g, " ");
        if (/^ .*[^ ].* $/.test(code)) code = code.slice(1, -1);
        add({ dom: el("code", {}, code) });
        i = end + length;
      }
    } else if (c === "*" || c === "_" || (c === "~" && text[i + 1] === "~")) {
      const length = runLength(text, i);
      add(emphasisRun(text, i, length));
      i += length;
    } else if (c === "[" || (c === "!" && text[i + 1] === "[")) {
      // An image would be fetched from elsewhere: its link is shown.
      const length = c === "!" ? 2 : 1;
      add({ text: text.slice(i, i + length) });
      brackets.push(nodes.length - 1);
      i += length;
    } else if (c === "]" && brackets.length) {
      flush();
      const start = brackets.pop();
      TARGET.lastIndex = i + 1;
      const target = TARGET.exec(text);
      if (target) {
        const content = nodes.splice(start).slice(1);
        emphasize(content);
        const children = content.map((node) => node.dom ?? node.text);
        nodes.push({ dom: link(target[1] ?? target[2], children) });
        brackets.length = 0; // a link holds no other link
        i = TARGET.lastIndex;
      } else {
        plain += c;
        i += 1;
      }
    } else if (c === "h" && matches(BARE_URL, text, i)) {
      const url = text.slice(i, BARE_URL.lastIndex).replace(/[.,;:!?]+$/, "");
      add({ dom: link(url, [url]) });
      i += url.length;
    } else if (c === "&" && matches(ENTITY, text, i)) {
      const source = text.slice(i, ENTITY.lastIndex);
      plain += entity(source);
      i += source.length;
    } else if (c === "\n") {
      const isBreak = plain.endsWith("  ");
      plain = plain.trimEnd();
      if (isBreak) add({ dom: el("br") });
      else plain += "\n";
      i += 1;
    } else {
      plain += c;
      i += 1;
    }
  }
  flush();
  return nodes;
}

function matches(pattern, text, i) {
  pattern.lastIndex = i;
  return pattern.test(text);
}

function runLength(text, i) {
  let end = i;
  while (text[end] === text[i]) end += 1;
  return end - i;
}

/** Where the runs of backticks are, by length, so that each search is one step. */
function codeRuns(text) {
  const places = new Map();
  for (const { 0: run, index } of text.matchAll(/`+/g)) {
    if (!places.has(run.length)) places.set(run.length, []);
    places.get(run.length).push(index);
  }
  const next = new Map();
  return {
    closing(i, length) {
      const list = places.get(length) ?? [];
      let k = next.get(length) ?? 0;
      while (k < list.length && list[k] <= i) k += 1;
      next.set(length, k);
      return list[k] ?? -1;
    },
  };
}

function entity(source) {
  const [, decimal, hex, name] = /^&(?:#(\d+)|#x([0-9a-f]+)|([a-z]+));$/i.exec(source);
  if (name) return ENTITIES[name.toLowerCase()] ?? source;
  const code = decimal ? Number(decimal) : Number.parseInt(hex, 16);
  return code > 0 && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? String.fromCodePoint(code) : source;
}

/** A link to the web or an address; any other scheme stays text. */
function link(url, children) {
  if (!SAFE.test(url)) return el("span", {}, ...children);
  return el("a", { href: url, target: "_blank", rel: "noopener noreferrer", title: url }, ...children);
}

/** CommonMark's rule of flanking: what stands beside a run says whether it opens or closes. */
function emphasisRun(text, i, length) {
  const before = text[i - 1] ?? " ";
  const after = text[i + length] ?? " ";
  const isSpace = (c) => /\s/.test(c);
  const isMark = (c) => /[\p{P}\p{S}]/u.test(c);
  const left = !isSpace(after) && (!isMark(after) || isSpace(before) || isMark(before));
  const right = !isSpace(before) && (!isMark(before) || isSpace(after) || isMark(after));
  const inWord = text[i] === "_";
  return {
    text: text.slice(i, i + length),
    mark: text[i],
    canOpen: left && (!inWord || !right || isMark(before)),
    canClose: right && (!inWord || !left || isMark(after)),
  };
}

/** Puts the nodes between matching runs into em, strong or del; 50 runs of a mark may wait, so nesting is bounded. */
function emphasize(nodes) {
  const openers = { "*": [], _: [], "~": [] };
  for (let i = 0; i < nodes.length; i += 1) {
    const closer = nodes[i];
    if (!closer.mark) continue;
    while (closer.canClose && closer.text && openers[closer.mark].length) {
      const at = openers[closer.mark].at(-1);
      const opener = nodes[at];
      const size = closer.mark === "~" || Math.min(opener.text.length, closer.text.length) > 1 ? 2 : 1;
      const tag = closer.mark === "~" ? "del" : size === 2 ? "strong" : "em";
      const inside = nodes.slice(at + 1, i).map((node) => node.dom ?? node.text);
      for (let k = at + 1; k < i; k += 1) nodes[k] = { text: "" };
      opener.text = opener.text.slice(size);
      closer.text = closer.text.slice(size);
      const dom = el(tag, {}, ...inside);
      // The node behind the opener is free now, unless they were neighbours.
      if (at + 1 < i) nodes[at + 1] = { dom };
      else break;
      for (const list of Object.values(openers)) while (list.length && list.at(-1) > at) list.pop();
      if (!opener.text) openers[closer.mark].pop();
    }
    if (closer.canOpen && closer.text && openers[closer.mark].length < 50) openers[closer.mark].push(i);
  }
}
