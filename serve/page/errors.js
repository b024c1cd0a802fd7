/** What is wrong, shown beside the field that it names; places carry `data-field`, as in `errors` of a problem. */

import { make } from "./dom.js";

let count = 0;

/** Shows each {field, message} at its place; returns those that have none. The nearest place above takes it too. */
export function showErrors(errors) {
  const homeless = [];
  for (const error of errors) {
    const place = findPlace(error.field);
    if (place) showAt(place, error.message);
    else homeless.push(error);
  }
  return homeless;
}

export function clearErrors(root = document) {
  for (const shown of root.querySelectorAll(".field-error")) {
    const control = controlOf(shown.parentElement);
    control?.removeAttribute("aria-invalid");
    control?.removeAttribute("aria-describedby");
    shown.remove();
  }
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

function showAt(place, message) {
  count += 1;
  const shown = make("p", { class: "field-error", id: `error-${count}`, text: message });
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
