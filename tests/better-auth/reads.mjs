// Every read the plugin offers to a client, and who is refused.

import { answer } from "./person.mjs";

const PAGE = 7;

/** Asks everything and keeps each answer under a name, with its status; nothing is judged here. */
export async function reads(world) {
  const { ann, bob, dave, organizationId } = world;
  const session = await answer(ann.device.getSession());
  const logs = (input) => ann.device.dash.getAuditLogs({ session, ...input });
  const allLogs = (input, person = ann) => person.device.dash.getAllAuditLogs(input);
  const route = (path, query, person = ann) => person.device.$fetch(path, { method: "GET", query });

  const asked = {
    own: () => logs({ limit: 100 }),
    ownByType: () => logs({ limit: 100, eventType: "profile_updated" }),
    // The plugin compares the names it sends, so a name of its documentation finds nothing here.
    ownByDocumentedName: () => logs({ limit: 100, eventType: "user_profile_updated" }),
    organization: () => logs({ limit: 100, organizationId }),
    organizationByType: () => logs({ limit: 100, organizationId, eventType: "organization_member_invited" }),
    organizationByIdentifier: () => logs({ limit: 100, organizationId, identifier: bob.email }),

    list: () => route("/events/list", { limit: 100 }),
    listByType: () => route("/events/list", { limit: 100, eventType: "profile_updated" }),
    auditLogs: () => route("/events/audit-logs", { limit: 100 }),
    all: () => route("/events/all-audit-logs", { limit: 100 }),
    allOfOrganization: () => allLogs({ limit: 100, organizationId }),
    allByType: () => allLogs({ limit: 100, organizationId, eventType: "organization_member_invited" }),
    allByIdentifier: () => allLogs({ limit: 100, organizationId, identifier: bob.email }),
    allOfUser: () => allLogs({ limit: 100, userId: bob.id }),
    allAsAdminOfOrganization: () => allLogs({ limit: 100, organizationId }, bob),
    types: () => route("/events/types"),

    refusedForeignUser: () => logs({ userId: bob.id }),
    refusedForeignOrganization: () => dave.device.dash.getAuditLogs({ organizationId }),
    // The plugin wants the organization to be the session's active one, which it is not after a new sign-in.
    refusedInactiveOrganization: () => bob.device.dash.getAuditLogs({ organizationId }),
    refusedAllWithoutRole: () => allLogs({}, dave),
    refusedAllOfForeignOrganization: () => allLogs({ organizationId }, dave),
    refusedUserAndOrganization: () => allLogs({ userId: bob.id, organizationId }),
    refusedWithoutSession: () => world.stranger.dash.getAuditLogs({ userId: ann.id }),
  };

  const answers = {};
  for (const [name, ask] of Object.entries(asked)) answers[name] = kept(await ask());
  answers.ownPages = await pages(logs);
  return answers;
}

// The fetch-all loop of the plugin's README, in pages small enough to need several.
async function pages(logs) {
  const all = [];
  for (let offset = 0; ; offset += PAGE) {
    const page = await answer(logs({ limit: PAGE, offset }));
    all.push(page);
    if (page.events.length < PAGE) return all;
  }
}

function kept({ data, error }) {
  return error ? { status: error.status, error: error.message ?? error.statusText } : { status: 200, data };
}
