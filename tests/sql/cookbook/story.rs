//! A story: what people do, told as the records that the plugin's reports become.

mod organizations;

use std::net::IpAddr;

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use uuid::Uuid;

pub(super) use organizations::Invitation;

pub(super) const FIREFOX: &str =
    "Mozilla/5.0 (X11; Linux x86_64; rv:131.0) Gecko/20100101 Firefox/131.0";
pub(super) const NEWER_FIREFOX: &str =
    "Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0";
pub(super) const SCRIPT: &str = "python-requests/2.32.3";

/// What a request comes from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Device {
    address: Option<IpAddr>,
    country_code: &'static str,
    agent: &'static str,
}

impl Device {
    /// The same address, another program.
    pub(super) fn with(self, agent: &'static str) -> Self {
        Self { agent, ..self }
    }
}

/// A Firefox at this address, in this country.
pub(super) fn device(address: &str, country_code: &'static str) -> Device {
    Device {
        address: Some(address.parse().unwrap()),
        country_code,
        agent: FIREFOX,
    }
}

/// The plugin was not told of an address.
pub(super) const NOWHERE: Device = Device {
    address: None,
    country_code: "",
    agent: FIREFOX,
};

/// What happens in one project, in order; each report is a second later than the one before.
///
/// Users are named by their ids, and have the e-mail address `<id>@example.com`.
#[derive(Debug)]
pub(super) struct Story {
    project: &'static str,
    later: TimeDelta,
    now: DateTime<Utc>,
    records: Vec<Value>,
}

impl Story {
    /// Nothing has happened yet.
    pub(super) fn of(project: &'static str) -> Self {
        Self::days_later(project, 0)
    }

    /// … and what happens is so many days later than told.
    pub(super) fn days_later(project: &'static str, days: i64) -> Self {
        Self {
            project,
            later: TimeDelta::days(days),
            now: DateTime::UNIX_EPOCH,
            records: Vec::new(),
        }
    }

    /// Everything that happened.
    pub(super) fn records(self) -> Vec<Value> {
        self.records
    }

    /// The same, as it happens to other people.
    pub(super) fn records_of_others(mut self) -> Vec<Value> {
        let people = [
            "userId",
            "userEmail",
            "memberEmail",
            "inviteeEmail",
            "acceptedById",
            "inviterId",
            "impersonatedById",
            "triggeredBy",
            "sessionId",
            "inviteeId",
        ];
        for record in &mut self.records {
            for name in people {
                if let Some(Value::String(text)) = record["eventData"].get_mut(name)
                    && text != "unknown"
                {
                    text.insert_str(0, "other-");
                }
            }
        }
        self.records
    }

    /// It is now this time, such as `2026-03-02 10:00`.
    pub(super) fn at(&mut self, time: &str) -> &mut Self {
        let time = NaiveDateTime::parse_from_str(time, "%Y-%m-%d %H:%M").unwrap();
        self.now = time.and_utc() + self.later;
        self
    }

    /// So many minutes pass.
    pub(super) fn minutes(&mut self, minutes: i64) -> &mut Self {
        self.now += TimeDelta::minutes(minutes);
        self
    }

    fn report(&mut self, event_type: &str, key: &str, data: &Value, from: Device) -> &mut Self {
        self.records.push(json!({
            "id": Uuid::now_v7(),
            "projectId": self.project,
            "createdAt": self.now.timestamp_millis(),
            "eventType": event_type,
            "eventKey": key,
            "eventDisplayName": event_type.replace('_', " "),
            "eventData": data,
            "location": {
                "ipAddress": from.address,
                "country": from.country_code,
                "countryCode": from.country_code,
            },
        }));
        self.now += TimeDelta::seconds(1);
        self
    }

    /// A report about a user.
    fn of_user(&mut self, event_type: &str, user: &str, by: By, more: Value, from: Device) {
        let mut data = json!({"userId": user, "userName": user, "userEmail": email(user)});
        extend(&mut data, more);
        extend(&mut data, by.data(user));
        self.report(event_type, user, &data, from);
    }

    /// A report about a session.
    fn of_session(&mut self, event_type: &str, user: &str, session: &str, by: By, from: Device) {
        let more = json!({"sessionId": session, "loginMethod": "email", "userAgent": from.agent});
        self.of_user(event_type, user, by, more, from);
    }

    /// Signs up, which begins a session.
    pub(super) fn signs_up(&mut self, user: &str, session: &str, from: Device) -> &mut Self {
        self.of_user("user_created", user, By::User, json!({}), from);
        let account = json!({"accountId": user, "providerId": "credential"});
        self.of_user("account_linked", user, By::User, account, from);
        self.signs_in(user, session, from)
    }

    pub(super) fn verifies(&mut self, user: &str, from: Device) -> &mut Self {
        self.of_user("email_verified", user, By::User, json!({}), from);
        self
    }

    pub(super) fn signs_in(&mut self, user: &str, session: &str, from: Device) -> &mut Self {
        self.of_session("user_signed_in", user, session, By::User, from);
        self.of_session("session_created", user, session, By::User, from);
        self
    }

    pub(super) fn fails(&mut self, user: &str, from: Device) -> &mut Self {
        self.of_user(
            "user_sign_in_failed",
            user,
            By::User,
            json!({"loginMethod": "email"}),
            from,
        );
        self
    }

    /// Fails to sign in as somebody who is no user.
    pub(super) fn fails_as_nobody(&mut self, email: &str, from: Device) -> &mut Self {
        let data = json!({
            "userId": "unknown", "userName": "unknown", "userEmail": email, "loginMethod": "email",
            "triggeredBy": "unknown", "triggerContext": "user",
        });
        self.report("user_sign_in_failed", "unknown", &data, from)
    }

    pub(super) fn signs_out(&mut self, user: &str, session: &str, from: Device) -> &mut Self {
        self.of_session("user_signed_out", user, session, By::User, from);
        self
    }

    pub(super) fn revokes_all_sessions(&mut self, user: &str, from: Device) -> &mut Self {
        self.of_user("all_sessions_revoked", user, By::User, json!({}), from);
        self
    }

    pub(super) fn asks_for_a_reset(&mut self, user: &str, from: Device) -> &mut Self {
        self.of_user(
            "password_reset_requested",
            user,
            By::Unknown,
            json!({}),
            from,
        );
        self
    }

    pub(super) fn resets_the_password(&mut self, user: &str, from: Device) -> &mut Self {
        self.of_user(
            "password_reset_completed",
            user,
            By::Unknown,
            json!({}),
            from,
        );
        self
    }

    /// Changes something of the profile; the plugin tells by which field that it was the e-mail address.
    pub(super) fn changes(&mut self, field: &str, user: &str, from: Device) -> &mut Self {
        let more = json!({"updatedFields": [field]});
        self.of_user("profile_updated", user, By::User, more, from);
        self
    }

    pub(super) fn deletes_the_account(
        &mut self,
        user: &str,
        session: &str,
        from: Device,
    ) -> &mut Self {
        self.of_user("user_deleted", user, By::User, json!({}), from);
        self.of_session("session_revoked", user, session, By::User, from);
        self
    }

    pub(super) fn is_deleted_by(&mut self, admin: &str, user: &str, from: Device) -> &mut Self {
        self.of_user("user_deleted", user, By::Admin(admin), json!({}), from);
        self
    }

    /// `admin` bans; `until` is when the ban ends by itself, if it does.
    pub(super) fn bans(
        &mut self,
        admin: &str,
        user: &str,
        until: Option<&str>,
        from: Device,
    ) -> &mut Self {
        let more = json!({"banned": true, "banReason": "spam", "banExpires": until});
        self.of_user("user_banned", user, By::Admin(admin), more, from);
        self
    }

    pub(super) fn unbans(&mut self, admin: &str, user: &str, from: Device) -> &mut Self {
        self.of_user(
            "user_unbanned",
            user,
            By::Admin(admin),
            json!({"banned": false}),
            from,
        );
        self
    }

    pub(super) fn revokes(
        &mut self,
        admin: &str,
        user: &str,
        session: &str,
        from: Device,
    ) -> &mut Self {
        self.of_session("session_revoked", user, session, By::Admin(admin), from);
        self
    }

    /// `admin` begins to act as `user`, in this session.
    pub(super) fn impersonates(
        &mut self,
        admin: &str,
        user: &str,
        session: &str,
        from: Device,
    ) -> &mut Self {
        self.of_session("session_created", user, session, By::Admin(admin), from);
        let more = json!({
            "sessionId": session, "loginMethod": "unknown", "userAgent": from.agent,
            "impersonatedBy": admin, "impersonatedById": admin,
        });
        self.of_user("user_impersonated", user, By::Admin(admin), more, from);
        self
    }

    /// … and ends that; the plugin names the user as who did it.
    pub(super) fn stops_impersonating(
        &mut self,
        admin: &str,
        user: &str,
        session: &str,
        from: Device,
    ) -> &mut Self {
        self.of_session("session_revoked", user, session, By::User, from);
        let more = json!({
            "sessionId": session, "loginMethod": "unknown", "userAgent": from.agent,
            "impersonatedBy": admin, "impersonatedById": admin,
        });
        self.of_user("user_impersonated_stopped", user, By::User, more, from);
        self
    }

    /// A request is checked: `passed`, `challenged` or `blocked`, by which check.
    pub(super) fn is_checked(
        &mut self,
        outcome: &str,
        check: &str,
        path: &str,
        from: Device,
    ) -> &mut Self {
        let data = json!({
            "outcome": outcome, "evaluatedChecks": [check], "triggeredBy": check, "reason": check,
            "path": path, "userAgent": from.agent,
        });
        let key = from
            .address
            .map_or("unknown".to_owned(), |address| address.to_string());
        self.report("security_check", &key, &data, from)
    }
}

/// Whom the plugin names as the one who did it.
#[derive(Debug, Clone, Copy)]
enum By<'a> {
    User,
    Admin(&'a str),
    Unknown,
}

impl By<'_> {
    fn data(&self, user: &str) -> Value {
        let (by, context) = match self {
            Self::User => (user, "user"),
            Self::Admin(admin) => (*admin, "admin"),
            Self::Unknown => ("unknown", "user"),
        };
        json!({"triggeredBy": by, "triggerContext": context})
    }
}

fn email(user: &str) -> String {
    format!("{user}@example.com")
}

fn extend(data: &mut Value, more: Value) {
    let Value::Object(more) = more else {
        panic!("{more} is no object");
    };
    data.as_object_mut().unwrap().extend(more);
}
