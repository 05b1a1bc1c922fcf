// One cluster: its nodes, its guardian, its readiness, its runs.

import { Refused, get, look, may } from "../api.js";
import { saying } from "../asking.js";
import { again, facts, fill, h, mark, moment, refusal, table, took, words } from "../dom.js";
import { runsTable } from "./history.js";
import { pips, writes } from "./now.js";

const EVERY_S = 5;
const WORST_FIRST = ["not_ready", "warning", "not_evaluated"];

export async function cluster(place, signal, id) {
  const [{ cluster: topology }, { policy }, first] = await Promise.all([
    get(`/clusters/${id}`, signal), get(`/clusters/${id}/policy`, signal),
    look("/status", { cluster: { cluster_id: id } }, signal),
  ]);
  const state = h("span", {}, mark(first.state));
  const head = h("div", {});
  const nodes = h("div", { class: "scroll" });
  const guardian = h("section", { class: "panel" });
  const ready = h("section", { class: "panel" });
  const recovery = h("section", {});
  const runs = h("div", {});
  fill(place,
    h("p", { class: "way-back" }, h("a", { href: "#/" }, "All clusters")),
    h("h1", { tabindex: "-1" }, id, " ", state),
    head, h("h2", {}, "Nodes"), nodes,
    h("div", { class: "columns" }, guardian, ready),
    recovery, h("h2", {}, "Runs"), runs,
    h("details", {}, h("summary", {}, "The policy that governs it"),
      facts(Object.entries(policy).map(([name, value]) =>
        [words(name), typeof value === "object" ? JSON.stringify(value) : String(value)]))));

  function seen(status) {
    fill(state, mark(status.state));
    fill(head, facts([
      ["nodes and quorum", h("span", { class: "pips" }, pips(status))],
      ["writes", writes(status)],
      ["primary", status.evidence.nodes.some((one) => one.state?.writable) ? "" : status.primary_node_id],
      ["standbys", status.protection.map((one) => `${one.there.length} of ${one.wanted} there`).join(", ")],
      ["held back", status.holding],
    ], "row"),
    status.protection.flatMap((one) => one.missing).map((one) =>
      h("p", { class: "warning" }, h("b", {}, one.node_id), ` is missing: ${one.why}. ${one.remedy}`)));
    fill(nodes, nodesTable(topology, status));
  }
  seen(first);
  again(signal, EVERY_S, async () => {
    seen(await look("/status", { cluster: { cluster_id: id } }, signal));
    await showGuardian(guardian, signal, id);
  });
  showReadiness(ready, signal, id);
  showTrend(recovery, signal, id);
  fill(runs, runsTable((await get(`/clusters/${id}/runs?limit=20`, signal)).runs));
}

function nodesTable(topology, status) {
  const heads = ["node", "state", "now", "region, site", "log", "epoch", "who says so"];
  return table("Nodes", heads, topology.nodes.map((node) => {
    const seen = status.evidence.nodes.find((one) => one.node_id === node.node_id);
    const own = seen?.state;
    return [
      h("b", {}, node.node_id), mark(seen?.status ?? "unknown"), doing(own, seen), `${node.region}, ${node.site}`,
      position(own), own ? String(own.epoch) : "–", seen?.source ?? "nobody",
    ];
  }));
}

function doing(own, seen) {
  if (!own) return seen?.error ?? "no answer";
  if (own.writable) return h("b", {}, "takes writes");
  if (own.handed_over) return "handed over";
  if (!own.database_up) return own.role === "witness" ? "witness" : `database down${own.why_down ? `: ${own.why_down}` : ""}`;
  if (own.in_recovery) return `${own.streaming ? "streams from" : "does not stream from"} ${own.upstream ?? "anybody"}`;
  return "takes no writes";
}

function position(own) {
  const lsn = own?.write_lsn ?? own?.receive_lsn;
  if (lsn === null || lsn === undefined) return "–";
  const hex = (number) => number.toString(16).toUpperCase();
  return `timeline ${own.timeline ?? "?"}, ${hex(Math.floor(lsn / 2 ** 32))}/${hex(lsn % 2 ** 32)}`;
}

async function showGuardian(place, signal, id) {
  const path = `/clusters/${id}/guardian`;
  let seen;
  try {
    ({ guardian: seen } = await get(path, signal));
  } catch (error) {
    if (!(error instanceof Refused) || error.status === 401) throw error;
    fill(place, h("h2", {}, "Guardian ", mark("not watched")), h("p", {}, error.message), h("p", { class: "soft" }, error.remedy));
    return;
  }
  if (place.contains(document.activeElement) && place.querySelector("h2")?.textContent.includes(seen.pause ? "paused" : "watching")) {
    return; // nothing is taken away from under whoever is there with the keyboard
  }
  const after = () => showGuardian(place, signal, id);
  fill(place,
    h("h2", {}, "Guardian ", mark(seen.pause ? "paused" : "watching")),
    seen.pause && h("p", { class: "warning" }, `Automatic failover is off: ${seen.pause.by}, "${seen.pause.reason}", since `, moment(seen.pause.since)),
    seen.holding && h("p", {}, seen.holding),
    facts([
      ["watching since", moment(seen.watching_since)],
      ["vantages", Object.keys(seen.statements).join(", ")],
      ["abstaining", Object.entries(seen.abstaining).map(([name, why]) => `${name}: ${why}`).join("; ")],
      ["last refused", seen.last_refused],
    ]),
    may("trigger_manual_failover") && h("p", { class: "buttons" }, seen.pause
      ? saying("Resume", { path: `${path}/resume`, told: "Automatic failover is switched on again.", after })
      : saying("Pause", { path: `${path}/pause`, told: "Automatic failover is switched off until somebody resumes it. Runs that go on are not touched.", after })));
}

/** How long the service was away in earlier runs, each a bar, against the objective. */
async function showTrend(place, signal, id) {
  if (!may("view_audit")) return;
  const { trends } = await get(`/clusters/${id}/trend`, signal);
  fill(place, trends.length > 0 && h("h2", {}, "Recovery in earlier runs"), trends.map((one) => {
    const runs = one.runs.slice(-40);
    const top = Math.max(one.objective_ms ?? 0, ...runs.map((run) => run.recovery_ms)) || 1;
    const line = 30 - ((one.objective_ms ?? 0) / top) * 28;
    return h("div", { class: "trend" },
      h("span", {}, words(one.operation), h("small", {}, `${one.runs.length} verified`)),
      h("svg", { viewBox: `0 0 ${Math.max(20, runs.length) * 6} 31`, "aria-hidden": "true" },
        runs.map((run, at) => {
          const high = Math.max(1, (run.recovery_ms / top) * 28);
          return h("rect", { class: run.within === false ? "elapsed over" : "elapsed", x: at * 6, y: 30 - high, width: 4, height: high });
        }),
        one.objective_ms && h("line", { class: "objective", x1: 0, x2: Math.max(20, runs.length) * 6, y1: line, y2: line })),
      facts([
        ["last", took(runs.at(-1).recovery_ms)],
        ["next, P50 and P90", one.forecast ? `${took(one.forecast.p50_ms)}, ${took(one.forecast.p90_ms)}` : "too few runs"],
        ["objective", took(one.objective_ms)],
        ["missed", String(one.runs.filter((run) => run.within === false).length)],
      ], "row"));
  }));
}

async function showReadiness(place, signal, id) {
  fill(place, h("h2", {}, "Readiness"), h("p", { class: "empty" }, "A worker evaluates it …"));
  try {
    const { readiness } = await get(`/clusters/${id}/readiness`, signal);
    const wrong = WORST_FIRST.flatMap((grade) => readiness.checks.filter((one) => one.grade === grade));
    const right = readiness.checks.filter((one) => one.grade === "ready");
    const list = (checks) => h("ul", { class: "checks" }, checks.map((one) =>
      h("li", {}, mark(one.grade), h("div", {}, h("b", {}, words(one.name)), h("p", {}, one.reason.replaceAll("`", ""))))));
    fill(place, h("h2", {}, "Readiness ", mark(readiness.grade)),
      h("p", { class: "soft" }, "Would a failover work? As of ", moment(readiness.evaluated_at),
        readiness.unverified_since_edit.length > 0 && `, not verified since an edit of ${readiness.unverified_since_edit.join(", ")}`),
      wrong.length > 0 && list(wrong),
      h("details", {}, h("summary", {}, `${right.length} checks are as they should be`), list(right)),
      h("p", { class: "buttons" }, h("button", { onclick: () => showReadiness(place, signal, id) }, "Evaluate again")));
  } catch (error) {
    if (!(error instanceof Refused) || error.status === 401) throw error;
    fill(place, h("h2", {}, "Readiness"), refusal(error, "Not evaluated"));
  }
}
