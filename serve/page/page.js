/** The page: builds itself from the endpoint's form, sends one request at a time and shows its answer. */

import { addText, buildAnswer, showAnswer, showProbabilities, showProblem, showStopped, showTier, showWaiting } from "./answer.js";
import { byId, make } from "./dom.js";
import { failureOf, Failure, fetchEvents, fetchJson, keepKey, readKey } from "./endpoint.js";
import { clearErrors, focusFirstError, showErrors } from "./errors.js";
import { kindOf, buildInput, readInput } from "./input.js";
import { markFindings } from "./patient.js";
import { addFiles, hasLabelMap } from "./scans.js";

const SHOW = { tier: showTier, probabilities: showProbabilities, text: addText };

let running = null;
let answer = null;

async function start() {
  const form = await fetchJson("v1/form");
  document.title = `clinical-reasoner: ${form.title}`;
  byId("task-title").textContent = form.title;
  byId("notice").textContent = form.research_use_only;
  byId("key-hint").prepend(form.keys_needed ? "Needed here. " : "Not needed here. ");
  byId("model").replaceChildren(...form.models.map(modelOf));
  buildInput(form);
  buildAnswer(form);
  byId("key").value = readKey();
  byId("key").addEventListener("input", () => keepKey(byId("key").value.trim()));
  byId("request").addEventListener("submit", (event) => {
    event.preventDefault();
    diagnose();
  });
  byId("request").addEventListener("input", (event) => {
    const place = event.target.closest("[data-field]");
    if (place) clearErrors(place);
  });
  byId("stop").addEventListener("click", (event) => {
    if (event.detail < 2) running?.abort(); // The second click of a double click on Diagnose lands here.
  });
  byId("copy").addEventListener("click", copy);
  byId("download").addEventListener("click", download);
  byId("send").disabled = false;
}

async function diagnose() {
  if (running) return;
  running = new AbortController();
  setBusy(true);
  clearErrors();
  showWaiting();
  if (matchMedia("(max-width: 999px)").matches) byId("answer").scrollIntoView();
  const began = performance.now();
  try {
    answer = await readAnswer(fetchEvents("v1/diagnose?stream=true", { ...message(), signal: running.signal }));
    showAnswer(answer, (performance.now() - began) / 1000);
    if (Object.keys(answer.findings).length) markFindings(answer.findings);
  } catch (error) {
    fail(error);
  } finally {
    running = null;
    setBusy(false);
  }
}

async function readAnswer(events) {
  for await (const [name, data] of events) {
    if (name === "answer") return data;
    if (name === "problem") throw failureOf(data);
    SHOW[name]?.(data);
  }
  throw new Failure("Connection lost", "The stream ended without an answer. Try again.");
}

function message() {
  const request = { ...readInput(hasLabelMap()), model: document.querySelector("input[name=model]:checked").value };
  const body = new FormData();
  body.append("request", JSON.stringify(request));
  if (addFiles(body)) return { method: "POST", body };
  return { method: "POST", body: JSON.stringify(request), headers: { "content-type": "application/json" } };
}

function fail(error) {
  if (error.name === "AbortError") return showStopped();
  if (!(error instanceof Failure)) {
    showProblem(new Failure("The page failed", "The answer could not be shown. Load the page again."), []);
    throw error; // To the console.
  }
  const errors = error.status === 401 || error.status === 403 ? [...error.errors, { field: "key", message: error.detail }] : error.errors;
  const shown = errors.map((one) => (one.field === "patient" ? { ...one, field: kindOf() } : one));
  showProblem(error, showErrors(shown));
  focusFirstError();
  return undefined;
}

function setBusy(busy) {
  const [shown, other] = busy ? [byId("stop"), byId("send")] : [byId("send"), byId("stop")];
  const focused = document.activeElement === other;
  byId("send").disabled = busy;
  shown.hidden = false;
  other.hidden = true;
  if (focused) shown.focus();
}

const asText = () => JSON.stringify(answer, null, 2);

async function copy() {
  try {
    await navigator.clipboard.writeText(asText()); // Browsers offer it over HTTPS and on this machine.
    byId("copied").textContent = "Copied.";
  } catch {
    byId("copied").textContent = "This browser does not allow copying here; download it.";
  }
}

function download() {
  const address = URL.createObjectURL(new Blob([asText()], { type: "application/json" }));
  make("a", { href: address, download: `answer-${answer.request_id}.json` }).click();
  URL.revokeObjectURL(address);
}

function modelOf(name, place) {
  const input = make("input", { type: "radio", name: "model", value: name, checked: place === 0 });
  return make("label", {}, input, make("span", { text: name }));
}

start().catch((error) => {
  byId("startup").textContent = `The page could not be built: ${error.message} Load it again.`;
  byId("startup").hidden = false;
  if (!(error instanceof Failure)) throw error;
});
