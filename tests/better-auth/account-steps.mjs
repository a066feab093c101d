// Sign-up, sign-in, profile, e-mail, passwords, accounts, sessions, deletion: what people do with their own account.

import { answer, device, refusal } from "./person.mjs";

const SIGN_UP = ["user_created", "account_linked", "user_signed_in", "session_created", "security_check"];
const SIGN_IN = ["user_signed_in", "session_created", "security_check"];

const signIn = ({ email, password }, at) => answer(at.signIn.email({ email, password }));

/** Everything an account goes through while it lives. */
export async function accountSteps(world, step) {
  await signUpSteps(world, step);
  await failedSignInSteps(world, step);
  await profileSteps(world, step);
  await passwordSteps(world, step);
  await linkingSteps(world, step);

  // The only requests with the headers of the plugin's browser fingerprint script; they make the server ask who the visitor is.
  const { dave } = world;
  await step("dave signs in at a second, identified device", SIGN_IN, async () => {
    dave.second = device(world.url, {
      ...dave.headers,
      "user-agent": "journey/1.0 (dave, second)",
      "x-visitor-id": "visitor of dave",
      "x-request-id": `request-${dave.id}`,
    });
    await signIn(dave, dave.second);
  });
}

async function signUpSteps({ ann, bob, carol, dave, mailbox }, step) {
  for (const person of [ann, bob, carol, dave]) {
    await step(`${person.name} signs up`, SIGN_UP, async () => {
      const { name, email, password } = person;
      const { user } = await answer(person.device.signUp.email({ name, email, password }));
      person.id = user.id;
    });
  }
  for (const person of [ann, bob, carol]) {
    await step(`${person.name} asks for the verification e-mail`, ["email_verification_sent", "security_check"], async () => {
      await answer(person.device.sendVerificationEmail({ email: person.email }));
    });
    await step(`${person.name} verifies the address`, ["email_verified"], async () => {
      await answer(person.device.verifyEmail({ query: { token: mailbox.get(`verify ${person.email}`) } }));
    });
  }
}

async function failedSignInSteps({ bob, stranger }, step) {
  // The one security event the plugin raises without its vendor: an address whose domain has no dot never passes.
  await step("a sign-up with an impossible address is blocked", ["security_check"], async () => {
    await refusal(stranger.signUp.email({ name: "mallory", email: "mallory@nowhere", password: "a good password" }), 400);
  });
  await step("bob fails to sign in", ["user_sign_in_failed", "security_check"], async () => {
    await refusal(bob.device.signIn.email({ email: bob.email, password: "not his password" }), 401);
  });
  await step("a stranger fails to sign in", ["user_sign_in_failed", "security_check"], async () => {
    await refusal(stranger.signIn.email({ email: "nobody@example.com", password: "anything at all" }), 401);
  });
}

async function profileSteps({ ann }, step) {
  await step("ann changes her name", ["profile_updated"], async () => {
    await answer(ann.device.updateUser({ name: "Ann Example" }));
  });
  await step("ann changes her picture", ["profile_image_updated"], async () => {
    await answer(ann.device.updateUser({ image: "https://example.com/ann.png" }));
  });
}

async function passwordSteps({ ann, bob, mailbox }, step) {
  await step("ann changes her password", ["password_changed", "security_check"], async () => {
    const newPassword = "another good password of ann";
    await answer(ann.device.changePassword({ currentPassword: ann.password, newPassword }));
    ann.password = newPassword;
  });
  await step("bob asks for a password reset", ["password_reset_requested", "security_check"], async () => {
    await answer(bob.device.requestPasswordReset({ email: bob.email }));
  });
  await step("bob completes the password reset", ["password_reset_completed", "security_check"], async () => {
    bob.password = "another good password of bob";
    await answer(bob.device.resetPassword({ newPassword: bob.password, token: mailbox.get(`reset ${bob.email}`) }));
  });
}

async function linkingSteps({ bob }, step) {
  await step("bob links a second account", ["account_linked", "security_check"], async () => {
    await answer(bob.device.linkSocial({ provider: "google", idToken: { token: `local:${bob.email}` } }));
  });
  await step("bob unlinks the second account", ["account_unlinked"], async () => {
    const accounts = await answer(bob.device.listAccounts());
    await answer(bob.device.unlinkAccount({ accountId: accounts.find(({ providerId }) => providerId === "google").id }));
  });
}

/** Sessions and deletion, last, because they end what the others need. */
export async function closingSteps(world, step) {
  const { bob, carol } = world;

  await step("bob signs in at a second device", SIGN_IN, async () => {
    bob.second = device(world.url, { ...bob.headers, "user-agent": "journey/1.0 (bob, second)" });
    await signIn(bob, bob.second);
  });
  await step("bob revokes the session of the second device", ["session_revoked"], async () => {
    const { session } = await answer(bob.second.getSession());
    await answer(bob.device.revokeSession({ token: session.token }));
  });
  await step("bob revokes all sessions", ["all_sessions_revoked"], () => answer(bob.device.revokeSessions()));
  await step("bob signs in again", SIGN_IN, () => signIn(bob, bob.device));
  await step("bob signs out", ["user_signed_out"], () => answer(bob.device.signOut()));
  await step("bob signs in for good", SIGN_IN, () => signIn(bob, bob.device));

  // Better Auth ends the sessions and accounts of a deleted user one by one, and each is an event.
  await step("carol deletes her account", ["user_deleted", "session_revoked", "account_unlinked"], async () => {
    await answer(carol.device.deleteUser({ password: carol.password }));
  });
}
