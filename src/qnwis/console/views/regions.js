// Regions: whether one counts as lost, and the evacuation by which its clusters leave it.

import { get, may } from "../api.js";
import { saying } from "../asking.js";
import { again, facts, fill, h, mark, moment, refusal, table } from "../dom.js";
import { track } from "../steps.js";
import { ballot } from "../voting.js";

const EVERY_S = 3;
const LIST_EVERY_S = 15;

export async function regions(place, signal) {
  const { cluster_ids: ids } = await get("/clusters", signal);
  const topologies = await oneByOne(ids, (id) => get(`/clusters/${id}`, signal));
  const names = [...new Set(topologies.flatMap(({ cluster }) => cluster.regions))].sort();
  const list = h("ul", { class: "board" });
  fill(place, h("h1", { tabindex: "-1" }, "Regions"), names.length ? list : h("p", { class: "empty" }, "No cluster is registered."));
  again(signal, LIST_EVERY_S, async () => {
    const seen = await oneByOne(names, (name) => get(`/regions/${name}`, signal));
    fill(list, seen.map((one) => h("li", {}, h("a", { class: "row", href: `#/regions/${one.region}` },
      h("b", {}, one.region), mark(findingOf(one.guardian)),
      h("span", {}, `${topologies.filter(({ cluster }) => cluster.regions.includes(one.region)).length} clusters have nodes there`),
      h("span", {}, one.progress?.approval ? mark("waits for a vote")
        : one.evacuation ? ["evacuation ", mark(one.result?.outcome ?? one.evacuation.status)] : "never evacuated")))));
  });
}

// The API lets nobody ask for many things at once.
async function oneByOne(items, ask) {
  const answers = [];
  for (const item of items) answers.push(await ask(item));
  return answers;
}

function findingOf(guardian) {
  return guardian === null ? "not watched" : guardian.verdict?.finding ?? "unknown";
}

export async function region(place, signal, name) {
  const state = h("span", {});
  const guardian = h("div", {});
  const asked = h("div", {});
  const evacuation = h("div", {});
  const says = h("p", { class: "buttons says" });
  fill(place,
    h("p", { class: "way-back" }, h("a", { href: "#/regions" }, "Regions")),
    h("h1", { tabindex: "-1" }, name, " ", state), guardian, asked, says, evacuation);
  const held = { ballot: null, says: null };
  again(signal, EVERY_S, async () => {
    const seen = await get(`/regions/${name}`, signal);
    fill(state, mark(findingOf(seen.guardian)));
    fill(guardian, watched(seen.guardian, name));
    const path = seen.evacuation && `/regions/${name}/runs/${seen.evacuation.run_id}`;
    const pending = seen.progress?.approval ?? null;
    if (pending === null) { held.ballot = null; fill(asked); }
    else if (held.ballot?.digest === pending.window.digest) held.ballot.update(pending);
    else {
      held.ballot = ballot(pending, { path, name, command: `qnwis-continuity region approve ${name} --print` });
      fill(asked, held.ballot.element);
    }
    fill(evacuation, moving(seen));
    showSays(says, held, name, path, seen);
  });
  const ticking = setInterval(() => held.ballot?.tick(), 1000);
  signal.addEventListener("abort", () => clearInterval(ticking));
}

function watched(guardian, name) {
  if (guardian === null) {
    return h("p", { class: "soft" }, "No guardian watches this region: ", h("code", {}, `qnwis-continuity region watch ${name}`));
  }
  return [guardian.verdict && h("p", {}, guardian.verdict.why),
    facts([
      ["primaries inside", guardian.primaries_inside.join(", ")],
      ["held back", guardian.holding],
      ["nothing is known of", Object.entries(guardian.silent).map(([id, why]) => `${id}: ${why}`).join("; ")],
    ])];
}

function moving({ evacuation, progress, result }) {
  if (evacuation === null) return null;
  return [
    h("h2", {}, "Evacuation ", mark(result?.outcome ?? evacuation.status)),
    h("p", { class: "soft" }, `begun by ${evacuation.initiated_by ?? "nobody known"} `, moment(evacuation.started_at)),
    progress?.paused && h("p", { class: "warning" }, `It is held: ${progress.paused}`),
    progress && track(progress, evacuation.started_at, null),
    result && [
      h("p", {}, result.reason), result.refusal && refusal(result.refusal),
      result.moved.length > 0 && table("Clusters", ["cluster", "outcome", "why"],
        result.moved.map((one) => [one.cluster_id, mark(one.outcome ?? (one.run_id ? "not known" : "not begun")), one.reason])),
      result.way_back.length > 0 && h("p", { class: "note" }, "The way back: ", result.way_back.map((line) => h("code", { class: "command" }, line))),
      result.audit_id && h("p", { class: "buttons" }, h("a", { class: "button", href: `#/records/${result.audit_id}` }, "Report and audit record")),
    ],
  ];
}

function showSays(place, held, name, path, { evacuation, progress }) {
  const going = evacuation?.status === "running";
  const now = JSON.stringify([going, progress?.paused ?? null]);
  if (held.says === now || !may("trigger_manual_failover")) return;
  held.says = now;
  const wait = { headers: { Prefer: "wait=0" }, done: "It has begun: the plan is being made." };
  fill(place, going ? [
    progress?.paused
      ? saying("Resume", { path: `${path}/resume`, told: "It goes on, also where too many clusters did not move." })
      : saying("Hold", { path: `${path}/pause`, told: "It is held before its next wave." }),
    saying("Abort", { path: `${path}/abort`, grave: true, told: "No further cluster is begun; those that move stop at their next safe place, or are completed." }),
  ] : [
    saying("Evacuate", { path: `/regions/${name}/evacuate`, grave: true, ...wait,
      told: `Every cluster whose primary is in ${name} leaves it, in waves. First the plan is made and waits for people's votes.` }),
    saying("Fail back", { path: `/regions/${name}/failback`, ...wait,
      told: `Every cluster that is at home in ${name} comes back to it, by a switchover each. It waits for people's votes.` }),
  ]);
}
