// Runs that were.

import { get } from "../api.js";
import { fill, h, mark, moment, table, took, words } from "../dom.js";

export async function history(place, signal) {
  const { runs } = await get("/runs?limit=100", signal);
  fill(place, h("h1", { tabindex: "-1" }, "History"),
    h("p", { class: "soft" }, "The newest runs that the Temporal server still keeps. ", h("a", { href: "#/records" }, "Records"),
      " go back to the beginning."),
    runsTable(runs));
}

export function runsTable(runs) {
  if (runs.length === 0) return h("p", { class: "empty" }, "No run yet.");
  return h("div", { class: "scroll" }, table("Runs, newest first", ["run", "ended", "took", "begun", "by"], runs.map((run) => [
    h("a", { href: `#/clusters/${run.cluster_id}/runs/${run.run_id}` }, h("b", {}, run.cluster_id), ` ${words(run.kind)}`,
      run.dry_run && h("span", { class: "soft" }, " dry run")),
    mark(run.status === "completed" ? run.outcome ?? run.status : run.status),
    run.ended_at ? took(new Date(run.ended_at) - new Date(run.started_at)) : "goes on",
    moment(run.started_at), run.initiated_by ?? "–",
  ])));
}
