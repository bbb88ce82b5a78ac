// Elements, icons, dialogs. Texts become text nodes only: the server's policy forbids innerHTML.

const SVG = "http://www.w3.org/2000/svg";
const PATHS = {
  plus: "M12 5v14M5 12h14",
  close: "M6 6l12 12M18 6L6 18",
  menu: "M4 7h16M4 12h16M4 17h10",
  sliders: "M4 8h8m4 0h4M4 16h4m4 0h8M14 6v4M10 14v4",
  clip: "M19 11l-7.5 7.5a4.5 4.5 0 0 1-6.4-6.4l8-8a3 3 0 0 1 4.3 4.3l-8 8a1.5 1.5 0 0 1-2.1-2.1L14 7.5",
  up: "M12 19V5M6 11l6-6 6 6",
  down: "M12 5v14M6 13l6 6 6-6",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h10v11H9zM15 9V4H5v11h4",
  check: "M5 12.5l4.5 4.5L19 7.5",
  again: "M20 12a8 8 0 1 1-2.5-5.8M20 3v5h-5",
  pen: "M4 20l1-4L16 5l3 3L8 19zM14 7l3 3",
  left: "M14.5 6l-6 6 6 6",
  right: "M9.5 6l6 6-6 6",
  dots: "M5 12h.01M12 12h.01M19 12h.01",
  page: "M7 3h7l4 4v14H7zM14 3v4h4",
};

/** The element of an id. */
export const byId = (id) => document.getElementById(id);

/** An icon; drawn for the eye only. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** An element. options: attributes; `on...` are listeners, null and false are left out. */
export function el(tag, options = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

/** A button of an icon whose name is told to screen readers and shown on hover. */
export const iconButton = (name, label, onclick, options = {}) =>
  el(
    "button",
    { type: "button", class: "icon-button", "aria-label": label, title: label, onclick, ...options },
    icon(name),
  );

/** Gives the buttons of the page their icons. */
export function drawIcons() {
  for (const node of document.querySelectorAll("[data-icon]")) node.prepend(icon(node.dataset.icon));
}

/** Tells screen readers something. */
export function announce(text) {
  byId("status").textContent = text;
}

/** Copies a text and shows on the button that it is done. */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Outside of https and localhost there is no clipboard object.
    const area = el("textarea", { class: "hidden-text" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  announce("Copied.");
  button.querySelector("svg").replaceWith(icon("check"));
  setTimeout(() => button.querySelector("svg").replaceWith(icon("copy")), 1500);
}

/** Offers a text as a file. */
export function download(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/**
 * Asks in a dialog. Without `label` a question: true or false; with it a text, null where it was
 * cancelled. secret: the text is not shown.
 */
export function ask({ title, text = "", label = null, value = "", yes, secret = false }) {
  const dialog = byId("ask");
  const input = byId("ask-input");
  byId("ask-title").textContent = title;
  byId("ask-text").textContent = text;
  byId("ask-label").textContent = label ?? "";
  byId("ask-field").hidden = label === null;
  byId("ask-yes").textContent = yes;
  byId("ask-cancel").onclick = () => dialog.close();
  input.type = secret ? "password" : "text";
  input.value = value;
  dialog.returnValue = "";
  const form = dialog.querySelector("form");
  form.onsubmit = (event) => {
    event.preventDefault();
    dialog.close("yes");
  };
  dialog.showModal();
  (label === null ? byId("ask-yes") : input).focus();
  if (label !== null) input.select();
  return new Promise((resolve) => {
    dialog.onclose = () => {
      const said = dialog.returnValue === "yes";
      const found = label === null ? said : said ? input.value : null;
      input.value = "";
      resolve(found);
    };
  });
}

/** A menu under a button. entries: [label, function] each. */
export function openMenu(button, entries) {
  const items = entries.map(([label, action]) =>
    el("button", { type: "button", role: "menuitem", tabindex: "-1", onclick: () => close(action) }, label),
  );
  const menu = el("div", { role: "menu", class: "menu", "aria-label": button.ariaLabel }, ...items);
  let isOpen = true;
  function close(action) {
    if (!isOpen) return;
    isOpen = false;
    document.removeEventListener("pointerdown", outside, true);
    button.setAttribute("aria-expanded", "false");
    menu.remove();
    button.focus();
    action?.();
  }
  function outside(event) {
    if (!menu.contains(event.target)) close();
  }
  menu.addEventListener("keydown", (event) => {
    const at = items.indexOf(document.activeElement);
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) items[(at + step + items.length) % items.length].focus();
    else if (event.key === "Home") items[0].focus();
    else if (event.key === "End") items.at(-1).focus();
    else if (event.key === "Escape" || event.key === "Tab") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  document.addEventListener("pointerdown", outside, true);
  button.setAttribute("aria-expanded", "true");
  button.after(menu);
  items[0].focus();
}
