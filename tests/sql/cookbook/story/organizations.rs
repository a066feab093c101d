//! What happens in organizations: members, roles, invitations.

use serde_json::{Value, json};

use super::{Device, Story, email, extend};

/// An invitation, as its reports tell it.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Invitation {
    pub(in super::super) id: &'static str,
    pub(in super::super) organization: &'static str,
    pub(in super::super) to: &'static str,
    pub(in super::super) role: &'static str,
}

impl Story {
    /// A report about an organization; the plugin names `by` as who did it.
    fn of_organization(&mut self, event_type: &str, at: &str, by: &str, more: Value, from: Device) {
        let mut data = json!({
            "organizationId": at, "organizationSlug": at, "organizationName": at,
            "triggeredBy": by, "triggerContext": "organization",
        });
        extend(&mut data, more);
        self.report(event_type, at, &data, from);
    }

    /// Founds an organization, and is its owner.
    pub(in super::super) fn founds(
        &mut self,
        user: &str,
        organization: &str,
        from: Device,
    ) -> &mut Self {
        self.is_added(user, organization, "owner", from);
        self.of_organization("organization_created", organization, user, json!({}), from);
        self
    }

    pub(in super::super) fn renames(
        &mut self,
        user: &str,
        organization: &str,
        from: Device,
    ) -> &mut Self {
        self.of_organization("organization_updated", organization, user, json!({}), from);
        self
    }

    /// Is added as a member, by whom is not told.
    pub(in super::super) fn is_added(
        &mut self,
        user: &str,
        organization: &str,
        role: &str,
        from: Device,
    ) -> &mut Self {
        let mut more = member(user, organization);
        extend(&mut more, json!({"role": role}));
        self.of_organization("organization_member_added", organization, user, more, from);
        self
    }

    pub(in super::super) fn is_removed(
        &mut self,
        user: &str,
        organization: &str,
        role: &str,
        from: Device,
    ) -> &mut Self {
        let mut more = member(user, organization);
        extend(&mut more, json!({"role": role}));
        self.of_organization(
            "organization_member_removed",
            organization,
            user,
            more,
            from,
        );
        self
    }

    /// Gets another role, from whom is not told.
    pub(in super::super) fn gets_role(
        &mut self,
        user: &str,
        organization: &str,
        [old, new]: [&str; 2],
        from: Device,
    ) -> &mut Self {
        let mut more = member(user, organization);
        extend(&mut more, json!({"oldRole": old, "newRole": new}));
        self.of_organization(
            "organization_member_role_updated",
            organization,
            user,
            more,
            from,
        );
        self
    }

    pub(in super::super) fn invites(
        &mut self,
        inviter: &str,
        invitation: Invitation,
        from: Device,
    ) -> &mut Self {
        let more = json!({
            "inviterId": inviter, "inviterName": inviter, "inviterEmail": email(inviter),
        });
        self.of_invitation("invited", invitation, inviter, more, from)
    }

    pub(in super::super) fn accepts(
        &mut self,
        user: &str,
        invitation: Invitation,
        from: Device,
    ) -> &mut Self {
        let more = json!({
            "acceptedById": user, "acceptedByEmail": email(user), "acceptedByName": user,
            "memberId": format!("member {user}"), "memberRole": invitation.role,
        });
        self.of_invitation("invite_accepted", invitation, user, more, from)
    }

    pub(in super::super) fn rejects(
        &mut self,
        user: &str,
        invitation: Invitation,
        from: Device,
    ) -> &mut Self {
        let more = json!({"rejectedById": user});
        self.of_invitation("invite_rejected", invitation, user, more, from)
    }

    pub(in super::super) fn cancels(
        &mut self,
        user: &str,
        invitation: Invitation,
        from: Device,
    ) -> &mut Self {
        let more = json!({"cancelledById": user});
        self.of_invitation("invite_canceled", invitation, user, more, from)
    }

    fn of_invitation(
        &mut self,
        what: &str,
        invitation: Invitation,
        by: &str,
        more: Value,
        from: Device,
    ) -> &mut Self {
        let mut data = json!({
            "inviteeId": invitation.id, "inviteeEmail": email(invitation.to),
            "inviteeRole": invitation.role, "inviteeTeamId": null,
        });
        extend(&mut data, more);
        let event_type = format!("organization_member_{what}");
        self.of_organization(&event_type, invitation.organization, by, data, from);
        self
    }
}

fn member(user: &str, organization: &str) -> Value {
    json!({
        "userId": user, "memberName": user, "memberEmail": email(user),
        "memberId": format!("member {user} of {organization}"),
    })
}
