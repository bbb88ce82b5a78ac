// The drawer of settings: what a conversation sends besides its messages.

import { apiKey } from "./api.js";
import { ask, byId, el } from "./dom.js";

const KEY = "pyllamacpp.settings";

// [name, label, least, most, step, default, hint]; the defaults are those of `pyllamacpp chat`.
const NUMBERS = [
  ["temperature", "Temperature", 0, 5, 0.05, 0.8, "0: always the likeliest token"],
  ["top_p", "Top p", 0, 1, 0.01, 0.95, "the likeliest tokens up to this share"],
  ["top_k", "Top k", 0, 1000, 1, 40, "0: all tokens"],
  ["min_p", "Min p", 0, 1, 0.01, 0.05, "relative to the likeliest token"],
  ["repeat_penalty", "Repeat penalty", 0.5, 2, 0.05, 1, "1: none"],
  ["max_tokens", "Longest answer", 1, 1_000_000, 1, null, "tokens; empty: what fits"],
  ["seed", "Seed", 0, 2 ** 53 - 1, 1, null, "empty: another each time"],
];

export const DEFAULTS = {
  model: null,
  system: "",
  ...Object.fromEntries(NUMBERS.map(([name, , , , , value]) => [name, value])),
};

/** What new conversations start with. */
export function lastSettings() {
  try {
    return { ...DEFAULTS, ...JSON.parse(localStorage.getItem(KEY) ?? "{}") };
  } catch {
    return { ...DEFAULTS };
  }
}

/** The part of a request that the settings make. */
export function asRequest(settings) {
  const { system: _, ...rest } = settings;
  return Object.fromEntries(Object.entries(rest).filter(([, value]) => value !== null));
}

/** Connects the drawer. current(): the settings shown; changed(): after they changed. */
export function connectSettings(current, changed) {
  const dialog = byId("settings");
  const form = byId("settings-form");
  const fields = form.elements;
  for (const [name, label, min, max, step, value, hint] of NUMBERS) {
    const input = el("input", { type: "number", name, min, max, step, inputmode: "decimal", placeholder: value, "aria-describedby": `hint-${name}` });
    byId("numbers").append(el("div", { class: "field" }, el("label", {}, label, input), el("small", { id: `hint-${name}` }, hint)));
  }

  function fill() {
    for (const [name, value] of Object.entries(current())) if (fields[name]) fields[name].value = value ?? "";
  }

  form.addEventListener("input", ({ target }) => {
    if (target.validity && !target.validity.valid) {
      target.reportValidity();
      return;
    }
    const number = NUMBERS.find(([name]) => name === target.name);
    const value = number ? (target.value === "" ? number[5] : Number(target.value)) : target.value;
    keep({ [target.name]: target.name === "model" && !value ? null : value });
  });
  // A field left invalid shows again what counts.
  form.addEventListener("focusout", ({ target }) => {
    if (target.validity && !target.validity.valid) target.value = current()[target.name] ?? "";
  });
  byId("reset").addEventListener("click", () => {
    keep({ ...DEFAULTS, model: current().model });
    fill();
  });
  byId("forget-key").addEventListener("click", () => {
    apiKey.forget();
    location.reload();
  });
  byId("open-settings").addEventListener("click", () => {
    fill();
    byId("forget-key").hidden = !apiKey.get();
    dialog.showModal();
  });
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });

  function keep(changes) {
    Object.assign(current(), changes);
    const { system: _, ...lasting } = current();
    localStorage.setItem(KEY, JSON.stringify(lasting));
    changed();
  }
}

/** Offers the models of the server. */
export function offerModels(names) {
  byId("settings-form").elements.model.replaceChildren(...names.map((name, i) => el("option", { value: i === 0 ? "" : name }, name)));
}

/** Asks for the API key and keeps it; false where there was no answer. */
export async function askForKey() {
  const hasOne = Boolean(apiKey.get());
  const key = await ask({
    title: hasOne ? "This API key is not one of the server's" : "This server asks for an API key",
    text: "It is kept in this browser and sent to this server only.",
    label: "API key",
    yes: "Use it",
    secret: true,
  });
  if (!key) return false;
  apiKey.set(key.trim());
  return true;
}

/** Connects the choice of a theme. */
export function connectTheme() {
  const root = document.documentElement;
  for (const input of document.querySelectorAll("[name=theme]")) {
    input.checked = input.value === (root.dataset.theme ?? "system");
    input.addEventListener("change", () => {
      if (input.value === "system") delete root.dataset.theme;
      else root.dataset.theme = input.value;
      localStorage.setItem("pyllamacpp.theme", input.value);
    });
  }
}
