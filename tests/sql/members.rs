//! `audit_accounts` and `audit_memberships`: what became of users, and where they belonged.

use serde_json::{Value, json};

use crate::stand::{Stand, at, captured, sent, with};

#[tokio::test]
async fn an_account_is_one_row_of_what_became_of_it() {
    let stand = Stand::new("accounts").await;
    let user = |seconds, event_type: &str, more: Value| {
        with(
            sent(seconds, event_type, "ann", more),
            json!({"userId": "ann"}),
        )
    };
    let account = |seconds, event_type: &str, id: &str, provider: &str| {
        user(
            seconds,
            event_type,
            json!({"accountId": id, "providerId": provider}),
        )
    };
    let mail = |address: &str| json!({"userEmail": address});
    stand
        .fill(&[
            user(0, "user_created", mail("ann@example.com")),
            account(1, "account_linked", "a1", "credential"),
            account(2, "account_linked", "a2", "google"),
            account(3, "account_linked", "a3", "github"),
            account(4, "account_unlinked", "a2", "google"),
            user(5, "email_verified", mail("ann@example.org")),
            user(6, "user_signed_in", mail("ann@example.org")),
            user(7, "user_sign_in_failed", json!({})),
            user(8, "password_changed", json!({})),
            user(
                9,
                "user_banned",
                json!({"banReason": "spam", "banExpires": "2026-03-02T11:00:00.000Z"}),
            ),
            user(10, "user_unbanned", json!({})),
            user(
                11,
                "user_banned",
                json!({"banReason": "again", "banExpires": null}),
            ),
            // A ban that has ended by itself.
            sent(
                12,
                "user_banned",
                "bob",
                json!({"userId": "bob", "banExpires": "2026-03-02T11:00:00.000Z"}),
            ),
            sent(
                13,
                "user_deleted",
                "bob",
                json!({"userId": "bob", "userName": "Bob"}),
            ),
            // An invitation is no user.
            sent(
                14,
                "organization_member_invited",
                "o1",
                json!({"organizationId": "o1", "inviteeId": "i1"}),
            ),
        ])
        .await;
    assert_eq!(
        stand
            .rows("SELECT * FROM audit_accounts ORDER BY user_id")
            .await,
        [
            json!({
                "project_id": "acme", "user_id": "ann", "last_identifier": "ann@example.org",
                "signed_up_at": at(0), "verified_at": at(5), "last_sign_in_at": at(6), "sign_ins": 1,
                "failures": 1, "password_changed_at": at(8), "providers": ["credential", "github"],
                "banned_at": at(11), "ban_expires_at": null, "ban_reason": "again",
                "unbanned_at": at(10), "is_banned": true, "deleted_at": null,
            }),
            json!({
                "project_id": "acme", "user_id": "bob", "last_identifier": "Bob",
                "signed_up_at": null, "verified_at": null, "last_sign_in_at": null, "sign_ins": 0,
                "failures": 0, "password_changed_at": null, "providers": [], "banned_at": at(12),
                "ban_expires_at": at(3600), "ban_reason": "", "unbanned_at": null,
                "is_banned": false, "deleted_at": at(13),
            }),
        ]
    );
}

/// The periods of membership of a query's end, as short rows.
async fn periods(stand: &Stand, end: &str) -> Vec<Value> {
    let sql = format!(
        "SELECT [user_id, role, toString(joined_at), ifNull(toString(left_at), ''), ended_by, \
         added_by, how] AS period FROM audit_memberships {end}"
    );
    let rows = stand.rows(&sql).await;
    rows.into_iter().map(|row| row["period"].clone()).collect()
}

#[tokio::test]
async fn who_had_access_at_a_time_is_a_condition() {
    let stand = Stand::new("memberships").await;
    let of = |seconds, event_type: &str, user: &str, more: Value| {
        let record = sent(seconds, event_type, "o1", more);
        with(record, json!({"organizationId": "o1", "userId": user}))
    };
    let by = |mut record: Value, actor: &str| {
        record["actor"] = json!({"id": actor});
        record
    };
    stand
        .fill(&[
            by(of(0, "organization_member_added", "ann", json!({"role": "owner"})), "ann"),
            by(of(1, "organization_created", "", json!({})), "ann"),
            by(of(2, "organization_member_added", "bob", json!({"role": "member"})), "ann"),
            of(3, "organization_member_role_updated", "bob", json!({"oldRole": "member", "newRole": "admin"})),
            of(4, "organization_member_removed", "bob", json!({"role": "admin"})),
            by(of(5, "organization_member_added", "bob", json!({"role": "member"})), "bob"),
            sent(6, "organization_member_invited", "o1", json!({"organizationId": "o1", "inviteeId": "i1", "inviterId": "ann"})),
            sent(7, "organization_member_invite_accepted", "o1", json!({"organizationId": "o1", "inviteeId": "i1", "acceptedById": "carl", "memberRole": "member"})),
            // Older than the log.
            of(8, "organization_member_role_updated", "dora", json!({"newRole": "owner"})),
            sent(9, "user_deleted", "carl", json!({"userId": "carl"})),
        ])
        .await;
    let time = |seconds: Option<i64>| seconds.map(at).unwrap_or_default();
    let row = |user: &str, role: &str, joined, left, rest: [&str; 3]| {
        json!([
            user,
            role,
            at(joined),
            time(left),
            rest[0],
            rest[1],
            rest[2]
        ])
    };
    assert_eq!(
        periods(&stand, "ORDER BY joined_at").await,
        [
            row("ann", "owner", 0, None, ["", "ann", "created"]),
            row(
                "bob",
                "member",
                2,
                Some(3),
                ["role_changed", "ann", "added"]
            ),
            row("bob", "admin", 3, Some(4), ["removed", "ann", "added"]),
            row("bob", "member", 5, None, ["", "", "added"]),
            row(
                "carl",
                "member",
                7,
                Some(9),
                ["user_deleted", "ann", "invited"]
            ),
            row("dora", "owner", 8, None, ["", "", ""]),
        ]
    );
    for (seconds, expected) in [
        (2, vec!["ann owner", "bob member"]),
        (3, vec!["ann owner", "bob admin"]),
        (4, vec!["ann owner"]),
        (
            8,
            vec!["ann owner", "bob member", "carl member", "dora owner"],
        ),
        (9, vec!["ann owner", "bob member", "dora owner"]),
    ] {
        let t = at(seconds);
        let sql = format!(
            "SELECT concat(user_id, ' ', role) AS member FROM audit_memberships \
             WHERE project_id = 'acme' AND organization_id = 'o1' \
             AND joined_at <= '{t}' AND (left_at IS NULL OR left_at > '{t}') ORDER BY member"
        );
        let rows = stand.rows(&sql).await;
        let members: Vec<_> = rows
            .iter()
            .map(|row| row["member"].as_str().unwrap())
            .collect();
        assert_eq!(members, expected, "{t}");
    }
}

#[tokio::test]
async fn the_memberships_of_a_better_auth_server() {
    let stand = Stand::new("captured_memberships").await;
    stand.fill(&captured()).await;
    let rows = stand
        .rows("SELECT identifier, role, ended_by, how FROM audit_memberships ORDER BY joined_at")
        .await;
    let row = |who: &str, role: &str, ended_by: &str, how: &str| json!({"identifier": who, "role": role, "ended_by": ended_by, "how": how});
    assert_eq!(
        rows,
        [
            row("ann@example.com", "owner", "user_deleted", "created"),
            row("bob@example.com", "member", "role_changed", "invited"),
            row("bob@example.com", "admin", "removed", "invited"),
        ]
    );
}
