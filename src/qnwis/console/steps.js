// A run step by step: where it is, what was expected, and where there is no way back.

import { now } from "./api.js";
import { h, mark, took, words } from "./dom.js";

const NEVER_BACK = new Set(["promote_target", "patroni_switchover", "patroni_failover", "patroni_promote_cluster"]);

/** The track of a run. `startedAt` and progress give what the step that goes on has taken so far. */
export function track(progress, startedAt, plan) {
  const { steps, outcomes = [] } = progress;
  // Waiting for people has no expected time, and would dwarf what the machine does.
  const timed = steps.filter((one) => one.expected_ms > 0);
  const scale = Math.max(1000, ...timed.map((one) => Math.max(one.expected_ms, one.elapsed_ms ?? 0)));
  return h("ol", { class: "track", "aria-label": "Steps" }, steps.map((step) => {
    const elapsed = step.status === "running" ? runningMs(steps, startedAt) : step.elapsed_ms;
    return h("li", { class: `step ${step.status}`, "aria-current": step.status === "running" ? "step" : null },
      h("div", { class: "head" },
        h("h3", {}, step.title), h("span", { class: "unseen" }, words(step.status)),
        step.status === "skipped" && h("span", { class: "soft" }, "left out"),
        step.status === "failed" && mark("failed"),
        h("span", { class: "times" }, times(step, elapsed))),
      step.expected_ms > 0 && lane(step.expected_ms, elapsed, scale, step.status),
      [step.note, ...remarks(step)].filter(Boolean).map((text) => h("p", { class: "note" }, text.replaceAll("`", ""))),
      step.name === "execution" && plan?.actions && actionsOf(plan, outcomes));
  }));
}

/** What people are asked for stands in the ballot; whose vote was refused stands here alone. */
function remarks(step) {
  const asks = step.name === "approval" && step.status === "running";
  return asks ? step.remarks.filter((one) => one.includes("refused")) : step.remarks;
}

function times(step, elapsed) {
  const expected = step.expected_ms ? ` / ${took(step.expected_ms)}` : "";
  if (step.status === "pending") return step.expected_ms ? `about ${took(step.expected_ms)}` : "";
  return [h("b", {}, took(elapsed)), h("span", { class: "soft" }, expected)];
}

/** Steps follow one another: what the others took is known, and when it all began. */
function runningMs(steps, startedAt) {
  const before = steps.reduce((sum, one) => sum + (one.elapsed_ms ?? 0), 0);
  return Math.max(0, now().getTime() - new Date(startedAt).getTime() - before);
}

/** Elapsed against expected, on one scale for all; longer than it is drawn to the end of the lane. */
function lane(expectedMs, elapsedMs, scale, status) {
  const wide = (ms) => Math.min(100, ((ms ?? 0) / scale) * 100);
  const over = expectedMs > 0 && (elapsedMs ?? 0) > expectedMs && status !== "pending";
  return h("svg", { class: "lane", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
    h("rect", { class: "expected", x: 0, y: 0, height: 6, width: wide(expectedMs) }),
    h("rect", { class: over ? "elapsed over" : "elapsed", x: 0, y: 1.5, height: 3, width: wide(elapsedMs) }));
}

function actionsOf(plan, outcomes) {
  const known = new Map(outcomes.map((one) => [one.action_id, one]));
  return h("ol", { class: "actions" }, plan.actions.map((action) => {
    const outcome = known.get(action.action_id);
    return h("li", { class: `${NEVER_BACK.has(action.kind) ? "no-return" : ""} ${outcome ? "begun" : ""}` },
      h("span", {}, words(action.kind), " ", outcome && mark(outcome.status),
        outcome?.detail && h("span", { class: "note" }, outcome.detail)),
      h("span", { class: "times" },
        outcome && h("b", {}, took(outcome.duration_ms)),
        h("span", { class: "soft" }, `${outcome ? " / " : "about "}${took(action.estimate_ms)}`)));
  }));
}
