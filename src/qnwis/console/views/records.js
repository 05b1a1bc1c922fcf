// Audit records: the list, and of one its report and its proof.

import { download, get } from "../api.js";
import { digest, facts, fill, h, mark, moment, refusal, say, table, title, took, words } from "../dom.js";

export async function records(place, signal) {
  const { records: found, unreadable } = await get("/audit?limit=100", signal);
  fill(place, h("h1", { tabindex: "-1" }, "Records"),
    h("p", { class: "soft" }, "The newest audit records. Each is a link of one chain, signed; its report says what was done."),
    found.length === 0 ? h("p", { class: "empty" }, "No record yet.") : h("div", { class: "scroll" },
      table("Audit records, newest first", ["record", "what", "of", "came out", "when", "by"], found.map((one) => [
        h("a", { href: `#/records/${one.audit_id}` }, one.audit_id), words(one.operation), one.cluster_id,
        one.refusal ? mark("refused") : mark(one.result.success ? "verified" : "not verified"),
        moment(one.timestamp), one.initiated_by,
      ]))),
    unreadable.map((one) => h("p", {}, `Record ${one.sequence} is not listed: ${one.refusal.message} ${one.refusal.remedy}`)));
}

export async function record(place, signal, auditId) {
  const path = `/audit/${auditId}`;
  const [{ report, document: text }, { record: found, artefacts }] = await Promise.all([get(`${path}/report`, signal), get(path, signal)]);
  const proof = h("div", {});
  fill(place,
    h("p", { class: "way-back" }, h("a", { href: "#/records" }, "Records")),
    h("h1", { tabindex: "-1" }, `${title(report.operation)} of ${report.cluster_id} `, mark(report.success ? "verified" : "not verified")),
    h("p", { class: "soft" }, h("code", { class: "id" }, auditId), " · ", moment(report.ended_at), ` · by ${report.initiated_by} (${words(report.role)})`),
    h("section", { class: `verdict ${report.success ? "good" : "bad"}` }, h("p", { class: "big" }, text.verdict)),
    h("section", { class: "panel", "aria-labelledby": "proof" },
      h("h2", { id: "proof" }, "Proof"),
      h("p", { class: "buttons" },
        h("button", { class: "main", onclick: (event) => verify(proof, path, found, artefacts, event.target) }, "Verify record, bundle and log"),
        h("button", { onclick: () => download(`${path}/bundle`, `${auditId}.qnwis-bundle`) }, "Bundle"),
        h("button", { onclick: () => download(`${path}/report?format=html`, `${auditId}.html`) }, "Report (HTML)"),
        h("button", { onclick: () => download(`${path}/report?format=md`, `${auditId}.md`) }, "Report (Markdown)")),
      proof),
    text.sections.map((section) => h("section", { class: "report" }, h("h2", {}, section.title),
      section.timeline ? timeline(text.bars) : body(section))));
}

function body({ header, rows }) {
  if (header.length > 0) return h("div", { class: "scroll" }, table("", header.map((one) => one || "note"), rows));
  return h("div", {}, rows.filter((row) => row.length === 1).map(([line]) => h("p", { class: "note" }, line)),
    facts(rows.filter((row) => row.length > 1).map(([name, ...said]) => [name, said.filter(Boolean).join(", ")])));
}

/** Expected against actual, each bar where it was in time. */
function timeline(bars) {
  const span = Math.max(1, ...bars.map((bar) => bar.from_ms + Math.max(bar.actual_ms ?? 0, bar.expected_ms ?? 0)));
  const wide = (ms) => (ms ? Math.max(0.4, (ms / span) * 100) : 0);
  return h("div", { class: "timeline" },
    h("p", { class: "key soft" }, h("span", { class: "expected" }, "expected"), h("span", { class: "elapsed" }, "actual"),
      h("span", { class: "over" }, "longer than expected"), h("span", {}, `whole width: ${took(span)}`)),
    h("ol", {}, bars.map((bar) => {
      const over = bar.expected_ms > 0 && (bar.actual_ms ?? 0) > bar.expected_ms;
      return h("li", { class: bar.action ? "action" : "" }, h("span", {}, words(bar.title)),
        h("svg", { class: "lane", viewBox: "0 0 100 6", preserveAspectRatio: "none", "aria-hidden": "true" },
          h("rect", { class: "expected", x: (bar.from_ms / span) * 100, y: 0, height: 6, width: wide(bar.expected_ms) }),
          h("rect", { class: over ? "elapsed over" : "elapsed", x: (bar.from_ms / span) * 100, y: 1.5, height: 3, width: wide(bar.actual_ms) })),
        h("span", { class: "times" }, h("b", {}, took(bar.actual_ms)), bar.expected_ms > 0 && h("span", { class: "soft" }, ` / ${took(bar.expected_ms)}`)),
        ["pending", "skipped", "failed", "unknown", "undone"].includes(bar.became) && mark(bar.became),
        bar.note && h("p", { class: "note" }, bar.note.replaceAll("`", "")));
    })));
}

async function verify(place, path, found, artefacts, button) {
  button.disabled = true;
  fill(place, h("p", { class: "empty" }, "Reading the whole log …"));
  try {
    const [said, own] = await Promise.all([get(`${path}/verification`), hashed(found.manifest, artefacts)]);
    fill(place,
      h("p", {}, mark(said.proved ? "proved" : "not proved"), said.proved
        ? ` The record stands as it was signed, in an unbroken log of ${said.records}, and its bundle is its own.` : ` ${said.faults.length} faults`),
      said.faults.map((fault) => h("p", { class: "warning" }, `${fault.where}: ${fault.message} [${fault.code}]`)),
      facts([
        ["checked in this browser", own],
        ["signed by the key", said.signer && digest(said.signer)],
        ["record", digest(found.record_hash)],
        ["what this proves", said.note],
        ["elsewhere", h("code", { class: "command" }, `qnwis-continuity audit verify ${found.audit_id}.qnwis-bundle`)],
      ]));
    say(said.proved ? "Proved." : `Not proved: ${said.faults.length} faults.`);
  } catch (error) {
    if (!error.rule) throw error;
    fill(place, refusal(error, "Not verified"));
  }
  button.disabled = false;
}

/** What a browser can say by itself: that each artefact has the SHA-256 of the record's manifest. Names that were put
 * in place of commitments change a text, so of those nothing is said. */
async function hashed(manifest, artefacts) {
  const names = Object.keys(manifest);
  if (names.length === 0) return "the record has no artefacts";
  let same = 0;
  for (const name of names) {
    const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(artefacts[name] ?? ""));
    const hex = Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
    if (`sha256:${hex}` === manifest[name]) same += 1;
  }
  return `${same} of ${names.length} artefacts have the SHA-256 of the manifest` +
    (same < names.length ? "; of the others nothing is said here: names stand in them where the log has commitments" : "");
}
