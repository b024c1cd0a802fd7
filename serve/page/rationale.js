/** The rationale with its statements coloured by what was entered, the legend and the list of statements. */

import { byId, make, readable } from "./dom.js";

const VERDICTS = { supported: ["supported", "✓"], contradicted: ["contradicted", "✕"], not_in_evidence: ["not in evidence", "?"] };
const ORDER = ["contradicted", "not_in_evidence", "supported"];

/** `claims`: [{name, value, verdict, start, end}], places in characters of `text`; `labels`: name -> words. */
export function showClaims(text, claims, labels) {
  const letters = Array.from(text); // Places count characters, JavaScript counts UTF-16 units.
  const parts = [];
  let done = 0;
  for (const claim of [...claims].sort((one, other) => one.start - other.start)) {
    if (claim.start < done) continue; // Overlaps the one before; it is in the list.
    parts.push(letters.slice(done, claim.start).join(""), markOf(claim, letters));
    done = claim.end;
  }
  byId("rationale").replaceChildren(...parts, letters.slice(done).join(""));
  showLegend(claims);
  const sorted = [...claims].sort((one, other) => ORDER.indexOf(one.verdict) - ORDER.indexOf(other.verdict));
  byId("claims").replaceChildren(...sorted.map((claim) => rowOf(claim, labels)));
  byId("claims-card").hidden = !claims.length;
}

export function hideClaims() {
  byId("legend").hidden = true;
  byId("claims-card").hidden = true;
}

function markOf(claim, letters) {
  const [words] = VERDICTS[claim.verdict];
  return make(
    "mark",
    { class: claim.verdict, title: words },
    letters.slice(claim.start, claim.end).join(""),
    make("span", { class: "unseen", text: ` (${words})` }),
  );
}

function showLegend(claims) {
  const counted = Object.entries(VERDICTS).map(([verdict, [words]]) => {
    const count = claims.filter((claim) => claim.verdict === verdict).length;
    return make("li", {}, make("mark", { class: verdict, text: words }), ` ${count}`);
  });
  byId("legend").replaceChildren(...counted);
  byId("legend").hidden = false;
}

function rowOf(claim, labels) {
  const [words, sign] = VERDICTS[claim.verdict];
  return make(
    "li",
    { class: claim.verdict },
    make("span", { class: "sign", "aria-hidden": "true", text: sign }),
    make("span", { class: "claim" }, labels[claim.name] ?? readable(claim.name), ": ", make("b", { text: claim.value })),
    make("span", { class: "verdict", text: words }),
  );
}
