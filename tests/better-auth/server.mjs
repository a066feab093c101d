// A Better Auth server as a user would set it up: the dash and sentinel plugins point at our address, nothing else about them
// is changed.

import { createServer } from "node:http";
import { dash, sentinel } from "@better-auth/infra";
import { betterAuth } from "better-auth";
import { memoryAdapter } from "better-auth/adapters/memory";
import { toNodeHandler } from "better-auth/node";
import { admin, organization } from "better-auth/plugins";

const TABLES = ["user", "session", "account", "verification", "organization", "member", "invitation", "team", "teamMember"];

/** Starts the server on a free port of 127.0.0.1; `mailbox` holds the newest token per kind and address, in place of e-mail. */
export async function startAuthServer({ auditUrl, apiKey }) {
  const database = Object.fromEntries(TABLES.map((table) => [table, []]));
  const mailbox = new Map();
  const deliver = (kind) => async ({ user, token }) => void mailbox.set(`${kind} ${user.email}`, token);

  // The address is part of the configuration, so the port must be known before the server is.
  let handle;
  const http = createServer((request, response) => handle(request, response));
  await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${http.address().port}`;

  // Without `kvUrl` the plugin sends the key to the vendor's address, so both are always set.
  const connection = { apiUrl: auditUrl, kvUrl: auditUrl, apiKey };

  const auth = betterAuth({
    baseURL: url,
    secret: "a secret of the test, as long as a real one",
    database: memoryAdapter(database),
    telemetry: { enabled: false },
    // The driver is quicker than people are.
    rateLimit: { enabled: false },
    logger: { log: (level, message, ...rest) => console.error(level, message, ...rest) },
    emailAndPassword: { enabled: true, sendResetPassword: deliver("reset") },
    emailVerification: { sendVerificationEmail: deliver("verify") },
    user: { deleteUser: { enabled: true } },
    socialProviders: { google: localGoogle },
    plugins: [
      organization({ teams: { enabled: true } }),
      admin(),
      dash(connection),
      sentinel({
        ...connection,
        security: {
          credentialStuffing: { enabled: true, thresholds: { challenge: 3, block: 5 } },
          impossibleTravel: { enabled: true },
          compromisedPassword: { enabled: true },
        },
      }),
    ],
  });
  handle = toNodeHandler(auth);

  return { url, mailbox, database };
}

// A second account can only be linked through a social provider. The token is checked here instead of at Google, so that no
// test leaves the machine.
const localGoogle = {
  clientId: "local",
  clientSecret: "local",
  verifyIdToken: async (token) => token.startsWith("local:"),
  getUserInfo: async ({ idToken }) => {
    const email = idToken.slice("local:".length);
    const id = `google ${email}`;
    return { user: { id, email, name: email, emailVerified: true }, data: { sub: id } };
  },
};
