// One organization with members, invitations of all four ends, and teams.

import { answer } from "./person.mjs";

export async function organizationSteps(world, step) {
  await foundationSteps(world, step);
  await invitationSteps(world, step);
  await teamSteps(world, step);
  await memberSteps(world, step);
}

const organization = (person) => person.device.organization;

async function foundationSteps(world, step) {
  const { ann } = world;
  // The owner and a first team come with it.
  const FOUNDED = ["organization_created", "organization_member_added", "organization_team_created", "security_check"];
  await step("ann creates the organization", FOUNDED, async () => {
    const { id } = await answer(organization(ann).create({ name: "Acme", slug: "acme" }));
    world.organizationId = id;
  });
  await step("ann renames the organization", ["organization_updated"], async () => {
    await answer(organization(ann).update({ organizationId: world.organizationId, data: { name: "Acme Limited" } }));
  });
}

async function invitationSteps({ ann, bob, carol, organizationId }, step) {
  let invitationId;
  const invite = (person, name) => step(name, ["organization_member_invited", "security_check"], async () => {
    const { id } = await answer(organization(ann).inviteMember({ email: person.email, role: "member", organizationId }));
    invitationId = id;
  });

  await invite(bob, "ann invites bob");
  await step("bob accepts", ["organization_member_invite_accepted"], async () => {
    await answer(organization(bob).acceptInvitation({ invitationId }));
  });

  await invite(carol, "ann invites carol");
  await step("carol rejects", ["organization_member_invite_rejected"], async () => {
    await answer(organization(carol).rejectInvitation({ invitationId }));
  });

  await invite(carol, "ann invites carol again");
  await step("ann cancels the invitation", ["organization_member_invite_canceled"], async () => {
    await answer(organization(ann).cancelInvitation({ invitationId }));
  });

  await invite(carol, "ann invites carol for good");
  await step("carol accepts", ["organization_member_invite_accepted"], async () => {
    await answer(organization(carol).acceptInvitation({ invitationId }));
  });
}

async function teamSteps(world, step) {
  const { ann, bob, organizationId } = world;
  await step("ann creates a team", ["organization_team_created"], async () => {
    const { id } = await answer(organization(ann).createTeam({ name: "Blue", organizationId }));
    world.teamId = id;
  });
  const { teamId } = world;
  await step("ann renames the team", ["organization_team_updated"], async () => {
    await answer(organization(ann).updateTeam({ teamId, data: { name: "Green", organizationId } }));
  });
  await step("ann adds bob to the team", ["organization_team_member_added"], async () => {
    await answer(organization(ann).addTeamMember({ teamId, userId: bob.id }));
  });
  await step("ann removes bob from the team", ["organization_team_member_removed"], async () => {
    await answer(organization(ann).removeTeamMember({ teamId, userId: bob.id }));
  });
  await step("ann creates and deletes a team", ["organization_team_created", "organization_team_deleted"], async () => {
    const { id } = await answer(organization(ann).createTeam({ name: "Short-lived", organizationId }));
    await answer(organization(ann).removeTeam({ teamId: id, organizationId }));
  });
}

async function memberSteps({ ann, bob, carol, organizationId }, step) {
  // Bob stays an admin of the organization, so that a second person may write to it and read all of it.
  await step("ann makes bob an admin of the organization", ["organization_member_role_updated"], async () => {
    const { members } = await answer(organization(ann).listMembers({ query: { organizationId } }));
    const { id } = members.find(({ userId }) => userId === bob.id);
    await answer(organization(ann).updateMemberRole({ memberId: id, role: "admin", organizationId }));
  });
  await step("ann removes carol from the organization", ["organization_member_removed"], async () => {
    await answer(organization(ann).removeMember({ memberIdOrEmail: carol.email, organizationId }));
  });
}
