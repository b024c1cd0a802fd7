/** Banners: what went wrong, and what a reader of an answer has to know. */

import { byId, make } from "./dom.js";

const TITLES = {
  401: "An API key is needed",
  403: "Not allowed with this API key",
  413: "Too large",
  422: "The entry cannot be used",
  429: "Too many requests",
  502: "No usable answer",
  503: "Not available at the moment",
  504: "No answer in time",
};

/** `homeless`: errors that are shown at no field. */
export function noteProblem(failure, homeless) {
  const marked = failure.errors.length > homeless.length;
  const parts = [
    make("strong", { text: TITLES[failure.status] ?? failure.title }),
    make("p", { text: marked ? "Please change what is marked." : failure.detail }),
  ];
  if (homeless.length) parts.push(make("ul", {}, ...homeless.map(lineOf)));
  if (failure.retryAfter) parts.push(make("p", { text: `Try again in ${failure.retryAfter} s.` }));
  const trace = [failure.status && `Status ${failure.status}`, failure.requestId && `Request ${failure.requestId}`].filter(Boolean);
  if (trace.length) parts.push(make("p", { class: "trace", text: trace.join(" · ") }));
  byId("problem").replaceChildren(...parts);
  byId("problem").hidden = false;
}

export function hideProblem() {
  byId("problem").hidden = true;
  byId("banners").replaceChildren();
}

export function addBanners(answer) {
  const why = `${answer.routing.charAt(0).toUpperCase()}${answer.routing.slice(1)}.`;
  if (answer.refer) addBanner("alert", "Refer to a clinician", "There is no sure answer about this patient.", why);
  if (answer.degraded) addBanner("warn", "Degraded answer", "The teacher has no usable answer; an unsure student's stands in for it.", why);
  if (answer.warnings.length) addBanner("warn", "Please note", ...answer.warnings);
}

/** `kind`: alert or warn. */
export function addBanner(kind, title, ...texts) {
  const lines = texts.map((text) => make("p", { text }));
  byId("banners").append(make("div", { class: `banner ${kind}` }, make("strong", { text: title }), ...lines));
}

const lineOf = (error) => make("li", { text: error.field.startsWith("(") ? error.message : `${error.field}: ${error.message}` });
