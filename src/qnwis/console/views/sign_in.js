// The one thing that is asked for before anything is shown: a bearer token.

import { session } from "../api.js";
import { fill, h, refusal } from "../dom.js";

export function signIn(place, why, done) {
  const token = h("input", {
    id: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true,
    "aria-describedby": "kept",
  });
  const told = h("div", {}, why && refusal(why, "Not signed in"));
  const form = h("form", {
    onsubmit: async (event) => {
      event.preventDefault();
      try {
        await session.begin(token.value.trim());
        done();
      } catch (error) {
        fill(told, refusal(error, "Not signed in"));
        token.select();
        token.focus();
      }
    },
  },
  h("label", { for: "token" }, "Bearer token"), token,
  h("p", { id: "kept", class: "soft" },
    "A JWT of your identity provider, or a service token. It stays in this tab until you sign out or close it."),
  h("button", { class: "main" }, "Sign in"));
  fill(place, h("div", { class: "page sign-in" },
    h("h1", { tabindex: "-1" }, "QNWIS Continuity"),
    h("p", { class: "lead" }, "Who is asking?"), told, form,
    h("p", { class: "soft" }, "Without this page: ", h("code", {}, "qnwis-continuity status"), ", ",
      h("code", {}, "approve"), ", ", h("code", {}, "break-glass plan"), ".")));
  token.focus();
}
