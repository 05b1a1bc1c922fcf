// Which page is shown, and who is signed in.

import { Refused, now, session } from "./api.js";
import { fill, h, refusal, say } from "./dom.js";
import { signIn } from "./views/sign_in.js";
import { overview } from "./views/now.js";
import { cluster } from "./views/cluster.js";
import { run } from "./views/run.js";
import { history } from "./views/history.js";
import { record, records } from "./views/records.js";
import { region, regions } from "./views/regions.js";

const PAGES = [
  [/^#?\/?$/, "now", overview],
  [/^#\/clusters\/([^/]+)$/, "now", cluster],
  [/^#\/clusters\/([^/]+)\/runs\/([^/]+)$/, "now", run],
  [/^#\/history$/, "history", history],
  [/^#\/records$/, "records", records],
  [/^#\/records\/([^/]+)$/, "records", record],
  [/^#\/regions$/, "regions", regions],
  [/^#\/regions\/([^/]+)$/, "regions", region],
];

const main = document.getElementById("main");
const bar = document.getElementById("bar");
let leaving = new AbortController();
let shownAt = null;

async function show() {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  say("");
  if (session.me === null && !(await signedIn())) return;
  const [pattern, name, view] = PAGES.find(([one]) => one.test(location.hash)) ?? PAGES[0];
  const named = (pattern.exec(location.hash) ?? []).slice(1).map(decodeURIComponent);
  for (const link of bar.querySelectorAll("[data-page]")) {
    if (link.dataset.page === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const moved = shownAt !== null && shownAt !== location.hash;
  shownAt = location.hash;
  const place = h("div", { class: `page ${name}` }, h("p", { class: "empty" }, "asking …"));
  fill(main, place);
  try {
    await view(place, signal, ...named);
    document.title = `${place.querySelector("h1")?.textContent.trim() ?? ""} · QNWIS Continuity`;
    if (moved && !signal.aborted) place.querySelector("h1")?.focus();
  } catch (error) {
    failed(place, error, signal);
  }
}

function failed(place, error, signal) {
  if (signal.aborted || error.name === "AbortError") return;
  if (error instanceof Refused && error.status === 401) return out(error);
  if (!(error instanceof Refused)) throw error;
  fill(place, h("h1", { tabindex: "-1" }, "Not to be shown"), refusal(error),
    h("p", {}, h("button", { onclick: show }, "Ask again")));
}

/** Whether the token of this tab is good still; else the page to sign in is shown. */
async function signedIn() {
  if (session.token !== null) {
    try {
      await session.begin(session.token);
      entered();
      return true;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      out(error);
      return false;
    }
  }
  out();
  return false;
}

function entered() {
  bar.hidden = false;
  document.getElementById("who").textContent = session.me.name;
  document.getElementById("who").title = `${session.me.roles.join(", ")}, by ${session.me.by}`;
}

function out(why) {
  if (!why || why.status === 401) session.end();
  bar.hidden = true;
  signIn(main, why, () => { entered(); show(); });
}

function tick() {
  const clock = document.getElementById("clock");
  clock.textContent = `${now().toISOString().slice(11, 19)} UTC`;
}

document.getElementById("sign-out").addEventListener("click", () => { leaving.abort(); out(); });
document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); main.focus(); });
addEventListener("hashchange", show);
// A refusal that a part of a page did not catch: credentials that ended meanwhile, or a network that is gone.
addEventListener("unhandledrejection", (event) => {
  if (event.reason?.name === "AbortError") event.preventDefault();
  else if (event.reason instanceof Refused) {
    event.preventDefault();
    if (event.reason.status === 401) { leaving.abort(); out(event.reason); } else say(event.reason.message);
  }
});
tick();
setInterval(tick, 1000);
show();
