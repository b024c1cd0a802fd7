/** Requests to the endpoint and what comes back: JSON, problem details, or server-sent events. */

const KEY = "clinical-reasoner.api-key";

/** Kept for this tab only. */
export const readKey = () => sessionStorage.getItem(KEY) ?? "";
export const keepKey = (key) => (key ? sessionStorage.setItem(KEY, key) : sessionStorage.removeItem(KEY));

/** A request that did not work. `errors`: [{field, message}]. */
export class Failure extends Error {
  constructor(title, detail, { status = 0, errors = [], retryAfter = null, requestId = null } = {}) {
    super(detail);
    Object.assign(this, { title, detail, status, errors, retryAfter, requestId });
  }
}

/** The endpoint's answer as JSON. Throws Failure, or the browser's AbortError. */
export async function fetchJson(path, options = {}) {
  const response = await send(path, options);
  try {
    return await response.json();
  } catch (error) {
    throw interrupted(error);
  }
}

/** Yields [name, data] of each server-sent event. Throws Failure, or the browser's AbortError. */
export async function* fetchEvents(path, options) {
  const response = await send(path, options);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      waiting += value;
      const blocks = waiting.replaceAll("\r\n", "\n").split("\n\n");
      waiting = blocks.pop();
      for (const block of blocks) {
        const event = readEvent(block);
        if (event) yield event;
      }
    }
  } catch (error) {
    throw error instanceof Failure ? error : interrupted(error);
  } finally {
    reader.cancel().catch(() => {}); // Leaving early ends the generation; a stream that failed has nothing to cancel.
  }
}

/** Of a problem that came as an event or as a body. */
export function failureOf(problem, response = null) {
  return new Failure(problem.title ?? "The request failed", problem.detail ?? "", {
    status: problem.status ?? response?.status,
    errors: Array.isArray(problem.errors) ? problem.errors : [],
    retryAfter: response?.headers.get("retry-after") ?? null,
    requestId: response?.headers.get("x-request-id") ?? null,
  });
}

async function send(path, options) {
  const key = readKey();
  const headers = { ...options.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("No connection", "The endpoint could not be reached. Check the network and try again.");
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => null); // A proxy in between may answer in HTML.
  throw failureOf(
    problem ?? { title: response.statusText || "The request failed", detail: `Status ${response.status}.` },
    response,
  );
}

function interrupted(error) {
  if (error.name === "AbortError") return error;
  if (error instanceof SyntaxError) return new Failure("Unreadable answer", "What came back is not what this page can read.");
  return new Failure("Connection lost", "The connection ended before the answer was complete. Try again.");
}

function readEvent(block) {
  let name = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("event:")) name = line.slice(6).trim();
    else if (line.startsWith("data:")) data.push(line.slice(5));
  }
  return data.length ? [name, JSON.parse(data.join("\n"))] : null;
}
