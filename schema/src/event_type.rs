//! What happened: an open set of names with a documented catalogue.
//!
//! Better Auth documents 45 event types. Its plugin `@better-auth/infra` sends other names for
//! some of them, and for security events the documented name follows from the event data. An
//! event keeps the name it was sent with; [`EventType::documented`] gives the documented one.
//! A name in neither list is kept and found as it is.
//!
//! Source: Better Auth's documentation of audit logs, and the requests of
//! `@better-auth/infra` 0.4.5 (`tests/fixtures/capture.ndjson`).

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest name of an event type, in bytes.
const MAX_LEN: usize = 128;

/// Why a text cannot name an event type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "an event type has 1 to 128 visible ASCII characters without a comma, such as user_signed_in"
)]
pub struct InvalidEventType;

/// The name of an event type, as it was sent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct EventType<'a>(Cow<'a, str>);

impl<'a> EventType<'a> {
    /// Checks a name.
    ///
    /// A comma is refused because filters take lists of names.
    pub fn new(name: impl Into<Cow<'a, str>>) -> Result<Self, InvalidEventType> {
        let name = name.into();
        let reads_well = name.bytes().all(|b| b.is_ascii_graphic() && b != b',');
        if reads_well && (1..=MAX_LEN).contains(&name.len()) {
            Ok(Self(name))
        } else {
            Err(InvalidEventType)
        }
    }

    /// The name as it was sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The catalogue entry of this type, given the two words of the event data that security
    /// events are told apart by; `None` if the type is not documented.
    pub fn documented(&self, verdict: SecurityVerdict<'_>) -> Option<&'static CatalogueEntry> {
        match self.as_str() {
            "security_check" => verdict.of_check(),
            "security_signal" => verdict.of_signal(),
            name => CatalogueEntry::named(name),
        }
    }

    /// Copies a borrowed name.
    pub fn into_owned(self) -> EventType<'static> {
        EventType(Cow::Owned(self.0.into_owned()))
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for EventType<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = crate::event::cow_str(deserializer)?;
        Self::new(name).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for EventType<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The words of a security event's data that its documented name follows from.
#[derive(Debug, Clone, Copy, Default)]
pub struct SecurityVerdict<'a> {
    /// `outcome` of a `security_check`: `passed`, `challenged` or `blocked`.
    pub outcome: Option<&'a str>,
    /// `type` of a `security_signal`, such as `impossible_travel`.
    pub signal: Option<&'a str>,
    /// Whether `evaluatedChecks` of a `security_check` names `pow_challenge`.
    pub proof_of_work: bool,
}

impl SecurityVerdict<'_> {
    fn of_check(self) -> Option<&'static CatalogueEntry> {
        match self.outcome {
            Some("blocked") => CatalogueEntry::named("security_blocked"),
            Some("passed") if self.proof_of_work => CatalogueEntry::named("security_allowed"),
            _ => None,
        }
    }

    fn of_signal(self) -> Option<&'static CatalogueEntry> {
        CatalogueEntry::named(match self.signal? {
            "credential_stuffing" => "security_credential_stuffing",
            "impossible_travel" => "security_impossible_travel",
            "geo_blocked" => "security_geo_blocked",
            "bot_blocked" => "security_bot_blocked",
            "suspicious_ip_detected" => "security_suspicious_ip",
            "velocity_exceeded" => "security_velocity_exceeded",
            "free_trial_abuse" => "security_free_trial_abuse",
            "compromised_password" => "security_compromised_password",
            "stale_account_reactivation" => "security_stale_account",
            _ => return None,
        })
    }
}

/// The group an event type is documented under.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Category {
    /// Sign-up, profile, ban, deletion.
    User,
    /// Sign-in, sign-out, sessions, impersonation.
    Session,
    /// Linked accounts and the password.
    Account,
    /// E-mail verification and password reset.
    Verification,
    /// Organizations, members, invitations, teams.
    Organization,
    /// Verdicts and signals about a request.
    Security,
}

impl Category {
    /// All there are, in the order of the documentation.
    pub const ALL: [Self; 6] = [
        Self::User,
        Self::Session,
        Self::Account,
        Self::Verification,
        Self::Organization,
        Self::Security,
    ];

    /// The word it is asked for by.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Session => "session",
            Self::Account => "account",
            Self::Verification => "verification",
            Self::Organization => "organization",
            Self::Security => "security",
        }
    }
}

/// One documented event type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CatalogueEntry {
    /// The name in the documentation.
    pub name: &'static str,
    /// The name the plugin sends, where it is another one.
    pub wire_name: Option<&'static str>,
    /// The group it is documented under.
    pub category: Category,
}

impl CatalogueEntry {
    /// The entry with this documented or wire name.
    pub fn named(name: &str) -> Option<&'static Self> {
        CATALOGUE
            .iter()
            .find(|entry| entry.name == name || entry.wire_name == Some(name))
    }
}

macro_rules! catalogue {
    ($($category:ident { $($constant:ident = $name:literal $(sent as $wire:literal)?),* $(,)? })*) => {
        impl EventType<'static> {
            $($(
                #[doc = concat!("The documented type `", $name, "`.")]
                pub const $constant: Self = Self(Cow::Borrowed($name));
            )*)*
        }

        /// The documented event types, in the order of the documentation.
        pub const CATALOGUE: &[CatalogueEntry] = &[
            $($(CatalogueEntry {
                name: $name,
                wire_name: catalogue!(@wire $($wire)?),
                category: Category::$category,
            }),*),*
        ];
    };
    (@wire $wire:literal) => { Some($wire) };
    (@wire) => { None };
}

catalogue! {
    User {
        USER_SIGNED_UP = "user_signed_up" sent as "user_created",
        USER_PROFILE_UPDATED = "user_profile_updated" sent as "profile_updated",
        USER_PROFILE_IMAGE_UPDATED = "user_profile_image_updated" sent as "profile_image_updated",
        USER_EMAIL_VERIFIED = "user_email_verified" sent as "email_verified",
        USER_BANNED = "user_banned",
        USER_UNBANNED = "user_unbanned",
        USER_DELETED = "user_deleted",
    }
    Session {
        USER_SIGNED_IN = "user_signed_in",
        USER_SIGNED_OUT = "user_signed_out",
        SESSION_CREATED = "session_created",
        SESSION_REVOKED = "session_revoked",
        SESSIONS_REVOKED_ALL = "sessions_revoked_all" sent as "all_sessions_revoked",
        USER_IMPERSONATED = "user_impersonated",
        USER_IMPERSONATION_STOPPED = "user_impersonation_stopped" sent as "user_impersonated_stopped",
    }
    Account {
        ACCOUNT_LINKED = "account_linked",
        ACCOUNT_UNLINKED = "account_unlinked",
        PASSWORD_CHANGED = "password_changed",
    }
    Verification {
        PASSWORD_RESET_REQUESTED = "password_reset_requested",
        PASSWORD_RESET_COMPLETED = "password_reset_completed",
        EMAIL_VERIFICATION_SENT = "email_verification_sent",
    }
    Organization {
        ORGANIZATION_CREATED = "organization_created",
        ORGANIZATION_UPDATED = "organization_updated",
        MEMBER_ADDED = "member_added" sent as "organization_member_added",
        MEMBER_REMOVED = "member_removed" sent as "organization_member_removed",
        MEMBER_ROLE_UPDATED = "member_role_updated" sent as "organization_member_role_updated",
        MEMBER_INVITED = "member_invited" sent as "organization_member_invited",
        INVITE_ACCEPTED = "invite_accepted" sent as "organization_member_invite_accepted",
        INVITE_REJECTED = "invite_rejected" sent as "organization_member_invite_rejected",
        INVITE_CANCELLED = "invite_cancelled" sent as "organization_member_invite_canceled",
        TEAM_CREATED = "team_created" sent as "organization_team_created",
        TEAM_UPDATED = "team_updated" sent as "organization_team_updated",
        TEAM_DELETED = "team_deleted" sent as "organization_team_deleted",
        TEAM_MEMBER_ADDED = "team_member_added" sent as "organization_team_member_added",
        TEAM_MEMBER_REMOVED = "team_member_removed" sent as "organization_team_member_removed",
    }
    Security {
        SECURITY_BLOCKED = "security_blocked",
        SECURITY_ALLOWED = "security_allowed",
        SECURITY_CREDENTIAL_STUFFING = "security_credential_stuffing",
        SECURITY_IMPOSSIBLE_TRAVEL = "security_impossible_travel",
        SECURITY_GEO_BLOCKED = "security_geo_blocked",
        SECURITY_BOT_BLOCKED = "security_bot_blocked",
        SECURITY_SUSPICIOUS_IP = "security_suspicious_ip",
        SECURITY_VELOCITY_EXCEEDED = "security_velocity_exceeded",
        SECURITY_FREE_TRIAL_ABUSE = "security_free_trial_abuse",
        SECURITY_COMPROMISED_PASSWORD = "security_compromised_password",
        SECURITY_STALE_ACCOUNT = "security_stale_account",
    }
}

/// Types that only the plugin knows; they have no documented name.
impl EventType<'static> {
    /// A sign-in was refused.
    pub const USER_SIGN_IN_FAILED: Self = Self(Cow::Borrowed("user_sign_in_failed"));
    /// An e-mail address was changed.
    pub const EMAIL_CHANGED: Self = Self(Cow::Borrowed("email_changed"));
    /// A second factor was switched on.
    pub const TWO_FACTOR_ENABLED: Self = Self(Cow::Borrowed("two_factor_enabled"));
    /// A second factor was switched off.
    pub const TWO_FACTOR_DISABLED: Self = Self(Cow::Borrowed("two_factor_disabled"));
    /// A second factor was checked.
    pub const TWO_FACTOR_VERIFIED: Self = Self(Cow::Borrowed("two_factor_verified"));
}

/// Types that the audit log reports about itself.
impl EventType<'static> {
    /// Events had to be dropped before they reached Kafka: how many, of what type, when and why.
    pub const AUDIT_EVENTS_LOST: Self = Self(Cow::Borrowed("audit_events_lost"));
    /// Somebody read events.
    pub const AUDIT_LOG_READ: Self = Self(Cow::Borrowed("audit_log_read"));
    /// Somebody began to take events away as a file.
    pub const AUDIT_LOG_EXPORTED: Self = Self(Cow::Borrowed("audit_log_exported"));
    /// The personal data of a user was erased.
    pub const USER_DATA_ERASED: Self = Self(Cow::Borrowed("user_data_erased"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_catalogue_is_the_documented_one() {
        assert_eq!(CATALOGUE.len(), 45);
        let of = |category| CATALOGUE.iter().filter(|e| e.category == category).count();
        assert_eq!(
            [
                of(Category::User),
                of(Category::Session),
                of(Category::Account),
                of(Category::Verification),
                of(Category::Organization),
                of(Category::Security)
            ],
            [7, 7, 3, 3, 14, 11]
        );
    }

    #[test]
    fn no_two_types_share_a_name() {
        let mut names: Vec<_> = CATALOGUE
            .iter()
            .flat_map(|e| [Some(e.name), e.wire_name])
            .flatten()
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn a_type_is_documented_under_either_name() {
        let name = |sent: &'static str| {
            EventType::new(sent)
                .unwrap()
                .documented(SecurityVerdict::default())
                .map(|e| e.name)
        };
        assert_eq!(name("user_created"), Some("user_signed_up"));
        assert_eq!(name("user_signed_up"), Some("user_signed_up"));
        assert_eq!(name("user_sign_in_failed"), None);
        assert_eq!(name("invoice.paid"), None);
    }

    #[test]
    fn a_security_check_is_named_by_its_outcome() {
        let check = EventType::new("security_check").unwrap();
        let name = |outcome, proof_of_work| {
            check
                .documented(SecurityVerdict {
                    outcome: Some(outcome),
                    proof_of_work,
                    signal: None,
                })
                .map(|e| e.name)
        };
        assert_eq!(name("blocked", false), Some("security_blocked"));
        assert_eq!(name("passed", true), Some("security_allowed"));
        assert_eq!(name("passed", false), None);
        assert_eq!(name("challenged", true), None);
    }

    #[test]
    fn a_name_that_breaks_a_list_is_refused() {
        let long = "x".repeat(129);
        for bad in ["", "a,b", "a b", "a\n", "ü", long.as_str()] {
            assert!(EventType::new(bad).is_err(), "{bad:?}");
        }
    }
}
