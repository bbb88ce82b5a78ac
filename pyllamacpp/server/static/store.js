// Conversations, kept in this browser's IndexedDB; nothing of them is kept by the server.
//
// A conversation: {id, title, isNamed, created, changed, settings, nodes, leaf}. `nodes` is a tree:
// {id: {id, parent, role, text, files, created, state, error, stats}}; `leaf` ends the branch shown.

const opened = new Promise((resolve, reject) => {
  const asked = indexedDB.open("pyllamacpp", 1);
  asked.onupgradeneeded = () => asked.result.createObjectStore("conversations", { keyPath: "id" });
  asked.onsuccess = () => resolve(asked.result);
  asked.onerror = () => reject(asked.error);
});

async function transact(mode, action) {
  const transaction = (await opened).transaction("conversations", mode);
  const asked = action(transaction.objectStore("conversations"));
  return new Promise((resolve, reject) => {
    transaction.oncomplete = () => resolve(asked.result);
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });
}

const others = new BroadcastChannel("pyllamacpp.conversations");

/** Calls a function when another tab has changed a conversation. */
export const onChangeElsewhere = (react) => others.addEventListener("message", (e) => react(e.data));

export const load = (id) => transact("readonly", (store) => store.get(id));
export const loadAll = () => transact("readonly", (store) => store.getAll());

export async function save(conversation) {
  await transact("readwrite", (store) => store.put(conversation));
  others.postMessage(conversation.id);
}

export async function remove(id) {
  await transact("readwrite", (store) => store.delete(id));
  others.postMessage(id);
}

const newId = () => {
  const bytes = crypto.getRandomValues(new Uint8Array(9));
  return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_");
};

export function newConversation(settings) {
  const now = Date.now();
  const id = newId();
  return { id, title: "New conversation", isNamed: false, created: now, changed: now, settings, nodes: {}, leaf: null };
}

/** Adds a message below another (null: at the start), which becomes the end of the branch. */
export function addMessage(conversation, parent, role, text, files = []) {
  const node = { id: newId(), parent, role, text, files, created: Date.now(), state: "done", error: null, stats: null };
  conversation.nodes[node.id] = node;
  conversation.leaf = node.id;
  return node;
}

/** The messages of the branch shown, first to last. */
export function branch(conversation) {
  const found = [];
  for (let at = conversation.leaf; at; at = conversation.nodes[at].parent) found.unshift(conversation.nodes[at]);
  return found;
}

/** The versions of a message: those with its parent. */
export const versions = (conversation, node) =>
  Object.values(conversation.nodes).filter((other) => other.parent === node.parent);

/** Shows another version of a message, down to its newest end. */
export function show(conversation, node) {
  let at = node;
  for (;;) {
    const below = Object.values(conversation.nodes).filter((other) => other.parent === at.id);
    if (!below.length) break;
    at = below.at(-1);
  }
  conversation.leaf = at.id;
}

/** A message as the model gets it: its files follow it, fenced. */
export function contentOf(node) {
  const parts = node.text ? [node.text] : [];
  for (const file of node.files) {
    const longest = Math.max(2, ...(file.text.match(/`+/g) ?? []).map((run) => run.length));
    const fence = "`".repeat(longest + 1);
    parts.push(`File ${file.name}:\n${fence}\n${file.text.replace(/\n$/, "")}\n${fence}`);
  }
  return parts.join("\n\n");
}

/** The branch shown as Markdown. */
export function asMarkdown(conversation) {
  const { system } = conversation.settings;
  const parts = [`# ${conversation.title}`];
  if (system) parts.push(`## System\n\n${system}`);
  for (const node of branch(conversation)) {
    parts.push(`## ${node.role === "user" ? "You" : "Assistant"}\n\n${contentOf(node)}`);
  }
  return `${parts.join("\n\n")}\n`;
}
