// What needs somebody, what goes on, and how the clusters are.

import { Refused, get, look, now } from "../api.js";
import { again, fill, h, left, mark, pause, words } from "../dom.js";

const EVERY_S = 10;
const RUNS_EVERY_S = 5;
const READINESS_EVERY_S = 300;

export async function overview(place, signal) {
  const { cluster_ids: ids } = await get("/clusters", signal);
  const headline = h("h1", { tabindex: "-1", "aria-live": "polite" }, "Looking …");
  const goingOn = h("div", { class: "going-on" });
  const rows = new Map(ids.map((id) => [id, row(id)]));
  const board = h("ul", { class: "board" }, [...rows.values()].map((one) => one.element));
  fill(place, headline, goingOn, h("h2", {}, "Clusters"),
    ids.length ? board : h("p", { class: "empty" }, "No cluster is registered: POST /clusters, or config/continuity/clusters/."));

  const waiting = { runs: [], states: new Map() };
  function told() {
    const asked = waiting.runs.filter((one) => one.pending);
    const states = [...waiting.states.values()];
    const troubled = states.filter((state) => state !== "healthy").length;
    const health = states.length < ids.length ? "" : troubled === 0
      ? `${ids.length === 1 ? "The cluster is" : `All ${ids.length} clusters are`} healthy.`
      : `${troubled} of ${ids.length} ${ids.length === 1 ? "cluster is" : "clusters are"} not healthy.`;
    const text = asked.length
      ? `${asked.length === 1 ? `${asked[0].run.cluster_id} waits` : `${asked.length} runs wait`} for a vote.`
      : waiting.runs.length ? `${waiting.runs.length === 1 ? "A run goes" : `${waiting.runs.length} runs go`} on. ${health}`
      : `Nothing waits for you. ${health}`;
    if (headline.textContent !== text) headline.textContent = text;
  }

  again(signal, () => Math.max(RUNS_EVERY_S, 3 * waiting.runs.length), async () => {
    const { runs } = await get("/runs?limit=50", signal);
    const before = new Map(waiting.runs.map((one) => [one.run.run_id, one]));
    waiting.runs = runs.filter((run) => run.status === "running").map((run) =>
      before.get(run.run_id) ?? { run, pending: null, card: h("div", {}, card({ run })) });
    const cards = waiting.runs.map((one) => one.card);
    if (cards.length !== goingOn.children.length || cards.some((one) => !goingOn.contains(one))) fill(goingOn, cards);
    told();
    // Each by itself: one whose workers are gone keeps nobody from seeing the others.
    await Promise.all(waiting.runs.map(async (one) => {
      const { progress } = await get(`/clusters/${one.run.cluster_id}/runs/${one.run.run_id}`, signal);
      Object.assign(one, { progress, pending: progress?.approval ?? null });
      const held = one.card.contains(document.activeElement);
      fill(one.card, card(one));
      if (held) one.card.firstChild.focus();
      told();
    }));
  });
  // One cluster after the other, so that many of them do not use up what one identity may ask.
  again(signal, () => Math.max(0, EVERY_S - ids.length), async () => {
    for (const id of ids) {
      waiting.states.set(id, await rows.get(id).look(signal));
      told();
      if (ids.length > 5) await pause(signal, 1);
    }
  });
  again(signal, READINESS_EVERY_S, async () => {
    for (const id of ids) {
      await rows.get(id).readiness(signal);
      if (ids.length > 5) await pause(signal, 3);
    }
  });
}

/** A run that goes on; without `progress` nobody has been asked yet. */
function card({ run, progress, pending }) {
  const at = progress?.steps.find((step) => step.status === "running");
  const rest = pending && (new Date(pending.window.opened_at).getTime() - now().getTime()) / 1000 +
    pending.window.workflow.timeout_sec + pending.window.extended_s;
  return h("a", { class: `card ${pending ? "waits" : ""}`, href: `#/clusters/${run.cluster_id}/runs/${run.run_id}` },
    h("b", {}, run.cluster_id), h("span", {}, `${words(run.kind)}${run.dry_run ? ", dry run" : ""}, by ${run.initiated_by ?? "nobody known"}`),
    h("span", {}, pending
      ? [mark("waits for a vote"), ` ${left(rest)} left`]
      : progress ? [mark("running"), ` ${at?.title ?? ""}`] : progress === undefined ? "" : "no worker answers"),
    h("span", { class: "go" }, pending ? "Look and decide" : "Follow it"));
}

function row(id) {
  const state = h("span", {}, "…");
  const nodes = h("span", { class: "pips" });
  const primary = h("span", {});
  const ready = h("span", { class: "soft" }, "readiness …");
  const note = h("p", { class: "note" });
  const element = h("li", {}, h("a", { class: "row", href: `#/clusters/${id}` },
    h("b", {}, id), state, nodes, primary, ready), note);
  return {
    element,
    async look(signal) {
      try {
        const seen = await look("/status", { cluster: { cluster_id: id } }, signal);
        fill(state, mark(seen.state));
        fill(nodes, pips(seen));
        fill(primary, writes(seen));
        const missing = seen.protection.flatMap((one) => one.missing);
        fill(note, [seen.holding, seen.guardian_note && "No guardian watches it.",
          ...missing.map((one) => `${one.node_id} is missing: ${one.why}`)].filter(Boolean).map((one) => h("span", {}, one)));
        return seen.state;
      } catch (error) {
        if (!(error instanceof Refused) || error.status === 401) throw error;
        fill(state, mark("unknown"));
        fill(note, h("span", {}, error.message));
        return "unknown";
      }
    },
    async readiness(signal) {
      try {
        const { readiness } = await get(`/clusters/${id}/readiness`, signal);
        fill(ready, mark(readiness.grade));
      } catch (error) {
        if (!(error instanceof Refused) || error.status === 401) throw error;
        fill(ready, mark("not_evaluated"));
      }
    },
  };
}

/** Who takes writes now; a primary that does not is no comfort. */
export function writes(seen) {
  if (seen.regions.length > 0) {
    return seen.regions.map((one) => `${one.region}: ${one.primary_node_id ?? "nobody takes writes"}`).join(", ");
  }
  const writers = seen.evidence.nodes.filter((one) => one.state?.writable).map((one) => one.node_id);
  if (writers.length === 1) return `${writers[0]} takes writes`;
  if (writers.length > 1) return h("b", { class: "bad" }, `${writers.join(" and ")} take writes`);
  return h("b", { class: "bad" }, "nobody takes writes");
}

/** The nodes as squares, and after how many of them the quorum is. */
export function pips(seen) {
  const { total_nodes: total, healthy_nodes: healthy, quorum_size: size, has_quorum: has } = seen;
  const squares = Array.from({ length: Math.min(total, 15) }, (_, at) =>
    h("rect", { class: at < healthy ? "on" : "off", x: at * 14 + (at >= size ? 6 : 0) + 0.75, y: 0.75, width: 9.5, height: 9.5, rx: 1.5 }));
  const end = Math.min(total, 15) * 14 + 6;
  return [
    h("svg", { viewBox: `0 -3 ${end} 17`, width: end, height: 17, "aria-hidden": "true" }, squares,
      h("line", { class: has ? "quorum" : "quorum none", x1: size * 14 + 1, x2: size * 14 + 1, y1: -3, y2: 14 })),
    h("span", {}, `${healthy} of ${total} healthy, `, has ? `quorum (${size})` : h("b", { class: "bad" }, `no quorum (${size})`)),
  ];
}
