// The server: requests, its errors, streams of events.

const KEY = "pyllamacpp.key";

/** What went wrong. kind: "gone" (no answer), "key", "broken" (the stream ended early), "refused". */
export class ServerError extends Error {
  constructor(kind, message, retryAfter = null) {
    super(message);
    this.kind = kind;
    this.retryAfter = retryAfter;
  }
}

export const apiKey = {
  get: () => localStorage.getItem(KEY),
  set: (key) => localStorage.setItem(KEY, key),
  forget: () => localStorage.removeItem(KEY),
};

async function request(path, options = {}) {
  const headers = { ...options.headers };
  const key = apiKey.get();
  // Headers hold Latin-1 only; another key cannot be one of the server's.
  if (key) headers.authorization = `Bearer ${encodeURI(key) === key ? key : "not-a-key"}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("gone", "The server does not answer.");
  }
  if (response.ok) return response;
  let message = `The server answered with status ${response.status}.`;
  try {
    message = sentence((await response.json()).error.message);
  } catch {
    // Not an error object: a proxy in between, perhaps.
  }
  const kind = response.status === 401 ? "key" : "refused";
  throw new ServerError(kind, message, response.headers.get("retry-after"));
}

const sentence = (text) => text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

/** The names of the models. */
export async function models() {
  return (await (await request("v1/models")).json()).data.map((model) => model.id);
}

/** The first model: its name and the size of its context. */
export async function properties() {
  const { model, n_ctx } = await (await request("props")).json();
  return { model, context: n_ctx };
}

/** Whether the server answers. */
export async function isThere() {
  try {
    await request("health", { cache: "no-store" });
    return true;
  } catch {
    return false;
  }
}

/**
 * Streams an answer. body: of /v1/chat/completions. onText(piece) for each piece.
 * Returns {usage, reason}; throws ServerError, or AbortError after signal.
 */
export async function streamChat(body, signal, onText) {
  const response = await request("v1/chat/completions", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  const found = { usage: null, reason: null };
  let isDone = false;
  let thinks = false;
  try {
    for await (const data of events(response.body)) {
      if (data === "[DONE]") {
        isDone = true;
        break;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) throw new ServerError("refused", sentence(chunk.error.message));
      const choice = chunk.choices[0];
      found.usage = chunk.usage ?? found.usage;
      found.reason = choice?.finish_reason ?? found.reason;
      const { reasoning_content: thought, content } = choice?.delta ?? {};
      // What the model thinks is kept in its answer, as models write it.
      if (thought) onText(thinks ? thought : `<think>\n${thought}`);
      if (content) onText(thinks ? `\n</think>\n\n${content}` : content);
      thinks = Boolean(thought) || (thinks && !content);
    }
  } catch (error) {
    if (error.name === "AbortError" || error instanceof ServerError) throw error;
    isDone = false;
  }
  if (!isDone) throw new ServerError("broken", "The connection broke before the answer was complete.");
  return found;
}

/** The data of each server-sent event. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        const lines = part.split("\n").filter((line) => line.startsWith("data:"));
        if (lines.length) yield lines.map((line) => line.slice(5).trim()).join("\n");
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
