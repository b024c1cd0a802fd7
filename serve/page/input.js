/** The patient's side of the page: fields or free text, examples, a file. */

import { byId, make } from "./dom.js";
import { clearErrors, showErrors } from "./errors.js";
import { buildPatient, readPatient, writePatient } from "./patient.js";
import { buildUploads, clearUploads, hasLabelMap, preview } from "./scans.js";

const KINDS = ["patient", "description"];

/** `form`: what GET v1/form gave. */
export function buildInput(form) {
  buildPatient(form);
  buildUploads(form);
  byId("description").maxLength = form.max_description_chars;
  byId("description").addEventListener("input", count);
  for (const radio of kindRadios()) radio.addEventListener("change", () => showKind(radio.value));
  byId("examples").replaceChildren(...Object.entries(form.examples).map(exampleOf));
  byId("load-file").addEventListener("change", load);
  byId("clear").addEventListener("click", () => {
    fill({ patient: {}, description: "" });
    clearUploads();
  });
}

export const kindOf = () => kindRadios().find((radio) => radio.checked).value;

/** `patient` or `description` of a request. `graded`: a label map goes with it, which gives the findings marked so. */
export function readInput(graded) {
  return kindOf() === "patient" ? { patient: readPatient(graded) } : { description: byId("description").value };
}

const kindRadios = () => [...document.querySelectorAll("input[name=kind]")];

function showKind(kind) {
  for (const radio of kindRadios()) radio.checked = radio.value === kind;
  for (const one of KINDS) byId(`kind-${one}`).hidden = one !== kind;
}

/** Shows the body of a request; what it has and the form has no place for is said, not dropped in silence. */
function fill(body) {
  clearErrors();
  const unknown = Object.keys(body).filter((name) => ![...KINDS, "model"].includes(name));
  if (body.patient) unknown.push(...writePatient(body.patient));
  if (typeof body.description === "string") byId("description").value = body.description;
  count();
  const model = [...document.querySelectorAll("input[name=model]")].find((radio) => radio.value === body.model);
  if (model) model.checked = true;
  if (!body.patient || !("description" in body)) showKind(body.patient ? "patient" : "description");
  if (hasLabelMap()) preview(); // Its findings went with the patient before.
  if (unknown.length) {
    showErrors([{ field: "load", message: `Left out, as this form has no place for it: ${unknown.join(", ")}` }]);
  }
}

async function load() {
  const [file] = byId("load-file").files;
  if (!file) return;
  const body = await file.text().then(JSON.parse).catch(() => null);
  byId("load-file").value = ""; // So that the same file can be loaded again.
  clearErrors();
  if (isObject(body?.patient) || typeof body?.description === "string") fill(body);
  else showErrors([{ field: "load", message: 'The file should be JSON such as {"patient": {…}} or {"description": "…"}.' }]);
}

const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);

const count = () => void (byId("description-count").textContent = Array.from(byId("description").value).length);

function exampleOf([name, body]) {
  const button = make("button", { type: "button", class: "quiet", text: `Synthetic ${name}` });
  button.addEventListener("click", () => fill(body));
  return button;
}
