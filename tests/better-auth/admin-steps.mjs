// What an administrator of the auth server does to others: ban, unban, impersonate.

import { answer } from "./person.mjs";

export async function adminSteps(world, step) {
  const { ann, carol } = world;

  // The first administrator is always made by the operator in the database; it is no request, hence no event.
  world.database.user.find(({ id }) => id === ann.id).role = "admin";

  await step("ann bans carol", ["user_banned", "session_revoked"], async () => {
    await answer(ann.device.admin.banUser({ userId: carol.id, banReason: "a test of bans" }));
  });
  await step("ann unbans carol", ["user_unbanned"], () => answer(ann.device.admin.unbanUser({ userId: carol.id })));
  await step("carol signs in again", ["user_signed_in", "session_created", "security_check"], async () => {
    await answer(carol.device.signIn.email({ email: carol.email, password: carol.password }));
  });

  await step("ann impersonates carol", ["session_created", "user_impersonated"], async () => {
    await answer(ann.device.admin.impersonateUser({ userId: carol.id }));
  });
  await step("ann stops impersonating", ["session_revoked", "user_impersonated_stopped"], async () => {
    await answer(ann.device.admin.stopImpersonating());
  });
}
