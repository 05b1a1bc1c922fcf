// A dialog that asks why, says what will happen, and shows what came of it.

import { act, random } from "./api.js";
import { fill, h, refusal, say } from "./dom.js";

/**
 * A button that says something to a run, a guardian or a region. `body` makes the request's body of the reason and of the
 * further fields' values; `fields` are [name, label, input attributes]. `done` is told where the answer says nothing.
 */
export function saying(label, { path, told, fields = [], body = (reason) => ({ reason }), grave = false, headers, done, after }) {
  return h("button", {
    class: grave ? "grave" : "",
    onclick: () => open({ label, path, told, fields, body, grave, headers, done, after }),
  }, `${label} …`);
}

function open({ label, path, told, fields, body, grave, headers, done, after }) {
  const key = random(); // the same however often it is sent, so that it is done once
  const reason = h("input", { id: "reason", required: true, maxlength: "1000", autocomplete: "off" });
  const inputs = fields.map(([name, text, attributes]) => [name, text, h("input", { id: `field-${name}`, ...attributes })]);
  const answer = h("div", {});
  const send = h("button", { class: grave ? "grave main" : "main" }, label);
  const dialog = h("dialog", { "aria-labelledby": "dialog-title" },
    h("form", {
      onsubmit: async (event) => {
        event.preventDefault();
        send.disabled = true;
        try {
          const values = Object.fromEntries(inputs.map(([name, , input]) => [name, input.value]));
          const said = await act(path, body(reason.value, values), { key, headers });
          dialog.close();
          say(said.answer ?? done);
          after?.(said);
        } catch (error) {
          fill(answer, refusal(error));
          send.disabled = false;
        }
      },
    },
    h("h2", { id: "dialog-title" }, label), h("p", {}, told),
    inputs.map(([name, text, input]) => [h("label", { for: `field-${name}` }, text), input]),
    h("label", { for: "reason" }, "Why (kept in the record)"), reason, answer,
    h("p", { class: "buttons" }, send,
      h("button", { type: "button", onclick: () => dialog.close() }, "Leave it"))));
  shown(dialog);
}

/** Show a dialog, and take it out of the page when it is closed; the focus goes back to where it was. */
export function shown(dialog) {
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}
