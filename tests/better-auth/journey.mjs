// The whole life of an auth server in named steps. Each step says which events it must cause, so a change of the plugin is
// noticed at the step that changed and not as a difference of two long lists.

import { accountSteps, closingSteps } from "./account-steps.mjs";
import { adminSteps } from "./admin-steps.mjs";
import { organizationSteps } from "./organization-steps.mjs";
import { device } from "./person.mjs";
import { refused, settled, step, tracked } from "./recorder.mjs";
import { seedWalks } from "./walk.mjs";

// Addresses of documentation ranges; every person has an own one, so that answers can be told apart by place as well.
const PEOPLE = {
  ann: ["203.0.113.1", "DE"],
  bob: ["203.0.113.2", "FR"],
  carol: ["198.51.100.3", "JP"],
  dave: ["198.51.100.4", "BR"],
};

/** The state the steps share: who is who, and what was created on the way. */
export function newWorld(server) {
  const people = Object.entries(PEOPLE).map(([name, [ip, country]]) => {
    const headers = { "user-agent": `journey/1.0 (${name})`, "cf-connecting-ip": ip, "cf-ipcountry": country };
    const account = { name, email: `${name}@example.com`, password: `a good password of ${name}` };
    return [name, { ...account, headers, device: device(server.url, headers) }];
  });
  // Somebody who never signs in, and whose address nobody knows.
  const stranger = device(server.url, { "user-agent": "journey/1.0 (stranger)" });
  return { ...server, ...Object.fromEntries(people), stranger, steps: [] };
}

/** Walks through all steps; throws at the first that fails, with its name. */
export async function journey(world) {
  const run = (name, expected, action) => runStep(world, name, expected, action);
  await accountSteps(world, run);
  await organizationSteps(world, run);
  await adminSteps(world, run);
  await closingSteps(world, run);
  await seedWalks(world, run);
  return {
    users: Object.fromEntries(Object.keys(PEOPLE).map((name) => [name, world[name].id])),
    organizationId: world.organizationId,
    teamId: world.teamId,
    steps: world.steps,
  };
}

async function runStep(world, name, expected, action) {
  const before = tracked.length;
  step.name = name;
  try {
    await action();
    await settled(before + expected.length);
    if (refused.length > 0) throw new Error(`calls to foreign addresses: ${refused.join(", ")}`);
    const seen = tracked.slice(before).map(({ body }) => body.eventType).sort();
    const wanted = [...expected].sort();
    if (seen.join() !== wanted.join()) throw new Error(`tracked [${seen.join(", ")}] instead of [${wanted.join(", ")}]`);
  } catch (error) {
    throw new Error(`step "${name}" failed: ${error.message}`, { cause: error });
  }
  step.name = null;
  world.steps.push(name);
}
