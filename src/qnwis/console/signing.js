// A vote, signed by the person's own Ed25519 key, as `qnwis-continuity approve` signs it. The key is read from the file
// that the person chose into memory, cannot be taken out of there again, and is gone when the page is left.

import { now, random } from "./api.js";

const GOOD_FOR_MS = 120_000; // a vote is sent at once
const PERSON = "person: ";

/** What cannot be used, as people are told of it. */
export class NotUsable extends Error {}

/** {person, key} of a key file; raises NotUsable. */
export async function readKey(file) {
  const text = await file.text();
  const body = /-----BEGIN PRIVATE KEY-----([\s\S]+?)-----END PRIVATE KEY-----/.exec(text);
  if (body === null) throw new NotUsable(`${file.name}: expected a PEM private key, as qnwis-continuity people key writes it`);
  if (!globalThis.crypto?.subtle) throw new NotUsable("This browser signs only on pages that come by HTTPS or from localhost");
  try {
    const der = Uint8Array.from(atob(body[1].replace(/\s+/g, "")), (one) => one.charCodeAt(0));
    const key = await crypto.subtle.importKey("pkcs8", der, { name: "Ed25519" }, false, ["sign"]);
    const line = text.split("\n").find((one) => one.startsWith(PERSON));
    return { person: line ? line.slice(PERSON.length).trim() : "", key };
  } catch (error) {
    if (error.name === "NotSupportedError") {
      throw new NotUsable("This browser does not sign with Ed25519: paste the vote that qnwis-continuity approve --print prints");
    }
    throw new NotUsable(`${file.name}: is not an Ed25519 private key`);
  }
}

/** The token for one vote, by this person. */
export async function sign(key, { person, deed, clusterId, runId, digest, reason }) {
  const claim = {
    person, deed, cluster_id: clusterId, run_id: runId, digest, reason, nonce: random(),
    expires_at: new Date(now().getTime() + GOOD_FOR_MS).toISOString().replace(/\.\d+Z$/, "Z"),
  };
  const signature = await crypto.subtle.sign("Ed25519", key, new TextEncoder().encode(canonical(claim)));
  return { claim, signature: btoa(String.fromCharCode(...new Uint8Array(signature))) };
}

/** The token in what `approve --print` or `reject --print` printed; raises NotUsable where it is not for this vote. */
export function pasted(text, { deed, clusterId, runId, digest }) {
  let token;
  try {
    token = JSON.parse(text).token;
  } catch {
    throw new NotUsable("This is no JSON; paste all that the command printed");
  }
  if (!token?.claim || typeof token.signature !== "string") throw new NotUsable("There is no signed token in it");
  const wanted = { deed, cluster_id: clusterId, run_id: runId, digest };
  for (const [name, value] of Object.entries(wanted)) {
    if (token.claim[name] !== value) {
      throw new NotUsable(`It was signed for ${name} ${token.claim[name]}; what waits here is ${value}`);
    }
  }
  return token;
}

/** The one JSON text that is signed: names sorted, no spaces. Of a claim, which is flat and has texts alone. */
function canonical(claim) {
  return JSON.stringify(Object.fromEntries(Object.entries(claim).sort(([a], [b]) => (a < b ? -1 : 1))));
}
