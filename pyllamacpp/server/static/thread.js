// The messages of a conversation on the page.

import { copy, el, icon, iconButton } from "./dom.js";
import { MarkdownView } from "./markdown.js";
import { branch, contentOf, versions } from "./store.js";

/** Draws the messages. actions: {regenerate, edit, show, starter} with a message's node. */
export class Thread {
  constructor(root, scroller, actions) {
    this.root = root;
    this.scroller = scroller;
    this.actions = actions;
    this.views = new Map();
  }

  /** Shows the branch of a conversation. busy: an answer is on its way, nothing can be changed. */
  draw(conversation, { busy, model }) {
    this.views.clear();
    const nodes = branch(conversation);
    this.root.replaceChildren(
      ...(nodes.length ? nodes.map((node) => this.#message(conversation, node, busy)) : [this.#empty(model)]),
    );
  }

  /** Shows more of an answer. */
  update(node) {
    const view = this.views.get(node.id);
    if (!view) return;
    view.update(node);
  }

  toEnd() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  isAtEnd() {
    return this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight < 48;
  }

  #empty(model) {
    const starters = ["Explain how a rainbow forms", "Write a short poem about a llama", "Name five uses of a paper clip"];
    return el(
      "div",
      { class: "empty" },
      el("h2", {}, model ? `Talk to ${model}` : "Talk to the model"),
      el("p", {}, "Conversations are kept in this browser, not on the server."),
      el("div", { class: "starters" }, ...starters.map((text) => el("button", { type: "button", class: "button", onclick: () => this.actions.starter(text) }, text))),
    );
  }

  #message(conversation, node, busy) {
    const isUser = node.role === "user";
    const body = el("div", { class: "body" });
    const article = el(
      "article",
      { class: `message ${node.role}`, "data-state": node.state, "aria-busy": node.state === "streaming" ? "true" : null },
      el("h2", { class: "hidden-text" }, isUser ? "You" : "Answer"),
      body,
    );
    if (isUser) {
      if (node.text) body.append(el("p", { class: "said" }, node.text));
      for (const file of node.files) body.append(el("details", { class: "file" }, el("summary", {}, icon("page"), file.name), el("pre", { tabindex: "0" }, file.text)));
    } else {
      const view = new AnswerView(body);
      view.update(node);
      this.views.set(node.id, view);
    }
    if (node.error) article.append(this.#error(node));
    else if (node.state === "stopped") article.append(el("p", { class: "note" }, "Stopped."));
    else if (node.stats?.reason === "length") article.append(el("p", { class: "note" }, "Ended at the longest answer or at the end of the context."));
    if (node.state !== "streaming") article.append(this.#foot(conversation, node, busy));
    return article;
  }

  #error(node) {
    return el("div", { class: "error", role: "alert" }, el("span", {}, node.error), el("button", { type: "button", class: "button small", onclick: () => this.actions.regenerate(node) }, "Try again"));
  }

  #foot(conversation, node, busy) {
    const isUser = node.role === "user";
    const button = iconButton("copy", isUser ? "Copy the message" : "Copy the answer", () => copy(isUser ? contentOf(node) : node.text, button));
    const foot = el("div", { class: "foot" }, button);
    if (!busy) {
      foot.append(
        isUser
          ? iconButton("pen", "Edit the message", () => this.actions.edit(node))
          : iconButton("again", "Regenerate the answer", () => this.actions.regenerate(node)),
      );
    }
    const all = versions(conversation, node);
    if (all.length > 1) {
      const at = all.indexOf(node);
      const step = (name, label, k) => iconButton(name, label, () => this.actions.show(all[k]), { disabled: busy || !all[k] });
      foot.append(
        el("span", { class: "versions" }, step("left", "Version before", at - 1), el("span", {}, `${at + 1}/${all.length}`), step("right", "Version after", at + 1)),
      );
    }
    if (node.stats) foot.append(el("span", { class: "stats" }, statsText(node.stats)));
    return foot;
  }

  /** Puts a form for another text in place of a message. save(text) sends it as another version. */
  editor(node, save, cancel) {
    const area = el("textarea", { "aria-label": "Edit the message", rows: Math.min(12, node.text.split("\n").length + 1) });
    area.value = node.text;
    const form = el(
      "form",
      { class: "edit", onsubmit: (event) => { event.preventDefault(); if (area.value.trim() || node.files.length) save(area.value); } },
      area,
      el("div", { class: "dialog-foot" }, el("button", { type: "button", class: "button", onclick: cancel }, "Cancel"), el("button", { class: "button primary" }, "Send")),
    );
    area.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Enter" && !event.shiftKey) form.requestSubmit();
      else if (event.key === "Escape") cancel();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    return { form, area };
  }
}

/** An answer; what a model thinks between its tags is folded. */
class AnswerView {
  constructor(root) {
    this.root = root;
    this.answer = el("div", { class: "markdown" });
    this.markdown = new MarkdownView(this.answer);
    root.append(this.answer);
  }

  update(node) {
    const found = /^\s*<think>([\s\S]*?)(?:<\/think>|$)/.exec(node.text);
    if (found?.[1].trim()) {
      if (!this.thought) {
        this.thought = el("div", { class: "markdown" });
        this.thoughts = new MarkdownView(this.thought);
        this.root.prepend(el("details", { class: "thought" }, el("summary", {}, "Thinking"), this.thought));
      }
      this.thoughts.update(found[1]);
    }
    this.markdown.update(found ? node.text.slice(found[0].length) : node.text);
    this.root.classList.toggle("waiting", node.state === "streaming" && !node.text);
  }
}

/** "86 tokens · 41.2 tokens/s · first after 0.21 s"; "about" where pieces were counted. */
function statsText({ tokens, isExact, seconds, first }) {
  const parts = [`${isExact ? "" : "about "}${tokens.toLocaleString("en")} ${tokens === 1 ? "token" : "tokens"}`];
  if (tokens > 1 && seconds > 0) parts.push(`${((tokens - 1) / seconds).toFixed(1)} tokens/s`);
  parts.push(`first after ${first.toFixed(2)} s`);
  return parts.join(" · ");
}
