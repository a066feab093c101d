// What the plugin sent, seen from outside it: `fetch` is wrapped before the plugin loads, so the list kept here is the truth
// the product is measured against. Requests and responses pass through unchanged. A request to an address outside this machine
// is refused and kept: a self-hosted set-up must never call the vendor, and as the plugin swallows errors, only this list tells.

const native = globalThis.fetch;
const loopback = new Set(["127.0.0.1", "localhost", "[::1]"]);

export const tracked = [];
export const otherCalls = {};
export const refused = [];
/** What the driver is doing; kept with each event to make a difference readable. */
export const step = { name: null };

const pending = new Set();
let auditUrl = "";

/** Wraps the global `fetch`; `url` is the address the plugin is configured with. */
export function record(url) {
  auditUrl = url.replace(/\/$/, "");
  globalThis.fetch = recordedFetch;
}

function recordedFetch(input, init) {
  const url = new URL(input instanceof Request ? input.url : input);
  const address = `${url.origin}${url.pathname}`;
  const method = init?.method ?? (input instanceof Request ? input.method : "GET");

  if (address === `${auditUrl}/events/track`) {
    return keep(native(input, init), { step: step.name, body: JSON.parse(init.body), status: null, answer: null });
  }
  if (address.startsWith(`${auditUrl}/`)) return count(native(input, init), `${method} ${address.slice(auditUrl.length)}`);
  if (loopback.has(url.hostname)) return native(input, init);
  refused.push(`${method} ${address}`);
  return Promise.reject(new Error(`refused: ${method} ${address} leaves this machine`));
}

// The clone is taken before the caller sees the response, because a body can only be read once.
function keep(answering, entry) {
  tracked.push(entry);
  wait(answering.then(async (response) => {
    entry.status = response.status;
    entry.answer = parsed(await response.clone().text());
  }).catch((error) => {
    entry.error = String(error);
  }));
  return answering;
}

function count(answering, call) {
  const name = call.replace(/^GET \/identify\/.*/, "GET /identify/{id}");
  const ended = (how) => {
    otherCalls[name] ??= {};
    otherCalls[name][how] = (otherCalls[name][how] ?? 0) + 1;
  };
  wait(answering.then((response) => ended(response.status), () => ended("failed")));
  return answering;
}

function wait(recording) {
  pending.add(recording);
  recording.finally(() => pending.delete(recording));
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Waits until at least `count` events were sent and no recorded request is under way. */
export async function settled(count, deadlineMs = 10_000) {
  const deadline = Date.now() + deadlineMs;
  do {
    // The plugin starts its requests some microtasks after it answered; one turn of the event loop lets all of them start.
    await new Promise((resolve) => setTimeout(resolve, 1));
    await Promise.allSettled(pending);
  } while (pending.size > 0 || (tracked.length < count && Date.now() < deadline));
}
