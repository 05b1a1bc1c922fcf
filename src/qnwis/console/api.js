// The public API, and who asks it. The token is in this tab's sessionStorage and in no URL.

const BASE = "/api/v1/continuity";
const TOKEN = "qnwis-token";

let me = null;
let aheadMs = 0; // of this machine's clock, by the API's

/** What was refused, or could not be asked. */
export class Refused extends Error {
  constructor(status, problem) {
    super(problem.message);
    Object.assign(this, { status, ...problem });
  }
}

export const session = {
  get token() { return sessionStorage.getItem(TOKEN); },
  get me() { return me; },
  /** Raises Refused where the API does not take the token. */
  async begin(token) {
    sessionStorage.setItem(TOKEN, token);
    try {
      me = await get("/me");
    } catch (error) {
      if (error instanceof Refused && error.status === 401) sessionStorage.removeItem(TOKEN);
      throw error;
    }
    return me;
  },
  end() {
    sessionStorage.removeItem(TOKEN);
    me = null;
  },
};

/** Now by the API's clock, so that time left is right on a machine whose clock is not. */
export function now() {
  return new Date(Date.now() - aheadMs);
}

export function may(permission) {
  return me !== null && me.permissions.includes(`continuity:${permission}`);
}

export async function get(path, signal) {
  return (await ask("GET", path, { signal })).json();
}

/** A POST that changes nothing. */
export async function look(path, body, signal) {
  return (await ask("POST", path, { body, signal })).json();
}

/** A POST that acts: fresh, never seen, and with a key under which it is done once. */
export async function act(path, body, { key = random(), headers = {} } = {}) {
  const fresh = {
    "X-Request-Timestamp": now().toISOString(),
    "X-Request-Nonce": random(),
    "Idempotency-Key": key,
  };
  return (await ask("POST", path, { body, headers: { ...fresh, ...headers } })).json();
}

/** A file of the API, saved by the browser under this name. */
export async function download(path, name) {
  const content = await (await ask("GET", path)).blob();
  const url = URL.createObjectURL(content);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  URL.revokeObjectURL(url);
}

/** Server-sent events, asked for with the token that EventSource cannot send. */
export async function* events(path, signal) {
  const response = await ask("GET", path, { signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    held += value;
    for (let end = held.indexOf("\n\n"); end >= 0; end = held.indexOf("\n\n")) {
      const event = parsed(held.slice(0, end));
      held = held.slice(end + 2);
      if (event.name) yield event;
    }
  }
}

function parsed(text) {
  const event = { name: "", data: "" };
  for (const line of text.split("\n")) {
    if (line.startsWith("event: ")) event.name = line.slice(7);
    if (line.startsWith("data: ")) event.data += line.slice(6);
  }
  return { name: event.name, data: event.data ? JSON.parse(event.data) : null };
}

async function ask(method, path, { body, headers = {}, signal } = {}) {
  const sent = { ...headers, Authorization: `Bearer ${session.token}` };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(BASE + path, {
      method, headers: sent, signal, body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store", credentials: "omit", redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, {
      rule: "unreachable", message: "The API does not answer.", values: {},
      remedy: "Check the network; what was asked for may have happened. qnwis-continuity does not need the API.",
    });
  }
  told(response);
  if (response.ok) return response;
  throw new Refused(response.status, await problem(response));
}

async function problem(response) {
  try {
    const { rule, detail, values, remedy } = await response.json();
    return { rule, message: detail, values, remedy };
  } catch {
    return { rule: `http_${response.status}`, message: `${response.status} ${response.statusText}`, values: {}, remedy: "" };
  }
}

function told(response) {
  const date = Date.parse(response.headers.get("Date") ?? "");
  if (Number.isNaN(date)) return;
  // The header has whole seconds: half a one is as near as it says.
  const ahead = Date.now() - (date + 500);
  aheadMs = Math.abs(ahead) > 1500 ? ahead : 0;
}

export function random() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
