// One run, live: what it waits for, where it is, and what may be said to it.

import { Refused, events, get, may, now, session } from "../api.js";
import { saying } from "../asking.js";
import { digest, facts, fill, h, mark, moment, pause, refusal, say, table, title, took, words } from "../dom.js";
import { track } from "../steps.js";
import { ballot } from "../voting.js";

export async function run(place, signal, clusterId, runId) {
  const path = `/clusters/${clusterId}/runs/${runId}`;
  const first = await get(path, signal);
  const { run: about } = first;
  const earlier = await earlierOnes(clusterId, about.kind, signal);
  const standing = h("span", {});
  const verdict = h("div", {});
  const asked = h("div", {});
  const says = h("div", {});
  const steps = h("div", {});
  const log = h("ol", { class: "log", role: "log", "aria-label": "What happened", tabindex: "0" });
  fill(place,
    h("p", { class: "way-back" }, h("a", { href: `#/clusters/${clusterId}` }, clusterId)),
    h("h1", { tabindex: "-1" }, `${title(about.kind)}${about.dry_run ? " (dry run)" : ""} `, standing),
    h("p", { class: "soft" }, `${clusterId}, begun by ${about.initiated_by ?? "nobody known"} `, moment(about.started_at),
      " · ", h("code", { class: "id" }, runId)),
    verdict, asked, says,
    h("div", { class: "live" }, h("section", { "aria-label": "Steps" }, h("h2", {}, "Steps"), steps),
      h("section", { "aria-label": "What happened" }, h("h2", {}, "What happened"), log)));

  const seen = { progress: null, result: null, plan: null, ballot: null };
  const tell = teller(log, about.started_at);

  function showProgress(progress) {
    tell.progress(seen.progress, progress);
    seen.progress = progress;
    const pending = progress.approval;
    if (pending?.plan.actions) seen.plan = pending.plan;
    fill(standing, mark(progress.paused ? "held" : pending ? "waits for a vote" : "running"));
    if (pending === null) {
      if (seen.ballot !== null) leave(asked);
      seen.ballot = null;
    } else if (seen.ballot?.digest === pending.window.digest) {
      seen.ballot.update(pending);
    } else {
      seen.ballot = ballot(pending, { path, name: clusterId, command: `qnwis-continuity approve ${clusterId} --print`, earlier });
      fill(asked, seen.ballot.element);
    }
    showSays(says, path, progress);
    draw();
  }

  function showResult(result) {
    seen.result = result;
    if (seen.ballot !== null) leave(asked);
    seen.ballot = null;
    fill(says);
    if (result === null) {
      fill(standing, mark(about.status === "running" ? "terminated" : about.status));
      fill(verdict, h("p", { class: "warning" }, "It ended without a result. ",
        h("code", {}, `qnwis-continuity finish ${clusterId}`), " brings it to an end."));
      return;
    }
    seen.plan = result.plan;
    fill(standing, mark(result.outcome));
    fill(verdict, verdictOf(result));
    draw();
  }

  function draw() {
    const shown = seen.result ?? seen.progress;
    if (shown === null) return;
    const held = steps.contains(document.activeElement);
    fill(steps, shown.steps.length ? track(shown, about.started_at, seen.plan) : h("p", { class: "empty" }, "No step began."));
    if (held) place.querySelector("h1").focus();
  }

  function leave(part) {
    const inside = part.contains(document.activeElement);
    fill(part);
    if (inside) place.querySelector("h1").focus();
  }

  if (first.run.status !== "running") {
    showResult(first.result);
    tell.ended(first.result, first.progress);
    return;
  }
  if (first.progress) showProgress(first.progress);
  else fill(steps, h("p", { class: "empty" }, "No worker answers; it goes on when one does."));
  const ticking = setInterval(() => { seen.ballot?.tick(); if (!seen.result) draw(); }, 1000);
  signal.addEventListener("abort", () => clearInterval(ticking));
  follow(path, signal, showProgress, (result) => {
    clearInterval(ticking);
    showResult(result);
    tell.ended(result, seen.progress);
  });
}

/** How long earlier runs of this kind took to recover, where that is known; it keeps nobody from voting. */
async function earlierOnes(clusterId, kind, signal) {
  if (!may("view_audit")) return "";
  try {
    const { trends } = await get(`/clusters/${clusterId}/trend`, signal);
    const told = trends.find((one) => one.runbook === kind && !one.operation.includes("drill"))?.forecast;
    return told ? `${took(told.p50_ms)} (P90 ${took(told.p90_ms)})` : "";
  } catch (error) {
    if (!(error instanceof Refused) || error.status === 401) throw error;
    return "";
  }
}

/** The run's events until its end; where the stream breaks off, it is asked for again. */
async function follow(path, signal, onProgress, onResult) {
  while (!signal.aborted) {
    try {
      for await (const event of events(`${path}/events`, signal)) {
        if (event.name === "progress") onProgress(event.data);
        if (event.name === "result") return onResult(event.data?.outcome ? event.data : null);
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused && [401, 403, 404].includes(error.status)) throw error;
      say(`${error.status === 429 ? error.message : "The live events broke off"}; asking again.`);
    }
    await pause(signal, 2);
  }
}

function verdictOf(result) {
  const good = result.outcome === "completed" || result.outcome === "previewed";
  return h("section", { class: `verdict ${good ? "good" : "bad"}` },
    h("p", { class: "big" }, result.reason),
    facts([
      ["service", result.new_primary && `${result.old_primary ?? "nobody"} → ${result.new_primary}`],
      ["took", took(new Date(result.ended_at) - new Date(result.started_at))],
      ["verified", result.verification && (result.verification.passed ? "yes" : "no")],
      ["confidence", result.verification && `${result.verification.confidence.score} (${words(result.verification.confidence.band)})`],
      ["votes", result.approval?.votes.map((vote) => `${vote.person} ${vote.approve ? "for" : "against"}${vote.reason ? `: ${vote.reason}` : ""}`).join(", ")],
      ["fenced by", result.fencing && words(result.fencing.type)],
    ], "row"),
    result.refusal && refusal(result.refusal),
    result.verification && !result.verification.passed && table("Checks that failed", ["check", "found"],
      result.verification.checks.filter((one) => !one.ok).map((one) => [words(one.name), one.detail])),
    result.notes.map((note) => h("p", { class: "note" }, note)),
    result.plan_digest && h("details", {}, h("summary", {}, "Digest of the plan"), digest(result.plan_digest)),
    result.audit_id && h("p", { class: "buttons" },
      h("a", { class: "button main", href: `#/records/${result.audit_id}` }, "Report and audit record")));
}

/** What may be said to it now; drawn again only where that changes. */
function showSays(place, path, progress) {
  if (!may("trigger_manual_failover")) return;
  const seen = JSON.stringify([progress.paused, progress.awaits, progress.approval?.window.digest ?? null]);
  if (place.dataset.seen === seen) return;
  place.dataset.seen = seen;
  fill(place,
    progress.paused && h("p", { class: "warning" }, `It is held: ${progress.paused}`),
    progress.undelivered.map((one) => h("p", { class: "note" }, one)),
    h("p", { class: "buttons says" },
      progress.awaits.map((name) => saying(`Confirm ${name}`, {
        path: `${path}/confirm`, told: `You say that ${name}, which has to be done by hand, is done. The run waits for it.`,
        body: (reason) => ({ reason, manual_step: name }) })),
      progress.paused
        ? saying("Resume", { path: `${path}/resume`, told: "The run goes on." })
        : saying("Hold", { path: `${path}/pause`, told: "The run is held before its next action; refused once the promotion has begun." }),
      progress.approval && progress.approval.window.initiator !== session.me.name && saying("More time", {
        path: `${path}/extend`, told: "The window for votes is open for longer; in all at most four times as long.",
        fields: [["by_s", "How much longer, seconds", { type: "number", min: "1", max: "86400", value: "600", required: true }]],
        body: (reason, { by_s }) => ({ reason, by_s: Number(by_s) }) }),
      saying("Abort", {
        path: `${path}/abort`, grave: true,
        told: "It stops at its next safe place, and what was begun is undone. Refused once the promotion has begun." })));
}

/** What happened, a line each, for eyes and for screen readers: the list is a live region. */
function teller(log, startedAt) {
  const line = (text, kind = "", at = now()) =>
    log.prepend(h("li", { class: kind }, h("time", {}, at.toISOString().slice(11, 19)), h("span", {}, text)));
  return {
    progress(before, after) {
      const known = new Map((before?.outcomes ?? []).map((one) => [one.action_id, one.status]));
      for (const one of after.outcomes) {
        if (known.get(one.action_id) !== one.status && one.status !== "started") line(`${one.action_id} ${words(one.status)}`);
      }
      let passed = 0; // of what happened before the page was opened, the steps' times say when
      for (const [place, step] of after.steps.entries()) {
        passed += step.elapsed_ms ?? 0;
        const was = before?.steps[place]?.status ?? "pending";
        if (step.status === was) continue;
        const at = before === null ? new Date(new Date(startedAt).getTime() + passed) : now();
        const note = step.note ? `: ${step.note.replaceAll("`", "")}` : "";
        if (step.status === "running") line(`${step.title} began`, "", at);
        else if (step.status === "done") line(`${step.title} is done, in ${took(step.elapsed_ms)}${note}`, "", at);
        else if (step.status !== "pending") line(`${step.title} ${words(step.status)}${note}`, step.status === "failed" ? "bad" : "", at);
      }
      const votes = after.approval?.window.votes ?? [];
      for (const vote of votes.slice(before?.approval?.window.votes.length ?? 0)) {
        line(`${vote.person} voted ${vote.approve ? "for" : "against"} it`);
      }
      if (after.approval && !before?.approval) line("It waits for votes", "waits");
      if (after.paused && after.paused !== before?.paused) line(`Held: ${after.paused}`);
    },
    ended(result, before) {
      // What came to pass between the last look and the end.
      if (result) this.progress(before, { ...result, approval: null, paused: null });
      line(result ? `It ended: ${words(result.outcome)}. ${result.reason}` : "It ended without a result", "end");
    },
  };
}
