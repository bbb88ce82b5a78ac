// The list of conversations: open, rename, delete, export.

import { ask, byId, download, el, iconButton, openMenu } from "./dom.js";
import { asMarkdown, loadAll, remove } from "./store.js";

const GROUPS = [["Today", 0], ["Yesterday", 1], ["Last seven days", 7], ["Earlier", Infinity]];

/** actions: {renamed(conversation), deleted(id)}. */
export class Sidebar {
  constructor(actions) {
    this.actions = actions;
    const narrow = matchMedia("(max-width: 52rem)");
    const adapt = () => this.close();
    narrow.addEventListener("change", adapt);
    this.isNarrow = () => narrow.matches;
    byId("open-sidebar").addEventListener("click", () => this.open());
    for (const id of ["close-sidebar", "backdrop"]) byId(id).addEventListener("click", () => this.close(true));
    byId("sidebar").addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.isNarrow()) this.close(true);
    });
    adapt();
  }

  open() {
    this.#set(true);
    byId("close-sidebar").focus();
  }

  close(focus = false) {
    this.#set(false);
    if (focus) byId("open-sidebar").focus();
  }

  /** On a narrow page the list lies over the rest, and only one of both can be reached. */
  #set(isOpen) {
    document.body.classList.toggle("list-open", isOpen);
    byId("sidebar").inert = this.isNarrow() && !isOpen;
    byId("main").inert = this.isNarrow() && isOpen;
    byId("open-sidebar").setAttribute("aria-expanded", String(isOpen));
  }

  async draw(currentId) {
    const all = (await loadAll()).sort((a, b) => b.changed - a.changed);
    const midnight = new Date().setHours(0, 0, 0, 0);
    const groups = new Map();
    for (const conversation of all) {
      const age = conversation.changed >= midnight ? 0 : Math.ceil((midnight - conversation.changed) / 86_400_000);
      const [name] = GROUPS.find(([, days]) => age <= days);
      groups.set(name, [...(groups.get(name) ?? []), conversation]);
    }
    byId("list").replaceChildren(
      ...[...groups].flatMap(([name, members]) => [el("h2", {}, name), el("ul", {}, ...members.map((one) => this.#entry(one, one.id === currentId)))]),
      ...(all.length ? [] : [el("p", { class: "note" }, "No conversations yet.")]),
    );
  }

  #entry(conversation, isCurrent) {
    const { id, title } = conversation;
    const menu = iconButton("dots", `More for ${title}`, () =>
      openMenu(menu, [
        ["Rename", () => this.#rename(conversation)],
        ["Export as Markdown", () => download(`${fileName(title)}.md`, asMarkdown(conversation), "text/markdown")],
        ["Export as JSON", () => download(`${fileName(title)}.json`, JSON.stringify(conversation, null, 2), "application/json")],
        ["Delete", () => this.#delete(conversation)],
      ]),
      { "aria-haspopup": "menu", "aria-expanded": "false" },
    );
    return el("li", {}, el("a", { href: `#${id}`, "aria-current": isCurrent ? "page" : null, onclick: () => this.close() }, title), menu);
  }

  async #rename(conversation) {
    const title = await ask({ title: "Rename the conversation", label: "Title", value: conversation.title, yes: "Rename" });
    if (!title?.trim()) return;
    Object.assign(conversation, { title: title.trim(), isNamed: true });
    await this.actions.renamed(conversation);
  }

  async #delete(conversation) {
    const text = `“${conversation.title}” is kept nowhere else.`;
    if (!(await ask({ title: "Delete this conversation?", text, yes: "Delete" }))) return;
    await remove(conversation.id);
    this.actions.deleted(conversation.id);
  }
}

const fileName = (title) => title.replace(/[^\p{L}\p{N} ._-]+/gu, "").trim().slice(0, 60) || "conversation";
