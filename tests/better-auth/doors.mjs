// The plugin opens `/dash/*` on the auth server to whoever its `apiUrl` vouches for: the keys that sign calls of the vendor's
// dashboard, and the invitations that sign a person in, are asked from there. A forged key and a forged invitation try both.
//
// A failing key request is a rejection nobody handles (`prefetchJWKS` in the plugin), which ends a plain Node process. It is
// caught here to be told, so that one request of a stranger does not end the test instead of failing it.

export const unhandled = [];
process.on("unhandledRejection", (error) => unhandled.push(String(error)));

/** Knocks without any right and tells how the server answered, and whether a real one would have died of it. */
export async function doors({ stranger }) {
  const knock = async (path, options) => {
    const { error } = await stranger.$fetch(path, { method: "GET", ...options });
    return { status: error?.status ?? 200 };
  };
  const before = unhandled.length;
  return {
    dashboard: await knock("/dash/config", { headers: { authorization: "Bearer a.forged.token" } }),
    invitation: await knock("/dash/accept-invitation", { query: { token: "forged" } }),
    unhandled: unhandled.splice(before),
  };
}
