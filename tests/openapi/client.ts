// A client of the query API as anyone would write it, on nothing but types generated from its
// document: what does not compile here is wrong there. It prints what it read as one JSON object.
import createClient from "openapi-fetch";
import type { components, paths } from "./api.js";

type AuditLog = components["schemas"]["AuditLog"];

const { AUDIT_URL, AUDIT_API_KEY } = process.env;
if (!AUDIT_URL || !AUDIT_API_KEY) throw new Error("set AUDIT_URL and AUDIT_API_KEY");

const client = createClient<paths>({
  baseUrl: AUDIT_URL,
  headers: { "x-api-key": AUDIT_API_KEY },
  // What a parameter of the document is by default, and openapi-fetch is not.
  querySerializer: { object: { style: "form", explode: true } },
});

/** The answer, or the API's reason why there is none. */
function answered<T>(result: { data?: T; error?: components["schemas"]["Error"] }): T {
  if (result.data !== undefined) return result.data;
  throw new Error(result.error?.error.message ?? "no answer");
}

/** Who an event is about, and where they were; what may be null has to be looked at. */
function about(event: AuditLog): string {
  const where: string = event.location.country?.toUpperCase() ?? "somewhere";
  return `${event.userId ?? "nobody"} ${event.documentedType ?? event.eventType} ${where}`;
}

/** All pages of everybody's sign-ins but one user's. */
async function walk(): Promise<AuditLog[]> {
  const query = { eventType: ["user_signed_in"], "not.userId": ["ann"], limit: 2 };
  const seen: AuditLog[] = [];
  for (let cursor: string | undefined; ; ) {
    const page = answered(
      await client.GET("/v1/audit-logs", { params: { query: { ...query, cursor } } }),
    );
    seen.push(...page.events);
    if (page.nextCursor === null) return seen;
    cursor = page.nextCursor;
  }
}

const some = answered(
  await client.GET("/v1/audit-logs", {
    params: {
      query: {
        userId: ["ann", "bob"],
        data: { "data.loginMethod": "passkey" },
        outcome: ["success"],
        from: "-24h",
        order: "asc",
      },
    },
  }),
);
const posted = answered(
  await client.POST("/v1/audit-logs/query", {
    body: {
      userId: ["bob", "carol"],
      "data": { attempt: 2 },
      limit: 10,
      session: { user: { id: "ann" } },
    },
  }),
);
const stats = answered(
  await client.GET("/v1/audit-logs/stats", {
    params: { query: { by: "userId", bucket: "day", top: 2, asOf: some.asOf } },
  }),
);
const ofUsers: number[] = stats.buckets.flatMap((bucket) => Object.values(bucket.values ?? {}));
const [first] = some.events;
if (first === undefined) throw new Error("no events");
const one = answered(
  await client.GET("/v1/audit-logs/{id}", { params: { path: { id: first.id } } }),
);
const types = answered(await client.GET("/v1/event-types"));
const refused = await client.GET("/v1/audit-logs", { params: { query: { userId: [""] } } });
const plugin = answered(
  await client.GET("/events/user", { params: { query: { userId: "carol", limit: "1" } } }),
);

console.log(
  JSON.stringify({
    some: some.events.map(about),
    walked: (await walk()).map((event) => event.userId),
    posted: posted.events.map(about),
    counted: stats.values.map(({ value, count }) => `${value} ${count}`),
    ofUsers: ofUsers.reduce((sum, count) => sum + count, 0),
    one: one.eventData,
    wire: types.eventTypes.find(({ name }) => name === "user_signed_up")?.wireName,
    refused: refused.error?.error.code,
    plugin: [plugin.total, plugin.events.length],
  }),
);
