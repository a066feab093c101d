// One person at one device: an official client with a cookie jar and the headers a browser behind a CDN would send.

import { dashClient } from "@better-auth/infra/client";
import { createAuthClient } from "better-auth/client";
import { adminClient, organizationClient } from "better-auth/client/plugins";

/** A client of the auth server at `url`; `headers` are sent with every request, as a browser and a CDN would. */
export function device(url, headers) {
  const jar = new Map();
  return createAuthClient({
    baseURL: url,
    plugins: [dashClient(), organizationClient({ teams: { enabled: true } }), adminClient()],
    fetchOptions: {
      customFetchImpl: async (input, init) => {
        const all = new Headers(init.headers);
        for (const [name, value] of Object.entries(headers)) all.set(name, value);
        // The server refuses cookies without an origin.
        all.set("origin", url);
        if (jar.size > 0) all.set("cookie", [...jar].map(([name, value]) => `${name}=${value}`).join("; "));
        const response = await fetch(input, { ...init, headers: all });
        response.headers.getSetCookie().forEach((line) => store(jar, line));
        return response;
      },
    },
  });
}

function store(jar, line) {
  const [pair, ...attributes] = line.split(";").map((part) => part.trim());
  const name = pair.slice(0, pair.indexOf("="));
  if (attributes.some((attribute) => attribute.toLowerCase() === "max-age=0")) jar.delete(name);
  else jar.set(name, pair.slice(name.length + 1));
}

/** The data of a client call; throws what the server said if it was refused. */
export async function answer(call) {
  const { data, error } = await call;
  if (error) throw new Error(`answered ${error.status}: ${error.message ?? error.statusText}`);
  return data;
}

/** The refusal of a client call; throws if it was not refused with `status`. */
export async function refusal(call, status) {
  const { error } = await call;
  if (error?.status !== status) throw new Error(`expected a refusal with ${status}, got ${error ? error.status : "an answer"}`);
  return error;
}
