/** The answer's side of the page: what the stream says, and the whole answer at its end. */

import { byId, make, percent } from "./dom.js";
import { addBanner, addBanners, hideProblem, noteProblem } from "./notices.js";
import { hideClaims, showClaims } from "./rationale.js";

let form;
let words;

/** `given`: what GET v1/form gave. */
export function buildAnswer(given) {
  form = given;
  words = Object.fromEntries([
    ...given.fields.map((field) => [field.name, field.label]),
    ...given.findings.map((finding) => [finding.name, finding.term.charAt(0).toUpperCase() + finding.term.slice(1)]),
  ]);
}

export function showWaiting() {
  hideProblem();
  byId("empty").hidden = true;
  byId("result").hidden = false;
  byId("facts-card").hidden = true;
  showTier({ tier: "waiting", why: "for the endpoint" });
}

/** A model begins; what another one wrote before is void. */
export function showTier({ tier, why }) {
  byId("tier").className = `badge ${tier}`;
  byId("tier").textContent = tier;
  byId("why").textContent = why;
  byId("diagnosis").textContent = "…";
  byId("confidence").textContent = "";
  byId("set").textContent = "";
  byId("rationale").replaceChildren();
  byId("rationale").className = "rationale writing";
  byId("rationale").setAttribute("aria-busy", "true"); // Read out once it is complete.
  hideClaims();
  showBars(null, null);
  if (tier !== "waiting") say(`The ${tier} answers.`);
}

/** Of the event or of the answer. */
export function showProbabilities({ probabilities, prediction_set: set, coverage, calibrated }) {
  showBars(probabilities, set);
  if (!probabilities) {
    byId("confidence").textContent = "This answer has no probabilities.";
    return;
  }
  const [name, share] = Object.entries(probabilities).reduce((best, one) => (one[1] > best[1] ? one : best));
  byId("diagnosis").textContent = textOf(name);
  byId("confidence").replaceChildren("Confidence ", make("b", { text: percent(share) }), calibrated ? ", calibrated" : ", not calibrated");
  byId("set").textContent = set
    ? `Prediction set (${Math.round(100 * coverage)} % coverage): ${set.map(textOf).join(", ")}.`
    : "No prediction set: the endpoint has no operating point for this model.";
}

export const addText = ({ text }) => byId("rationale").append(text);

/** The whole answer. `seconds`: from sending to now. */
export function showAnswer(answer, seconds) {
  showProbabilities(answer);
  byId("tier").className = `badge ${answer.answered_by}`;
  byId("tier").textContent = answer.answered_by;
  byId("why").textContent = answer.routing;
  byId("diagnosis").textContent = answer.diagnosis_text;
  endWriting();
  if (answer.rationale) showClaims(answer.rationale, answer.claims, words);
  else byId("rationale").textContent = "This model answers without a rationale.";
  addBanners(answer);
  showFacts(answer, seconds);
  say(`Answer: ${answer.diagnosis_text}. ${byId("confidence").textContent}.`);
}

export function showProblem(failure, homeless) {
  noteProblem(failure, homeless);
  endWriting();
  byId("result").hidden = !byId("rationale").textContent; // What was written before stays readable.
  if (!byId("result").hidden) addBanner("warn", "Not complete", "The answer broke off: do not rely on it.");
  byId("empty").hidden = !byId("result").hidden;
}

export function showStopped() {
  endWriting();
  addBanner("warn", "Stopped", "The answer is not complete: do not rely on it.");
  say("Stopped.");
}

function endWriting() {
  byId("rationale").className = "rationale";
  byId("rationale").removeAttribute("aria-busy");
}

function showBars(probabilities, set) {
  const rows = form.labels.map(({ name, text }) => {
    const share = probabilities?.[name];
    const inSet = set?.includes(name) ?? false;
    const bar = make("span", { class: "bar" });
    bar.style.width = `${100 * (share ?? 0)}%`;
    return make(
      "div",
      { role: "listitem", class: inSet ? "row in-set" : "row" },
      make("span", { class: "bar-label" }, text, inSet && make("span", { class: "tag", text: "in set" })),
      make("span", { class: "track", "aria-hidden": "true" }, bar),
      make("span", { class: "number", text: share === undefined ? "–" : percent(share) }),
    );
  });
  byId("bars").replaceChildren(...rows);
}

function showFacts(answer, seconds) {
  const facts = {
    Model: `${answer.model} (${answer.answered_by})`,
    "Prompt version": answer.prompt_version,
    "Operating point": answer.operating_point ?? "none",
    Software: answer.version,
    Time: `${seconds.toFixed(2)} s`,
    "Request id": answer.request_id,
  };
  const pairs = Object.entries(facts).map(([name, value]) => make("div", {}, make("dt", { text: name }), make("dd", { text: value })));
  byId("facts").replaceChildren(...pairs);
  byId("facts-card").hidden = false;
}

const textOf = (name) => form.labels.find((label) => label.name === name)?.text ?? name;
const say = (text) => void (byId("status").textContent = text);
