/** The fields and findings of a patient: made from the task, filled from JSON, read as the `patient` of a request. */

import { byId, make, readable } from "./dom.js";

let task;

/** `form`: what GET v1/form gave. */
export function buildPatient(form) {
  task = form;
  byId("fields").replaceChildren(...form.fields.map(fieldOf));
  byId("findings-heading").textContent = form.findings_heading;
  byId("findings").replaceChildren(...form.findings.map(findingOf));
  byId("findings").addEventListener("change", (event) => unmark(event.target.closest(".finding")));
}

/** The patient as it stands there; numbers that are none go out as text, for the endpoint to refuse. `graded`: without
 * the findings of a label map, which the endpoint grades again from the map that goes with the request. */
export function readPatient(graded) {
  const patient = {};
  for (const field of task.fields) {
    const text = byId(`field-${field.name}`).value.trim();
    if (!text) continue;
    const choice = field.choices.find((one) => String(one.value) === text);
    patient[field.name] = choice ? choice.value : asNumber(text);
  }
  const findings = {};
  for (const finding of task.findings) {
    const chosen = document.querySelector(`input[name="finding-${finding.name}"]:checked`).value;
    if (chosen && !(graded && isMeasured(finding.name))) findings[finding.name] = chosen;
  }
  return { ...patient, findings };
}

/** Replaces what stands there; returns the names in `patient` that the form has no place for. */
export function writePatient(patient) {
  const { findings = {}, ...fields } = patient;
  const unknown = Object.keys(fields).filter((name) => !task.fields.some((field) => field.name === name));
  for (const field of task.fields) {
    const control = byId(`field-${field.name}`);
    const text = String(fields[field.name] ?? "");
    control.value = text;
    if (control.value !== text) unknown.push(field.name);
  }
  for (const finding of task.findings) {
    if (!setFinding(finding.name, findings?.[finding.name] ?? "")) unknown.push(`findings.${finding.name}`);
  }
  const known = new Set(task.findings.map((finding) => finding.name));
  return [...unknown, ...Object.keys(findings ?? {}).filter((name) => !known.has(name)).map((name) => `findings.${name}`)];
}

/** Grades that a label map gave, marked as such; those of an earlier one go, and what a person entered stands.
 * Returns how many were filled in. */
export function markFindings(grades) {
  for (const row of document.querySelectorAll(".finding.measured")) setFinding(row.dataset.finding, "");
  let filled = 0;
  for (const [name, grade] of Object.entries(grades)) {
    const entered = document.querySelector(`input[name="finding-${CSS.escape(name)}"]:checked`)?.value;
    if (entered || !setFinding(name, grade)) continue;
    rowOf(name).classList.add("measured");
    filled += 1;
  }
  return filled;
}

function setFinding(name, grade) {
  const row = rowOf(name);
  const radio = row && [...row.querySelectorAll("input")].find((one) => one.value === grade);
  if (!radio) return false;
  radio.checked = true;
  unmark(row);
  return true;
}

const rowOf = (name) => document.querySelector(`.finding[data-finding="${CSS.escape(name)}"]`);
const isMeasured = (name) => rowOf(name).classList.contains("measured");
const unmark = (row) => row?.classList.remove("measured");

function asNumber(text) {
  const plain = text.replace(",", ".");
  return /^[+-]?\d+(\.\d+)?$/.test(plain) && Number.isFinite(Number(plain)) ? Number(plain) : text;
}

function fieldOf(field) {
  const id = `field-${field.name}`;
  const bounds = field.minimum !== null && field.maximum !== null ? `${field.minimum}–${field.maximum}` : "";
  const label = make("label", { class: "label", for: id, text: field.label });
  if (field.kind === "number" && bounds) label.append(make("small", { text: ` ${bounds} ${field.unit}`.trimEnd() }));
  const control =
    field.kind === "number"
      ? make("input", { id, type: "text", inputmode: field.whole ? "numeric" : "decimal", maxlength: 20 })
      : make("select", { id }, make("option", { value: "", text: "Not known" }), ...field.choices.map(choiceOf));
  return make("div", { "data-field": `patient.${field.name}`, title: field.hint }, label, control);
}

const choiceOf = (choice) => make("option", { value: choice.value, text: choice.label, title: choice.hint });

function findingOf(finding) {
  const id = `finding-${finding.name}`;
  const grades = [["", "–"], ...task.grades.map((grade) => [grade, grade])];
  const radios = grades.map(([value, text], place) => {
    const input = make("input", { type: "radio", name: id, value, checked: place === 0, "aria-label": value || "not known" });
    return make("label", {}, input, make("span", { text, class: `grade ${gradeClass(place)}` }));
  });
  return make(
    "div",
    { class: "finding", "data-finding": finding.name, "data-field": `patient.findings.${finding.name}` },
    make("span", { class: "term", id: `${id}-term` }, readable(finding.term), make("span", { class: "from-scan", text: "from scan" })),
    make("div", { class: "segments", role: "radiogroup", "aria-labelledby": `${id}-term` }, ...radios),
  );
}

/** Not known, unaffected, between, most affected. */
function gradeClass(place) {
  if (place === 0) return "unknown";
  if (place === 1) return "unaffected";
  return place === task.grades.length ? "most" : "some";
}
