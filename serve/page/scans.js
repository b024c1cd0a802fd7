/** Files of a scan: chosen, checked for size, and shown as slices at once. */

import { byId, make } from "./dom.js";
import { fetchJson, Failure } from "./endpoint.js";
import { clearErrors, clearErrorsOf, showErrors } from "./errors.js";
import { markFindings, readPatient } from "./patient.js";

const FILES = [
  { name: "scan", label: "T1-weighted scan", hint: "NIfTI", accept: ".nii,.nii.gz,.gz" },
  { name: "segmentation", label: "Label map", hint: "NIfTI", accept: ".nii,.nii.gz,.gz" },
  { name: "slices", label: "Slices", hint: "PNG, one or more", accept: ".png,image/png", multiple: true },
];
const TEXTS = [
  { name: "segmenter", label: "Segmenter", hint: "and version", example: "freesurfer-7.4" },
  { name: "field_strength_t", label: "Field strength", hint: "tesla", example: "3" },
];
const MIB = 1024 * 1024;
const PREVIEW = "preview";

let limits;
let running = null;

/** `form`: what GET v1/form gave. */
export function buildUploads(form) {
  limits = form;
  const rows = FILES.map(rowOf);
  rows.splice(2, 0, make("div", { id: "label-map-texts", class: "fields", hidden: true }, ...TEXTS.map(textOf)));
  byId("uploads").replaceChildren(...rows);
  byId("fields").addEventListener("change", () => hasLabelMap() && preview()); // Norms are those of an age and a sex.
  for (const { name } of TEXTS) byId(`upload-${name}`).addEventListener("change", preview);
  for (const { name } of FILES) {
    byId(`upload-${name}`).addEventListener("change", preview);
    byId(`remove-${name}`).addEventListener("click", () => {
      byId(`upload-${name}`).value = "";
      byId(`upload-${name}`).focus();
      preview();
    });
  }
}

/** Puts the chosen files into `body`, a FormData; false where there are none. */
export function addFiles(body) {
  const chosen = FILES.flatMap(({ name }) => filesOf(name).map((file) => [name, file]));
  for (const [name, file] of chosen) body.append(name, file);
  for (const { name } of TEXTS) {
    const text = byId(`upload-${name}`).value.trim();
    if (text && hasLabelMap()) body.append(name, text);
  }
  return chosen.length > 0;
}

export function clearUploads() {
  for (const { name } of [...FILES, ...TEXTS]) byId(`upload-${name}`).value = "";
  return preview();
}

export const hasLabelMap = () => filesOf("segmentation").length > 0;

const filesOf = (name) => [...byId(`upload-${name}`).files];

/** Shows what the chosen files hold. */
export async function preview() {
  running?.abort();
  clearErrors(byId("uploads"));
  clearErrorsOf(PREVIEW);
  for (const { name } of FILES) byId(`remove-${name}`).hidden = !filesOf(name).length;
  byId("label-map-texts").hidden = !hasLabelMap();
  showSeen({ slices: [], findings: {}, warnings: [] });
  const body = new FormData();
  if (!fits() || !addFiles(body)) return;
  const { findings, ...patient } = readPatient(true);
  if (Object.keys(patient).length) body.append("request", JSON.stringify({ patient }));
  const asked = (running = new AbortController());
  say("Reading the files …");
  try {
    const seen = await fetchJson("v1/slices", { method: "POST", body, signal: asked.signal });
    showSeen(seen);
  } catch (error) {
    if (error.name === "AbortError") return; // Other files were chosen meanwhile.
    if (!(error instanceof Failure)) throw error;
    say("");
    const errors = error.errors.map((one) => ({ ...one, field: one.field.replace(/^request\./, "") }));
    const homeless = errors.length ? showErrors(errors, PREVIEW) : [{ message: error.detail }];
    const first = FILES.find(({ name }) => filesOf(name).length);
    if (homeless.length) showErrors([{ field: first.name, message: homeless.map((one) => one.message).join(" ") }], PREVIEW);
  }
}

function showSeen({ slices, findings, warnings }) {
  const figures = slices.map((slice) =>
    make("figure", {},
      make("img", { src: `data:image/png;base64,${slice.png_base64}`, alt: `Slice ${slice.name}` }),
      make("figcaption", { text: slice.name.replaceAll("_", " ") })),
  );
  byId("gallery").replaceChildren(...figures);
  byId("gallery").hidden = !figures.length;
  byId("scan-warnings").replaceChildren(...warnings.map((text) => make("li", { text })));
  byId("scan-warnings").hidden = !warnings.length;
  const filled = markFindings(findings);
  const graded = Object.keys(findings).length;
  const parts = [figures.length && `${figures.length} ${figures.length === 1 ? "slice" : "slices"}.`,
    graded && `${filled} of ${graded} findings of the label map filled in; what you entered stands.`];
  say(parts.filter(Boolean).join(" "));
}

function fits() {
  const errors = FILES.flatMap(({ name }) =>
    filesOf(name)
      .filter((file) => file.size > limits.max_file_mib * MIB)
      .map(() => ({ field: name, message: `larger than ${limits.max_file_mib} MiB` })),
  );
  if (filesOf("slices").length > limits.max_pictures) {
    errors.push({ field: "slices", message: `at most ${limits.max_pictures} pictures` });
  }
  showErrors(errors, PREVIEW);
  return !errors.length;
}

const say = (text) => void (byId("scan-status").textContent = text);

function textOf({ name, label, hint, example }) {
  const id = `upload-${name}`;
  return make("div", { "data-field": name },
    make("label", { class: "label", for: id }, label, make("small", { text: ` ${hint}` })),
    make("input", { id, type: "text", placeholder: `e.g. ${example}`, maxlength: 64, spellcheck: "false" }));
}

function rowOf({ name, label, hint, accept, multiple }) {
  const id = `upload-${name}`;
  return make(
    "div",
    { "data-field": name },
    make("label", { class: "label", for: id }, label, make("small", { text: ` ${hint}` })),
    make("div", { class: "file" }, make("input", { id, type: "file", accept, multiple }),
      make("button", { id: `remove-${name}`, type: "button", class: "quiet", hidden: true, text: "Remove", "aria-label": `Remove ${label}` })),
  );
}
