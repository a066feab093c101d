//! Stories of organizations: members, roles, invitations.

use super::story::{Invitation, NOWHERE, Story, device};

/// Who belongs to `org-1` changes around noon of the tenth.
pub(super) fn access_to_an_organization(story: &mut Story) {
    let office = device("192.0.2.10", "DE");
    let to_carl = Invitation {
        id: "i1",
        organization: "org-1",
        to: "carl",
        role: "member",
    };
    story.at("2026-03-01 09:00").founds("ann", "org-1", office);
    story
        .at("2026-03-02 09:00")
        .is_added("bob", "org-1", "member", office);
    story.at("2026-03-03 09:00").invites("ann", to_carl, office);
    story
        .at("2026-03-04 09:00")
        .accepts("carl", to_carl, office);
    story
        .at("2026-03-05 09:00")
        .gets_role("bob", "org-1", ["member", "admin"], office);
    // Left and came back.
    story
        .at("2026-03-02 10:00")
        .is_added("dora", "org-1", "admin", office);
    story
        .at("2026-03-03 10:00")
        .is_removed("dora", "org-1", "admin", office);
    story
        .at("2026-03-09 10:00")
        .is_added("dora", "org-1", "member", office);

    // Left before, deleted before, came later, is invited, belongs to another; and what changes later.
    story
        .at("2026-03-02 11:00")
        .is_added("emil", "org-1", "admin", office);
    story
        .at("2026-03-10 11:59")
        .is_removed("emil", "org-1", "admin", office);
    story
        .at("2026-03-02 12:00")
        .is_added("fay", "org-1", "member", office);
    story
        .at("2026-03-08 12:00")
        .deletes_the_account("fay", "s-fay", office);
    story
        .at("2026-03-10 12:01")
        .is_added("gus", "org-1", "owner", office);
    let to_hana = Invitation {
        id: "i2",
        to: "hana",
        ..to_carl
    };
    story.at("2026-03-04 13:00").invites("ann", to_hana, office);
    story
        .at("2026-03-04 14:00")
        .is_added("ida", "org-2", "owner", office);
    story
        .at("2026-03-11 09:00")
        .is_removed("carl", "org-1", "member", office);
    story
        .at("2026-03-11 10:00")
        .gets_role("bob", "org-1", ["admin", "owner"], office);
}

/// An invitation for each end that there is.
pub(super) fn open_invitations(story: &mut Story) {
    let office = device("192.0.2.10", "DE");
    let to = |id, to| Invitation {
        id,
        organization: "acme",
        to,
        role: "admin",
    };
    story.at("2026-03-01 09:00").founds("ann", "acme", office);
    story
        .at("2026-03-02 09:00")
        .invites("ann", to("i1", "bob"), office);
    story
        .at("2026-03-12 09:00")
        .invites("ann", to("i2", "carl"), office);
    story
        .at("2026-03-16 09:00")
        .invites("ann", to("i3", "carl"), office);
    // Rejected once, and invited again.
    story
        .at("2026-03-03 09:00")
        .invites("ann", to("i4", "dora"), office);
    story
        .at("2026-03-04 09:00")
        .rejects("dora", to("i4", "dora"), office);
    let as_member = Invitation {
        role: "member",
        ..to("i5", "dora")
    };
    story
        .at("2026-03-05 09:00")
        .invites("ann", as_member, office);

    story
        .at("2026-03-06 09:00")
        .invites("ann", to("i6", "emil"), office);
    story
        .at("2026-03-07 09:00")
        .accepts("emil", to("i6", "emil"), office);
    story
        .at("2026-03-06 10:00")
        .invites("ann", to("i7", "fay"), office);
    story
        .at("2026-03-07 10:00")
        .cancels("ann", to("i7", "fay"), office);
    story
        .at("2026-03-28 09:00")
        .invites("ann", to("i8", "gus"), office);
    story
        .at("2026-04-01 09:00")
        .invites("ann", to("i9", "hana"), office);
    // The first of two is still there, but the second was accepted.
    story
        .at("2026-03-06 11:00")
        .invites("ann", to("i10", "ida"), office);
    story
        .at("2026-03-07 11:00")
        .invites("ann", to("i11", "ida"), office);
    story
        .at("2026-03-08 11:00")
        .accepts("ida", to("i11", "ida"), office);
    // Accepted, but later.
    story
        .at("2026-04-02 09:00")
        .accepts("bob", to("i1", "bob"), office);
}

/// Four ways to more rights, and some to as many or fewer.
pub(super) fn privilege_escalation(story: &mut Story) {
    let office = device("192.0.2.10", "DE");
    let home = device("198.51.100.8", "DE");
    story.at("2026-03-01 20:00").signs_in("ann", "s1", office);
    story.at("2026-03-02 08:00").signs_in("bob", "s2", home);
    // By ann, who is in the office; by bob himself, from home; by an invitation; and added.
    story
        .at("2026-03-02 09:00")
        .gets_role("carl", "acme", ["member", "admin"], office);
    story
        .at("2026-03-02 10:00")
        .gets_role("bob", "acme", ["admin", "owner"], home);
    let to_dora = Invitation {
        id: "i1",
        organization: "acme",
        to: "dora",
        role: "admin",
    };
    story.at("2026-02-27 09:00").invites("ann", to_dora, office);
    story
        .at("2026-03-02 11:00")
        .accepts("dora", to_dora, device("198.51.100.9", "AT"));
    story
        .at("2026-03-02 12:00")
        .is_added("emil", "acme", "admin,billing", office);

    // Founders, members, fewer rights, as many, and another day.
    story.at("2026-03-02 13:00").founds("fay", "club", office);
    story.is_added("gus", "acme", "member", office);
    story.gets_role("ann", "acme", ["owner", "member"], office);
    story.gets_role("ida", "acme", ["owner", "admin"], office);
    story.gets_role("hana", "acme", ["admin", "admin,billing"], office);
    story
        .at("2026-03-04 09:00")
        .gets_role("gus", "acme", ["member", "admin"], office);
    // Signed in there too long before, and too late.
    story.at("2026-02-28 08:00").signs_in("kim", "s3", office);
    story.at("2026-03-02 15:00").signs_in("lea", "s4", office);

    // An admin goes; from anywhere; and a wrong password does not make ann somebody who was there.
    story
        .at("2026-03-02 16:00")
        .is_removed("hana", "acme", "admin", office);
    story.at("2026-03-02 07:00").signs_in("max", "s5", NOWHERE);
    story
        .at("2026-03-02 17:00")
        .gets_role("gus", "acme", ["member", "owner"], NOWHERE);
    story.at("2026-03-02 08:30").fails("nia", home);
}
