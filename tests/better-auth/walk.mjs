// The fetch-all loop of the plugin's README (`offset += limit` until a short page) while new events are being written. Events
// come back without ids, so every write carries a name of its own; a walk is exact if each name written before it comes once.

import { answer } from "./person.mjs";
import { settled, tracked } from "./recorder.mjs";

const LIMIT = 10;
const SEEDED = 25;

/** Writes enough named events for several pages, as steps of the journey. */
export async function seedWalks(world, step) {
  world.walks = [ownWalk(world), organizationWalk(world)];
  for (const walk of world.walks) {
    await step(walk.seeding, Array(SEEDED).fill(walk.eventType), async () => {
      for (let count = 0; count < SEEDED; count += 1) await walk.writeNext();
    });
  }
}

/** Reads the first page of each walk, then writes more than a page; the caller may wait until that is readable. */
export async function beginWalks(world) {
  for (const walk of world.walks) {
    walk.expected = [...walk.written];
    walk.events = [];
    walk.pages = [];
    await walk.readPage(0);
    for (let count = 0; count <= LIMIT; count += 1) await walk.writeNext();
  }
  await settled(tracked.length);
}

/** Reads the rest of each walk, one write under way beside every page. */
export async function endWalks(world) {
  const answers = {};
  for (const walk of world.walks) {
    for (let offset = LIMIT; walk.pages.at(-1) === LIMIT; offset += LIMIT) {
      await Promise.all([walk.readPage(offset), walk.writeNext()]);
    }
    const { expected, written, events, pages, eventType, nameIn } = walk;
    const named = events.filter((event) => event.eventType === eventType).map((event) => event.eventData[nameIn]);
    answers[walk.name] = {
      limit: LIMIT,
      pages,
      expected,
      created: written.slice(expected.length),
      seen: named.filter((name) => written.includes(name)),
      events,
    };
  }
  await settled(tracked.length);
  return answers;
}

// Dave reads his own events at one device and changes his name at the other.
function ownWalk({ dave }) {
  return namedWalk({
    name: "own",
    seeding: "dave changes his name many times",
    eventType: "profile_updated",
    nameIn: "userName",
    write: (name) => answer(dave.second.updateUser({ name })),
    read: async (page) => answer(dave.device.dash.getAuditLogs({ session: await answer(dave.device.getSession()), ...page })),
  });
}

// Ann reads the organization while bob renames its team. `getAuditLogs` with an organization drops other people's events after
// paging, so its pages are short from the start and the loop ends at once; `getAllAuditLogs` is the call that can be walked.
function organizationWalk({ ann, bob, organizationId, teamId }) {
  return namedWalk({
    name: "organization",
    seeding: "bob renames the team many times",
    eventType: "organization_team_updated",
    nameIn: "teamName",
    write: (name) => answer(bob.device.organization.updateTeam({ teamId, data: { name, organizationId } })),
    read: (page) => answer(ann.device.dash.getAllAuditLogs({ organizationId, ...page })),
  });
}

function namedWalk({ write, read, ...walk }) {
  return Object.assign(walk, {
    written: [],
    async writeNext() {
      const name = `${walk.name} ${String(walk.written.length + 1).padStart(3, "0")}`;
      walk.written.push(name);
      await write(name);
    },
    async readPage(offset) {
      const { events } = await read({ limit: LIMIT, offset });
      walk.events.push(...events);
      walk.pages.push(events.length);
    },
  });
}
