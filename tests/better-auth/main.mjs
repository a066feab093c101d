// Commands as lines on stdin, one line of JSON on stdout for each, everything else on stderr. One process, because the server
// keeps its users in memory. The README says what the lines hold.

import { createInterface } from "node:readline";
import { otherCalls, record, refused, settled, tracked } from "./recorder.mjs";

const { AUDIT_URL: auditUrl, AUDIT_API_KEY: apiKey } = process.env;
if (!auditUrl || !apiKey) {
  console.error("set AUDIT_URL and AUDIT_API_KEY");
  process.exit(2);
}

// Libraries print to stdout too, and stdout is the protocol.
console.log = console.info = console.debug = console.error;
// A long line must be out before the process ends.
const say = (value) => new Promise((written) => process.stdout.write(`${JSON.stringify(value)}\n`, written));

// Before anything of Better Auth is loaded, hence the imports below.
record(auditUrl);
const { startAuthServer } = await import("./server.mjs");
const { journey, newWorld } = await import("./journey.mjs");
const { doors, unhandled } = await import("./doors.mjs");
const { reads } = await import("./reads.mjs");
const { beginWalks, endWalks } = await import("./walk.mjs");

const world = newWorld(await startAuthServer({ auditUrl, apiKey }));

const commands = {
  journey: () => journey(world),
  reads: async () => ({ reads: await reads(world) }),
  doors: async () => ({ doors: await doors(world) }),
  walk: async () => {
    await beginWalks(world);
    return { walks: await endWalks(world) };
  },
  "walk-begin": async () => {
    await beginWalks(world);
    return {};
  },
  "walk-end": async () => ({ walks: await endWalks(world) }),
};

await say({ ready: world.url });

let told = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const command = line.trim();
  if (command === "") continue;
  if (command === "quit") break;
  try {
    if (!Object.hasOwn(commands, command)) throw new Error(`unknown; known are ${Object.keys(commands).join(", ")}, quit`);
    if (command !== "journey" && world.steps.length === 0) throw new Error("the journey comes first");
    const result = await commands[command]();
    await settled(tracked.length);
    if (refused.length > 0) throw new Error(`calls to foreign addresses: ${refused.join(", ")}`);
    if (unhandled.length > 0) throw new Error(`the server would have ended: ${unhandled.join(", ")}`);
    await say({ command, ...result, tracked: tracked.slice(told), otherCalls });
    told = tracked.length;
  } catch (error) {
    console.error(error);
    await say({ command, error: error.message });
    process.exit(1);
  }
}
process.exit(0);
