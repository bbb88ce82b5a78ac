// The page: one conversation is shown, at most one answer is on its way.

import { ServerError, isThere, models, properties, streamChat } from "./api.js";
import { Composer } from "./composer.js";
import { announce, byId, drawIcons } from "./dom.js";
import { askForKey, asRequest, connectSettings, connectTheme, lastSettings, offerModels } from "./settings.js";
import { Sidebar } from "./sidebar.js";
import * as store from "./store.js";
import { Thread } from "./thread.js";

let conversation = store.newConversation(lastSettings());
let answering = null; // {controller, conversation} while an answer is on its way
let server = null; // {names, model, context} once the server has answered

const thread = new Thread(byId("thread"), byId("scroller"), { regenerate, edit, show, starter: (text) => composer.setText(text) });
const sidebar = new Sidebar({ renamed, deleted });
const composer = new Composer({ onSend: send, onEditLast: editLast });
drawIcons();
connectTheme();
connectSettings(() => conversation.settings, settingsChanged);

// --- what is shown

function draw() {
  const isBusy = answering?.conversation === conversation;
  const model = conversation.settings.model ?? server?.model ?? "";
  document.title = `${conversation.title} · pyllamacpp`;
  byId("title").textContent = conversation.title;
  byId("model-name").textContent = model;
  byId("stop").hidden = !answering;
  byId("send").hidden = Boolean(answering);
  thread.draw(conversation, { busy: isBusy, model });
  drawContext();
}

/** How much of the context the last answer left; known of the first model only. */
function drawContext() {
  const stats = store.branch(conversation).at(-1)?.stats;
  const isKnown = Boolean(stats?.context && server?.context) && (conversation.settings.model ?? server.model) === server.model;
  byId("context").hidden = !isKnown;
  if (!isKnown) return;
  byId("context-meter").value = stats.context / server.context;
  byId("context-text").textContent = `${stats.context.toLocaleString("en")} of ${server.context.toLocaleString("en")} tokens`;
}

async function open(id) {
  const found = id && (await store.load(id));
  if (answering?.conversation.id === id) conversation = answering.conversation;
  else conversation = found || store.newConversation(lastSettings());
  for (const node of Object.values(conversation.nodes)) {
    // The page was left while this answer was on its way.
    if (node.state === "streaming" && answering?.conversation !== conversation) node.state = "stopped";
  }
  draw();
  thread.toEnd();
  await sidebar.draw(conversation.id);
}

async function keep(changed = conversation) {
  changed.changed = Date.now();
  try {
    await store.save(changed);
  } catch (error) {
    announce(`This conversation could not be kept: ${error.message}`);
  }
}

function settingsChanged() {
  if (Object.keys(conversation.nodes).length) keep();
  draw();
}

async function renamed(changed) {
  if (changed.id === conversation.id) Object.assign(conversation, { title: changed.title, isNamed: true });
  await keep(changed.id === conversation.id ? conversation : changed);
  draw();
  await sidebar.draw(conversation.id);
}

async function deleted(id) {
  if (answering?.conversation.id === id) {
    answering.isDeleted = true;
    answering.controller.abort();
  }
  if (id === conversation.id) goTo("");
  else await sidebar.draw(conversation.id);
}

/** The address names the conversation, so that a reload and the browser's history find it. */
function goTo(id) {
  history.pushState(null, "", id ? `#${id}` : location.pathname);
  open(id);
}

// --- messages

function send(text, files) {
  if (answering) return false;
  const isFirst = !conversation.leaf;
  const asked = store.addMessage(conversation, conversation.leaf, "user", text, files);
  if (isFirst) {
    if (!conversation.isNamed) conversation.title = (text || files[0].name).replace(/\s+/g, " ").slice(0, 60);
    history.replaceState(null, "", `#${conversation.id}`);
  }
  answer(asked);
  return true;
}

function regenerate(node) {
  if (!answering) answer(conversation.nodes[node.parent], node.error && !node.text ? node : null);
}

async function show(node) {
  if (answering) return;
  store.show(conversation, node);
  await keep(); // before it is seen, so that a reload shows what was seen
  draw();
}

function edit(node) {
  const articles = [...byId("thread").children];
  const article = articles[store.branch(conversation).indexOf(node)];
  const { form, area } = thread.editor(
    node,
    (text) => {
      if (!answering) answer(store.addMessage(conversation, node.parent, "user", text.trim(), node.files));
      byId("prompt").focus();
    },
    () => {
      draw();
      byId("prompt").focus();
    },
  );
  article.replaceChildren(form);
  area.focus();
}

function editLast() {
  const last = store.branch(conversation).filter((node) => node.role === "user").at(-1);
  if (last && !answering) edit(last);
}

/** Asks for an answer to a message; replaced: a failed one whose place it takes. */
async function answer(asked, replaced = null) {
  const own = conversation;
  if (replaced) delete own.nodes[replaced.id];
  const node = store.addMessage(own, asked.id, "assistant", "");
  node.state = "streaming";
  const job = { controller: new AbortController(), conversation: own, isDeleted: false };
  answering = job;
  own.leaf = asked.id;
  const messages = store.branch(own).filter((one) => one.role === "user" || one.text);
  own.leaf = node.id;
  const body = {
    ...asRequest(own.settings),
    messages: [
      ...(own.settings.system.trim() ? [{ role: "system", content: own.settings.system }] : []),
      ...messages.map((one) => ({ role: one.role, content: store.contentOf(one) })),
    ],
  };
  draw();
  thread.toEnd();
  announce("The answer is on its way.");
  await keep(own);
  sidebar.draw(conversation.id);

  const start = performance.now();
  let first = 0;
  let last = 0;
  let nPieces = 0;
  let saved = start;
  let frame = 0;
  const paint = () => {
    frame = 0;
    const follows = thread.isAtEnd();
    thread.update(node);
    if (follows && own === conversation) thread.toEnd();
  };
  const stats = (end) => {
    const tokens = end?.usage?.completion_tokens ?? nPieces;
    const context = end?.usage?.total_tokens ?? null;
    return { tokens, isExact: Boolean(end?.usage), seconds: (last - first) / 1000, first: (first - start) / 1000, reason: end?.reason ?? null, context };
  };
  try {
    const end = await streamChat(body, job.controller.signal, (piece) => {
      last = performance.now();
      first ||= last;
      nPieces += 1;
      node.text += piece;
      frame ||= requestAnimationFrame(paint);
      if (last - saved > 500) {
        saved = last;
        if (!job.isDeleted) keep(own);
      }
    });
    node.state = "done";
    first ||= last = performance.now();
    node.stats = stats(end);
    announce(`The answer: ${node.text.slice(0, 1000)}`);
  } catch (error) {
    if (error.name === "AbortError") {
      node.state = "stopped";
      announce("Stopped.");
    } else {
      node.state = "failed";
      node.error = error instanceof ServerError ? error.message : `The page failed: ${error.message}`;
      if (error.retryAfter) node.error += ` Try again in ${error.retryAfter} s.`;
    }
    if (nPieces) node.stats = stats(null);
    if (error.kind === "gone" || error.kind === "broken") watch();
    if (error.kind === "key") job.needsKey = true;
  }
  cancelAnimationFrame(frame);
  answering = null;
  if (!job.isDeleted) await keep(own);
  const hadFocus = document.activeElement === byId("stop") || document.activeElement === document.body;
  const follows = thread.isAtEnd();
  draw();
  if (follows) thread.toEnd();
  if (hadFocus) byId("prompt").focus();
  await sidebar.draw(conversation.id);
  if (job.needsKey && (await askForKey()) && own === conversation) regenerate(node);
}

// --- the server

/** Asks until the server answers, and says so meanwhile. */
let watching = null;
async function watch() {
  if (watching) return;
  watching = setTimeout(async () => {
    watching = null;
    if (await isThere()) {
      if (!byId("gone").hidden) announce("The server answers again.");
      byId("gone").hidden = true;
      if (!server) connect();
    } else {
      byId("gone").hidden = false;
      watch();
    }
  }, byId("gone").hidden ? 0 : 2000);
}

async function connect() {
  try {
    const names = await models();
    server = { names, ...(await properties()) };
    offerModels(names);
    draw();
  } catch (error) {
    if (error.kind === "key") {
      if (await askForKey()) await connect();
    } else if (error.kind === "gone") {
      watch();
    } else {
      announce(error.message);
    }
  }
}

// --- the rest of the page

byId("stop").addEventListener("click", () => answering?.controller.abort());
byId("new").addEventListener("click", startNew);
byId("ask-again").addEventListener("click", () => {
  clearTimeout(watching);
  watching = null;
  byId("gone").hidden = true;
  watch();
});
byId("to-end").addEventListener("click", () => thread.toEnd());
const markEnd = () => { byId("to-end").hidden = thread.isAtEnd(); };
byId("scroller").addEventListener("scroll", markEnd);
new ResizeObserver(markEnd).observe(byId("thread"));
addEventListener("popstate", () => open(location.hash.slice(1)));
addEventListener("keydown", (event) => {
  if (event.altKey && event.code === "KeyN") {
    event.preventDefault();
    startNew();
  } else if (event.key === "Escape" && answering && !document.querySelector("dialog[open]")) {
    answering.controller.abort();
  }
});
store.onChangeElsewhere(async (id) => {
  if (id === conversation.id && !answering) await open(id);
  else await sidebar.draw(conversation.id);
});

function startNew() {
  sidebar.close();
  if (conversation.leaf) goTo("");
  byId("prompt").focus();
}

await open(location.hash.slice(1));
if (!matchMedia("(pointer: coarse)").matches) byId("prompt").focus();
connect();
