// Elements from values. Texts become text nodes, never markup: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";
const DRAWN = new Set(["svg", "rect", "path", "line"]);

/** An element: h("p", {class: "note", onclick: act}, "text", other). False, null and undefined are left out. */
export function h(name, attributes = {}, ...children) {
  const made = DRAWN.has(name) ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...kept(children));
  return made;
}

/** Put these in place of what an element holds. */
export function fill(element, ...children) {
  element.replaceChildren(...kept(children));
  return element;
}

function kept(children) {
  return children.flat(Infinity).filter((one) => one !== null && one !== undefined && one !== false);
}

/** A table with headings; on a phone each row becomes a block whose cells name themselves. */
export function table(caption, headings, rows) {
  return h("table", {},
    h("caption", { class: "unseen" }, caption),
    h("thead", {}, h("tr", {}, headings.map((one) => h("th", { scope: "col" }, one)))),
    h("tbody", {}, rows.map((row) => h("tr", {}, row.map((cell, at) =>
      h(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : null, "data-of": headings[at] }, cell))))));
}

/** Names and what is to say of them; a name without a value is left out. */
export function facts(pairs, kind = "") {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined && value !== "");
  return h("dl", { class: `facts ${kind}` }, shown.map(([name, value]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** A state: a shape for those who see no colours, and the word. */
export function mark(state) {
  return h("span", { class: `mark ${kindOf(state)}` }, words(state));
}

const KINDS = {
  good: ["healthy", "ready", "completed", "done", "succeeded", "previewed", "verified", "proved", "watching", "well"],
  bad: ["critical", "failed", "not_ready", "incomplete", "terminated", "rolled_back", "lost", "not verified", "not proved",
    "timed_out"],
  busy: ["running", "started", "begun"],
  waits: ["waits for a vote"],
  warn: ["degraded", "warning", "unknown", "not_evaluated", "partition_suspected", "paused", "refused", "rejected", "expired",
    "undone", "not watched", "suspected", "held"],
};

export function kindOf(state) {
  return Object.keys(KINDS).find((kind) => KINDS[kind].includes(state)) ?? "still";
}

/** `rolled_back` as people write it. */
export function words(name) {
  return String(name).replaceAll("_", " ");
}

/** The same at the beginning of a line. */
export function title(name) {
  const said = words(name);
  return said.charAt(0).toUpperCase() + said.slice(1);
}

/** A duration, in milliseconds. */
export function took(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(1)} s`;
  return left(ms / 1000);
}

/** A time that is left, in seconds, as a clock shows it. */
export function left(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

/** A moment in UTC, as the logs have it. */
export function moment(text) {
  if (!text) return "–";
  const iso = new Date(text).toISOString();
  return h("time", { datetime: iso }, `${iso.slice(0, 10)} ${iso.slice(11, 19)}`);
}

export function bytes(count) {
  if (count === null || count === undefined) return "not known";
  if (count === 0) return "none";
  return `${count.toLocaleString("en")} bytes`;
}

/** A digest whole, in groups that two people can read to each other; copied, it has no gaps. */
export function digest(text) {
  const hex = text.replace(/^sha256:/, "");
  return h("code", { class: "digest", "aria-label": text },
    h("span", {}, "sha256:"), hex.match(/.{1,8}/g).map((part) => h("span", {}, part)));
}

/** What a rule refused, whole: the rule, its values, and what would change the answer. */
export function refusal({ rule, message, values = {}, remedy }, title = "Refused") {
  const shown = Object.entries(values).map(([name, value]) =>
    [words(name), typeof value === "string" ? value : JSON.stringify(value)]);
  return h("section", { class: "refusal", role: "alert" },
    h("h3", {}, title, " ", h("code", {}, rule)),
    h("p", {}, message),
    shown.length > 0 && facts(shown, "tight"),
    remedy && h("p", { class: "remedy" }, h("b", {}, "What would change it: "), remedy));
}

const SAID_FOR_MS = 10_000;
let saidUntil;

/** Tell it to people who look and to people who listen. */
export function say(text) {
  const said = document.getElementById("said");
  clearTimeout(saidUntil);
  said.textContent = text;
  saidUntil = setTimeout(() => { said.textContent = ""; }, SAID_FOR_MS);
}

/** Do it now and again after so many seconds, until the page is left or the credentials are no good any more. */
export async function again(signal, seconds, work) {
  while (!signal.aborted) {
    try {
      await work();
    } catch (error) {
      if (error.status === undefined || error.status === 401) throw error;
      say(`${error.message} It is asked again.`);
      await pause(signal, error.values?.retry_after_s ?? 0);
    }
    await pause(signal, typeof seconds === "function" ? seconds() : seconds);
  }
}

export function pause(signal, seconds) {
  return new Promise((done) => {
    const timer = setTimeout(done, seconds * 1000);
    signal.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
  });
}
