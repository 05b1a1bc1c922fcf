// A plan that waits for votes: everything that is agreed to, and the vote on exactly that.

import { act, now, random, session } from "./api.js";
import { shown } from "./asking.js";
import { bytes, digest, facts, fill, h, left, refusal, say, table, took, words } from "./dom.js";
import { NotUsable, pasted, readKey, sign } from "./signing.js";

const NEVER_BACK = new Set(["promote_target", "patroni_switchover", "patroni_failover", "patroni_promote_cluster"]);

/**
 * What waits. `path` is that of the run, `name` the cluster or region, `command` what prints a vote. Call `.update(pending)` as votes
 * come in, and `.tick()` every second for the time left.
 */
export function ballot(pending, { path, name, command, earlier = "" }) {
  const { window, plan } = pending;
  const standing = h("div", {});
  const timeLeft = h("span", { class: "big" });
  const bar = h("rect", { height: 4, width: 100, class: "left" });
  const form = voteForm(pending, { path, name, command });
  const element = h("section", { class: "ballot", "aria-labelledby": "ballot" },
    h("header", {},
      h("div", {},
        h("h2", { id: "ballot" }, headline(plan)),
        h("p", {}, plan.trigger_reason ?? plan.reason, plan.actions && h("span", { class: "soft" }, ` · plan-${window.digest.slice(7, 19)}`))),
      h("div", { class: "clock" }, h("span", { class: "soft" }, "time left"), timeLeft,
        h("svg", { viewBox: "0 0 100 4", preserveAspectRatio: "none", "aria-hidden": "true" }, bar))),
    standing,
    (pending.notes ?? []).map((note) => h("p", { class: "warning" }, note)),
    h("p", { class: "asked" }, h("span", { class: "soft" }, "digest that is voted on"), digest(window.digest)),
    h("div", { class: "columns" },
      plan.actions ? actions(plan) : waves(plan),
      form),
    plan.actions && candidates(pending));

  function tick() {
    const whole = window.workflow.timeout_sec + current.window.extended_s;
    const rest = (new Date(window.opened_at).getTime() - now().getTime()) / 1000 + whole;
    timeLeft.textContent = rest > 0 ? left(rest) : "over";
    timeLeft.classList.toggle("soon", rest < 120);
    bar.setAttribute("width", String(Math.max(0, Math.min(100, (rest / whole) * 100))));
  }
  let current = pending;
  function update(seen) {
    current = seen;
    const votes = seen.window.votes;
    const approvals = votes.filter((vote) => vote.approve).length;
    fill(standing, facts([
      ...stakes(seen), ["earlier ones", earlier],
      ["votes", [h("b", {}, `${approvals} of ${seen.window.workflow.required_approvers}`),
        h("small", {}, votes.map((vote) => `${vote.person} ${vote.approve ? "for" : "against"}`).join(", "))]],
      ["may vote", h("small", {}, seen.voters.join(", "), h("br"), `not ${seen.window.initiator}, who began it`)],
    ], "stakes"));
    tick();
  }
  update(pending);
  return { element, update, tick, digest: window.digest };
}

function headline(plan) {
  if (plan.actions) {
    return [`${plan.cluster_id}: `, h("span", { class: "move" }, plan.primary_node_id, " → ", plan.failover_target_id)];
  }
  const count = plan.waves.flat().length;
  const [come, leave] = count === 1 ? ["comes back to", "leaves"] : ["come back to", "leave"];
  return `${count} ${count === 1 ? "cluster" : "clusters"} ${plan.direction === "back" ? come : leave} ${plan.region}`;
}

/** What is lost if it goes as planned. */
function stakes(pending) {
  const { plan } = pending;
  const target = pending.candidates.find((one) => one.node_id === plan.failover_target_id);
  const loss = pending.predicted_loss_bytes;
  const expected = plan.actions?.reduce((sum, action) => sum + action.estimate_ms, 0);
  return [
    ["predicted loss", h("b", { class: loss === 0 ? "good" : "bad" }, bytes(loss))],
    ["lag of the target", plan.actions &&
      h("b", {}, target?.lag_bytes === 0 ? "none" : bytes(target?.lag_bytes))],
    ["will take about", plan.actions && h("b", {}, took(expected))],
    ["stops after", plan.waves && `${plan.stop_after} that do not move`],
  ];
}

function actions(plan) {
  return h("div", {}, h("h3", {}, "What it does"), h("ol", { class: "actions" }, plan.actions.map((action) =>
    h("li", { class: NEVER_BACK.has(action.kind) ? "no-return" : "" },
      h("span", {}, words(action.kind), " ", h("b", {}, on(action))), h("span", { class: "soft" }, took(action.estimate_ms))))));
}

function on(action) {
  if (action.kind === "flip_dns") return `${action.record ?? "no record"} → ${action.to_address}`;
  if (action.kind === "rejoin_old_primary") return `${action.node_id} behind ${action.upstream}`;
  return action.node_id ?? action.node_ids?.join(", ") ?? action.record ?? "";
}

function waves(plan) {
  const rows = plan.waves.flatMap((wave, at) => wave.map((move) => [
    move.cluster_id, String(at + 1), `${move.plan.primary_node_id} → ${move.plan.failover_target_id}`, move.how,
    bytes(move.predicted_loss_bytes)]));
  return h("div", {}, h("h3", {}, "What it does"),
    table("Clusters by wave", ["cluster", "wave", "from and to", "how", "predicted loss"], rows),
    plan.unmovable.map((one) => h("p", { class: "warning" }, `${one.cluster_id} cannot be moved: ${one.refusal.message}`)));
}

function candidates(pending) {
  const rows = pending.candidates.map((one) => [
    one.node_id, one.node_id === pending.plan.failover_target_id ? "target" : one.eligible ? `choice ${one.rank}` : "not eligible",
    one.lag_bytes === null ? "not known" : bytes(one.lag_bytes), one.reason]);
  return h("details", {}, h("summary", {}, "Who could take over, and why not the others"),
    table("Candidates", ["node", "standing", "lag", "why"], rows));
}

// The vote

function voteForm(pending, { path, name, command }) {
  const mine = session.me.name;
  const own = { key: null, person: "" };
  const told = h("div", {});
  const found = h("p", { class: "soft", id: "key-found" }, "Read into memory, used for this vote, kept nowhere.");
  const file = h("input", {
    id: "key", type: "file", accept: ".pem", "aria-describedby": "key-found",
    onchange: async () => {
      fill(told);
      own.key = null;
      if (file.files.length === 0) return;
      try {
        Object.assign(own, await readKey(file.files[0]));
        found.textContent = `The key of ${own.person || mine} is in memory; it leaves it when you leave this page.` +
          (own.person && own.person !== mine ? ` But you are signed in as ${mine}.` : "");
      } catch (error) {
        if (!(error instanceof NotUsable)) throw error;
        file.value = "";
        fill(told, h("p", { class: "warning", role: "alert" }, error.message));
      }
    },
  });
  const text = h("textarea", { id: "pasted", rows: 3, spellcheck: "false", autocomplete: "off" });
  const ways = [
    way("key", "My key file, signing in this browser", h("label", { for: "key" }, "Key file"), file, found),
    way("pasted", "A vote that I signed at the command line", h("code", { class: "command" }, command), h("label", { for: "pasted" }, "What it printed"), text),
    way("api", "The API's word that it is me",
      h("p", { class: "soft" }, "Counts where your entry in people.yaml names this API under issuers.")),
  ];
  const reason = h("input", { id: "vote-reason", maxlength: "1000", autocomplete: "off" });
  const standing = pending.window.initiator === mine
    ? "You started this run: somebody else has to vote."
    : pending.voters.includes(mine) ? "" : `You are not among those who may vote: ${pending.voters.join(", ")}.`;

  async function token(deed) {
    const about = { deed, clusterId: name, runId: pending.run_id, digest: pending.window.digest };
    const chosen = form.querySelector("input[name=way]:checked").value;
    if (chosen === "api") return null;
    if (chosen === "pasted") return pasted(text.value, about);
    if (own.key === null) throw new NotUsable("Choose your key file first");
    return sign(own.key, { ...about, person: own.person || mine, reason: reason.value });
  }

  function vote(deed) {
    fill(told);
    if (deed === "reject" && reason.value.trim() === "") {
      fill(told, h("p", { class: "warning", role: "alert" }, "A rejection says why"));
      reason.focus();
      return;
    }
    confirmed(deed, pending, async () => {
      try {
        const proof = await token(deed);
        const body = { digest: pending.window.digest, reason: proof?.claim.reason ?? reason.value };
        const counted = await act(`${path}/${deed}`, proof ? { ...body, token: proof } : body, { key: random() });
        say(`The vote of ${counted.vote.person} is counted: ${counted.vote.approve ? "for" : "against"}.`);
        fill(told, h("p", { class: "counted" }, `Your vote is counted: ${counted.vote.approve ? "for" : "against"} this plan.`));
      } catch (error) {
        if (error instanceof NotUsable) fill(told, h("p", { class: "warning", role: "alert" }, error.message));
        else if (error.rule) fill(told, refusal(error, "The vote was refused"));
        else throw error;
      }
    });
  }

  const form = h("form", { class: "vote", onsubmit: (event) => { event.preventDefault(); vote("approve"); } },
    h("h3", {}, `Your vote, ${mine}`), standing && h("p", { class: "warning" }, standing),
    h("fieldset", {}, h("legend", {}, "How you prove that it is you"), ways),
    h("label", { for: "vote-reason" }, "Why (a rejection needs it)"), reason, told,
    h("p", { class: "buttons" },
      h("button", { class: "main" }, "Approve …"),
      h("button", { type: "button", class: "grave", onclick: () => vote("reject") }, "Reject …")));
  form.querySelector("input[name=way]").checked = true;
  return form;
}

function way(value, label, ...inside) {
  return h("div", { class: "way" },
    h("label", {}, h("input", { type: "radio", name: "way", value }), label), h("div", { class: "inside" }, inside));
}

/** The last look before it counts: what, and what it costs. */
function confirmed(deed, pending, go) {
  const approve = deed === "approve";
  const { plan } = pending;
  const dialog = h("dialog", { "aria-labelledby": "confirm-title" },
    h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); dialog.close(); go(); } },
      h("h2", { id: "confirm-title" }, approve ? "Approve this plan?" : "Reject this plan?"),
      h("p", {}, headline(plan)),
      approve
        ? facts([["predicted loss", bytes(pending.predicted_loss_bytes)], ["votes as", session.me.name]])
        : h("p", {}, "The run ends, and nothing is changed."),
      digest(pending.window.digest),
      h("p", { class: "buttons" },
        h("button", { class: approve ? "main" : "grave main", autofocus: true }, approve ? "Approve" : "Reject"),
        h("button", { type: "button", onclick: () => dialog.close() }, "Not yet"))));
  shown(dialog);
}
