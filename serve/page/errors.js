/** What is wrong, shown beside the field that it names; places carry `data-field`, as in `errors` of a problem. */

import { make } from "./dom.js";

let count = 0;

/**
 * Shows each {field, message} at its place; returns those that have none. The nearest place above takes it too.
 * `source`: what found them, for `clearErrorsOf`.
 */
export function showErrors(errors, source = "request") {
  const homeless = [];
  for (const error of errors) {
    const place = findPlace(error.field);
    if (place) showAt(place, error.message, source);
    else homeless.push(error);
  }
  return homeless;
}

export function clearErrors(root = document) {
  for (const shown of root.querySelectorAll(".field-error")) clear(shown);
}

/** Wherever they are. */
export function clearErrorsOf(source) {
  for (const shown of document.querySelectorAll(`.field-error[data-source="${source}"]`)) clear(shown);
}

function clear(shown) {
  const control = controlOf(shown.parentElement);
  if (control?.getAttribute("aria-describedby") === shown.id) {
    control.removeAttribute("aria-invalid");
    control.removeAttribute("aria-describedby");
  }
  shown.remove();
}

/** Puts the keyboard where the first error is. */
export function focusFirstError() {
  const shown = document.querySelector(".field-error");
  if (!shown) return;
  controlOf(shown.parentElement)?.focus({ preventScroll: true });
  shown.parentElement.scrollIntoView({ block: "nearest" });
}

function findPlace(field) {
  for (let name = field; name; name = name.includes(".") ? name.slice(0, name.lastIndexOf(".")) : "") {
    const place = document.querySelector(`[data-field="${CSS.escape(name)}"]`);
    if (place) return place;
  }
  return null;
}

function showAt(place, message, source) {
  count += 1;
  const shown = make("p", { class: "field-error", id: `error-${count}`, "data-source": source, text: message });
  const control = controlOf(place);
  control?.setAttribute("aria-invalid", "true");
  control?.setAttribute("aria-describedby", shown.id);
  if (place.dataset.errorsFirst !== undefined) place.prepend(shown);
  else place.append(shown);
}

/** The control of a place; one that holds further places has none of its own. */
function controlOf(place) {
  return place.querySelector("[data-field]") ? null : place.querySelector("input, select, textarea");
}
