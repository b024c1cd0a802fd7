/** Elements are found and made here. Text goes in as text, never as HTML: what a patient or a model says is not trusted. */

export const byId = (id) => document.getElementById(id);

/** A new element. `options`: `class`, `text`, or any attribute (undefined and false leave it out). */
export function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "text") element.textContent = value;
    else if (value !== undefined && value !== false && value !== null) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children.filter((child) => child !== false)); // As a condition gives it.
  return element;
}

/** `hippocampal_atrophy` -> `Hippocampal atrophy`. */
export function readable(name) {
  const words = name.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** 0.934 -> `93.4 %`; neither 100 nor 0 where it is only near. */
export function percent(share) {
  const rounded = (100 * share).toFixed(1);
  if (rounded === "100.0" && share < 1) return "> 99.9 %";
  if (rounded === "0.0" && share > 0) return "< 0.1 %";
  return `${rounded} %`;
}
