/** Files of a scan: chosen, checked for size, and shown as slices at once. */

import { byId, make } from "./dom.js";
import { fetchJson, Failure } from "./endpoint.js";
import { clearErrors, showErrors } from "./errors.js";
import { markFindings, readPatient } from "./patient.js";

const FILES = [
  { name: "scan", label: "T1-weighted scan", hint: "NIfTI", accept: ".nii,.nii.gz,.gz" },
  { name: "segmentation", label: "Label map", hint: "NIfTI", accept: ".nii,.nii.gz,.gz" },
  { name: "slices", label: "Slices", hint: "PNG, one or more", accept: ".png,image/png", multiple: true },
];
const MIB = 1024 * 1024;

let limits;
let running = null;

/** `form`: what GET v1/form gave. */
export function buildUploads(form) {
  limits = form;
  const segmenter = make("input", { id: "upload-segmenter", type: "text", placeholder: "e.g. freesurfer-7.4", spellcheck: "false" });
  const label = make("label", { class: "label", for: "upload-segmenter", text: "Segmenter" });
  label.append(make("small", { text: " software that made the label map" }));
  const rows = FILES.map(rowOf);
  rows.splice(2, 0, make("div", { "data-field": "segmenter", id: "segmenter-row", hidden: true }, label, segmenter));
  byId("uploads").replaceChildren(...rows);
  segmenter.addEventListener("change", preview);
  byId("fields").addEventListener("change", () => hasLabelMap() && preview()); // Norms are those of an age and a sex.
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
  const segmenter = byId("upload-segmenter").value.trim();
  if (hasLabelMap() && segmenter) body.append("segmenter", segmenter);
  return chosen.length > 0;
}

export function clearUploads() {
  for (const { name } of FILES) byId(`upload-${name}`).value = "";
  byId("upload-segmenter").value = "";
  return preview();
}

export const hasLabelMap = () => filesOf("segmentation").length > 0;

const filesOf = (name) => [...byId(`upload-${name}`).files];

/** Shows what the chosen files hold. */
export async function preview() {
  running?.abort();
  clearErrors(byId("uploads"));
  for (const { name } of FILES) byId(`remove-${name}`).hidden = !filesOf(name).length;
  byId("segmenter-row").hidden = !hasLabelMap();
  showWarnings([]);
  byId("gallery").hidden = true;
  const pictures = await Promise.all(filesOf("slices").map(asPicture));
  if (!fits()) return say("");
  if (!filesOf("scan").length && !hasLabelMap()) {
    markFindings({});
    showPictures(pictures);
    return say(pictures.length ? countOf(pictures) : "");
  }
  const asked = (running = new AbortController());
  say("Reading the scan …");
  try {
    const body = new FormData();
    addFiles(body);
    body.delete("slices");
    const { findings, ...patient } = readPatient(true);
    if (Object.keys(patient).length) body.append("request", JSON.stringify({ patient }));
    const seen = await fetchJson("v1/slices", { method: "POST", body, signal: asked.signal });
    const shown = [...seen.slices.map((one) => [one.name, `data:image/png;base64,${one.png_base64}`]), ...pictures];
    showPictures(shown);
    const filled = markFindings(seen.findings);
    showWarnings(seen.warnings);
    const graded = Object.keys(seen.findings).length;
    say(countOf(shown) + (graded ? ` ${filled} of ${graded} findings of the label map filled in; what you entered stands.` : ""));
  } catch (error) {
    if (error.name === "AbortError") return undefined; // Another file was chosen meanwhile.
    if (!(error instanceof Failure)) throw error;
    say("");
    const homeless = showErrors(error.errors);
    if (!error.errors.length || homeless.length) {
      const reasons = homeless.map((one) => one.message).join(" ");
      showErrors([{ field: filesOf("scan").length ? "scan" : "segmentation", message: reasons || error.detail }]);
    }
  }
  return undefined;
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
  showErrors(errors);
  return !errors.length;
}

const say = (text) => void (byId("scan-status").textContent = text);
const countOf = (pictures) => `${pictures.length} ${pictures.length === 1 ? "slice" : "slices"}.`;

function showPictures(pictures) {
  const figures = pictures.map(([name, source]) =>
    make("figure", {}, make("img", { src: source, alt: `Slice ${name}` }), make("figcaption", { text: name.replaceAll("_", " ") })),
  );
  byId("gallery").replaceChildren(...figures);
  byId("gallery").hidden = !figures.length;
}

function showWarnings(warnings) {
  byId("scan-warnings").replaceChildren(...warnings.map((text) => make("li", { text })));
  byId("scan-warnings").hidden = !warnings.length;
}

function asPicture(file, place) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve([`picture ${place + 1}`, reader.result]);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
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
