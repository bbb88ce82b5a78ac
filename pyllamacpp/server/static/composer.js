// The field for messages and the files that go with one.

import { announce, byId, el, iconButton } from "./dom.js";

const MOST_BYTES = 1 << 20; // of one file; no context holds more

/** onSend(text, files) returns whether it was taken; then the field is emptied. */
export class Composer {
  constructor({ onSend, onEditLast }) {
    this.files = [];
    this.onSend = onSend;
    this.prompt = byId("prompt");
    byId("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.prompt.addEventListener("input", () => this.#fit());
    this.prompt.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      // On a touch screen Enter is the only way to a new line.
      const isTouch = matchMedia("(pointer: coarse)").matches;
      if (event.key === "Enter" && !event.shiftKey && !isTouch) {
        event.preventDefault();
        this.#send();
      } else if (event.key === "ArrowUp" && !this.prompt.value) {
        event.preventDefault();
        onEditLast();
      }
    });
    byId("attach").addEventListener("click", () => byId("file-input").click());
    byId("file-input").addEventListener("change", async ({ target }) => {
      await this.attach(target.files);
      target.value = "";
    });
    addEventListener("dragover", (event) => event.preventDefault());
    addEventListener("drop", (event) => {
      event.preventDefault();
      this.attach(event.dataTransfer.files);
    });
    this.prompt.addEventListener("paste", (event) => {
      if (!event.clipboardData.files.length) return;
      event.preventDefault();
      this.attach(event.clipboardData.files);
    });
  }

  /** Adds text files; says of others why not. */
  async attach(files) {
    const refused = [];
    for (const file of files) {
      if (file.size > MOST_BYTES) {
        refused.push(`${file.name} is larger than 1 MiB.`);
        continue;
      }
      try {
        const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
        if (text.includes("\0")) throw new TypeError();
        this.files.push({ name: file.name, text });
      } catch {
        refused.push(`${file.name} is not a text file in UTF-8.`);
      }
    }
    this.#drawFiles(refused);
    this.prompt.focus();
  }

  setText(text) {
    this.prompt.value = text;
    this.#fit();
    this.prompt.focus();
  }

  #send() {
    const text = this.prompt.value.trim();
    if ((!text && !this.files.length) || !this.onSend(text, this.files)) return;
    this.files = [];
    this.setText("");
    this.#drawFiles([]);
  }

  #fit() {
    this.prompt.style.height = "auto";
    this.prompt.style.height = `${this.prompt.scrollHeight}px`;
  }

  #drawFiles(refused) {
    byId("files").replaceChildren(
      ...this.files.map((file, i) =>
        el("li", {}, file.name, iconButton("close", `Remove ${file.name}`, () => {
          this.files.splice(i, 1);
          this.#drawFiles([]);
          this.prompt.focus();
        })),
      ),
      ...refused.map((text) => el("li", { class: "refused" }, text)),
    );
    if (refused.length) announce(refused.join(" "));
  }
}
