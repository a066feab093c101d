//! What each event type is in OCSF, the Open Cybersecurity Schema Framework that SIEMs read.
//!
//! One entry a type: its class and activity, and what follows from the type alone. What follows
//! from an event (who, where, how it ended) is in the view `audit_ocsf`, which gets this table from
//! here when it is made. Where OCSF has no activity that says the same, the nearest is taken and
//! the entry is marked `nearest`.
//!
//! The classes, activities and numbers are those of OCSF 1.8.0 (<https://schema.ocsf.io/1.8.0>).
//! A change of anything here raises `MAPPING_VERSION` and makes the view again, by one more step
//! in the list of migrations.

/// The view that shows events as OCSF.
pub const VIEW: &str = "audit_ocsf";

/// The version of OCSF that the entries follow.
const OCSF_VERSION: &str = "1.8.0";

/// The version of this mapping, in every document as the id of its transformation.
const MAPPING_VERSION: &str = "1";

/// A number of OCSF and its caption.
type Caption = (u8, &'static str);

const INFORMATIONAL: u8 = 1;
const LOW: u8 = 2;
const MEDIUM: u8 = 3;
const HIGH: u8 = 4;

/// A class: its number and name, and those of its category.
#[derive(Debug, Clone, Copy)]
struct Class {
    uid: u16,
    name: &'static str,
    category: Caption,
}

const fn class(uid: u16, name: &'static str, category: Caption) -> Class {
    Class {
        uid,
        name,
        category,
    }
}

const IAM: Caption = (3, "Identity & Access Management");
const BASE_EVENT: Class = class(0, "Base Event", (0, "Uncategorized"));
const DETECTION_FINDING: Class = class(2004, "Detection Finding", (2, "Findings"));
const ACCOUNT_CHANGE: Class = class(3001, "Account Change", IAM);
const AUTHENTICATION: Class = class(3002, "Authentication", IAM);
const ENTITY_MANAGEMENT: Class = class(3004, "Entity Management", IAM);
const USER_ACCESS: Class = class(3005, "User Access Management", IAM);
const GROUP_MANAGEMENT: Class = class(3006, "Group Management", IAM);
const API_ACTIVITY: Class = class(6003, "API Activity", (6, "Application Activity"));

/// What a control of security did: its action and its disposition. A disposition of 0 is none.
type Control = (Caption, Caption);

const NO_CONTROL: Control = ((0, ""), (0, ""));
const ALLOWED: Control = ((1, "Allowed"), (1, "Allowed"));
const BLOCKED: Control = ((2, "Denied"), (2, "Blocked"));
const LOGGED: Control = ((3, "Observed"), (17, "Logged"));
/// OCSF counts a challenge among the dispositions of an unknown action.
const CHALLENGED: Control = ((0, "Unknown"), (23, "Challenge"));

/// The entity, or the group, that an event is about: what kind of thing it is, and which column
/// or else which text of the event data is its id and its name.
#[derive(Debug, Clone, Copy)]
struct Target {
    kind: Caption,
    uid: &'static str,
    name: &'static str,
}

const fn target(kind: Caption, uid: &'static str, name: &'static str) -> Target {
    Target { kind, uid, name }
}

const NO_TARGET: Target = target((0, ""), "", "");
const USER: Target = target((2, "User"), "user_id", "identifier");
const TEAM: Target = target((3, "Group"), "teamId", "teamName");
const ORGANIZATION: Target = target((4, "Organization"), "organization_id", "organizationName");
const EMAIL: Target = target((6, "Email"), "", "identifier");
const INVITATION: Target = target((99, "Invitation"), "invitationId", "identifier");
const IDENTITY: Target = target((99, "External identity"), "accountId", "providerId");
const API_KEY: Target = target((99, "API key"), "apiKeyId", "apiKeyName");

/// What an event type is in OCSF.
#[derive(Debug, Clone, Copy)]
struct Mapping {
    /// As it is documented, or as it is sent if it is not documented.
    event_type: &'static str,
    class: Class,
    activity: Caption,
    /// Whether OCSF has nothing that says the same.
    nearest: bool,
    /// The least severity; an event that ended badly may have a higher one.
    severity: u8,
    /// The status instead of "Success", or, of a finding, where its handling stands.
    status: Caption,
    status_detail: &'static str,
    /// What a control did, unless how the event ended says it.
    control: Control,
    target: Target,
    /// Which text or list of texts of the event data names the privileges.
    privileges: &'static str,
    factor: Caption,
    account_switch: Caption,
    is_mfa: bool,
}

const fn map(event_type: &'static str, class: Class, activity: u8, name: &'static str) -> Mapping {
    Mapping {
        event_type,
        class,
        activity: (activity, name),
        nearest: false,
        severity: INFORMATIONAL,
        status: (0, ""),
        status_detail: "",
        control: NO_CONTROL,
        target: NO_TARGET,
        privileges: "",
        factor: (0, ""),
        account_switch: (0, ""),
        is_mfa: false,
    }
}

const fn preauth(event_type: &'static str, control: Control) -> Mapping {
    Mapping {
        control,
        ..map(event_type, AUTHENTICATION, 6, "Preauth")
    }
}

const fn finding(event_type: &'static str, severity: u8) -> Mapping {
    Mapping {
        status: (1, "New"),
        ..map(event_type, DETECTION_FINDING, 1, "Create").severity(severity)
    }
}

impl Mapping {
    const fn nearest(mut self) -> Self {
        self.nearest = true;
        self
    }

    const fn severity(mut self, severity: u8) -> Self {
        self.severity = severity;
        self
    }

    const fn status(mut self, id: u8, caption: &'static str) -> Self {
        self.status = (id, caption);
        self
    }

    const fn detail(mut self, detail: &'static str) -> Self {
        self.status_detail = detail;
        self
    }

    const fn of(mut self, target: Target) -> Self {
        self.target = target;
        self
    }

    const fn privileges(mut self, named_by: &'static str) -> Self {
        self.privileges = named_by;
        self
    }

    const fn factor(mut self, id: u8, caption: &'static str) -> Self {
        self.factor = (id, caption);
        self
    }

    const fn account_switch(mut self, id: u8, caption: &'static str) -> Self {
        self.account_switch = (id, caption);
        self
    }

    const fn mfa(mut self) -> Self {
        self.is_mfa = true;
        self
    }
}

/// A type that has no entry: OCSF's class for events "not otherwise defined by the schema". The
/// name of its activity is that of the type.
const UNKNOWN: Mapping = map("", BASE_EVENT, 99, "");

#[rustfmt::skip]
const MAPPINGS: &[Mapping] = &[
    // User.
    map("user_signed_up", ACCOUNT_CHANGE, 1, "Create"),
    map("user_profile_updated", ENTITY_MANAGEMENT, 3, "Update").of(USER),
    map("user_profile_image_updated", ENTITY_MANAGEMENT, 3, "Update").of(USER),
    map("user_email_verified", ENTITY_MANAGEMENT, 10, "Activate").of(EMAIL).nearest(),
    map("user_banned", ACCOUNT_CHANGE, 5, "Disable").severity(LOW),
    map("user_unbanned", ACCOUNT_CHANGE, 2, "Enable"),
    map("user_deleted", ACCOUNT_CHANGE, 6, "Delete").severity(LOW),
    // Session.
    map("user_signed_in", AUTHENTICATION, 1, "Logon"),
    map("user_signed_out", AUTHENTICATION, 2, "Logoff"),
    map("session_created", AUTHENTICATION, 1, "Logon").nearest(),
    map("session_revoked", AUTHENTICATION, 2, "Logoff"),
    map("sessions_revoked_all", AUTHENTICATION, 2, "Logoff"),
    map("user_impersonated", AUTHENTICATION, 7, "Account Switch").account_switch(2, "Impersonate").severity(MEDIUM),
    map("user_impersonation_stopped", AUTHENTICATION, 2, "Logoff").detail("impersonation_end").nearest(),
    // Account.
    map("account_linked", ENTITY_MANAGEMENT, 6, "Enroll").of(IDENTITY).nearest(),
    map("account_unlinked", ENTITY_MANAGEMENT, 7, "Unenroll").of(IDENTITY).nearest(),
    map("password_changed", ACCOUNT_CHANGE, 3, "Password Change"),
    // Verification.
    map("password_reset_requested", ACCOUNT_CHANGE, 4, "Password Reset").status(99, "requested").nearest(),
    map("password_reset_completed", ACCOUNT_CHANGE, 4, "Password Reset"),
    map("email_verification_sent", ENTITY_MANAGEMENT, 99, "email_verification_sent").of(EMAIL).nearest(),
    // Organization.
    map("organization_created", ENTITY_MANAGEMENT, 1, "Create").of(ORGANIZATION),
    map("organization_updated", ENTITY_MANAGEMENT, 3, "Update").of(ORGANIZATION),
    map("member_added", GROUP_MANAGEMENT, 3, "Add User").of(ORGANIZATION),
    map("member_removed", GROUP_MANAGEMENT, 4, "Remove User").of(ORGANIZATION),
    // It takes the old role away as well; one event is one activity.
    map("member_role_updated", USER_ACCESS, 1, "Assign Privileges").privileges("newRole").severity(LOW).nearest(),
    map("member_invited", ENTITY_MANAGEMENT, 1, "Create").of(INVITATION).nearest(),
    map("invite_accepted", GROUP_MANAGEMENT, 3, "Add User").of(ORGANIZATION),
    map("invite_rejected", ENTITY_MANAGEMENT, 11, "Deactivate").of(INVITATION).nearest(),
    map("invite_cancelled", ENTITY_MANAGEMENT, 11, "Deactivate").of(INVITATION).nearest(),
    map("team_created", GROUP_MANAGEMENT, 6, "Create").of(TEAM),
    map("team_updated", ENTITY_MANAGEMENT, 3, "Update").of(TEAM).nearest(),
    map("team_deleted", GROUP_MANAGEMENT, 5, "Delete").of(TEAM),
    map("team_member_added", GROUP_MANAGEMENT, 3, "Add User").of(TEAM),
    map("team_member_removed", GROUP_MANAGEMENT, 4, "Remove User").of(TEAM),
    // Security.
    preauth("security_blocked", BLOCKED).severity(MEDIUM),
    preauth("security_allowed", ALLOWED),
    preauth("security_geo_blocked", BLOCKED).severity(MEDIUM),
    preauth("security_bot_blocked", BLOCKED).severity(MEDIUM),
    // Unlike the two before, it may have been logged only.
    preauth("security_velocity_exceeded", LOGGED).severity(MEDIUM),
    finding("security_credential_stuffing", HIGH),
    finding("security_impossible_travel", HIGH),
    finding("security_suspicious_ip", MEDIUM),
    finding("security_free_trial_abuse", MEDIUM),
    finding("security_compromised_password", HIGH),
    finding("security_stale_account", LOW),
    // Sent, but not documented.
    preauth("security_check", NO_CONTROL).nearest(),
    finding("security_signal", MEDIUM),
    map("user_sign_in_failed", AUTHENTICATION, 1, "Logon").status(2, "Failure").severity(LOW),
    map("email_changed", ENTITY_MANAGEMENT, 3, "Update").of(USER),
    map("two_factor_enabled", ACCOUNT_CHANGE, 10, "MFA Factor Enable").factor(7, "OTP"),
    map("two_factor_disabled", ACCOUNT_CHANGE, 11, "MFA Factor Disable").factor(7, "OTP").severity(LOW),
    map("two_factor_verified", AUTHENTICATION, 6, "Preauth").factor(7, "OTP").mfa().nearest(),
    // Names that other auth servers report under.
    map("sign_in_failed", AUTHENTICATION, 1, "Logon").status(2, "Failure").severity(LOW),
    map("mfa_enabled", ACCOUNT_CHANGE, 10, "MFA Factor Enable"),
    map("mfa_disabled", ACCOUNT_CHANGE, 11, "MFA Factor Disable").severity(LOW),
    map("account_locked", ACCOUNT_CHANGE, 9, "Lock").severity(MEDIUM),
    map("account_unlocked", ACCOUNT_CHANGE, 12, "Unlock"),
    map("passkey_created", ACCOUNT_CHANGE, 10, "MFA Factor Enable").factor(10, "WebAuthn").nearest(),
    map("passkey_deleted", ACCOUNT_CHANGE, 11, "MFA Factor Disable").factor(10, "WebAuthn").nearest(),
    map("api_key_created", ENTITY_MANAGEMENT, 1, "Create").of(API_KEY).nearest(),
    map("api_key_revoked", ENTITY_MANAGEMENT, 4, "Delete").of(API_KEY).nearest(),
    map("oauth_consent_granted", USER_ACCESS, 1, "Assign Privileges").privileges("scopes"),
    map("oauth_consent_revoked", USER_ACCESS, 2, "Revoke Privileges").privileges("scopes"),
    map("oauth_token_issued", AUTHENTICATION, 3, "Authentication Ticket").nearest(),
    // The log about itself.
    map("audit_log_read", API_ACTIVITY, 2, "Read"),
    map("audit_log_exported", API_ACTIVITY, 2, "Read"),
    map("audit_events_lost", BASE_EVENT, 99, "audit_events_lost").severity(HIGH),
];

/// How an event ended, as a status, a least severity, and what a control did.
const OUTCOMES: &[(&str, Caption, u8, Control)] = &[
    ("success", (1, "Success"), INFORMATIONAL, NO_CONTROL),
    ("failure", (2, "Failure"), LOW, NO_CONTROL),
    ("blocked", (2, "Failure"), MEDIUM, BLOCKED),
    ("challenged", (99, "challenged"), LOW, CHALLENGED),
];

/// The role of who did it, as a type of user; any other is one of its own.
const ACTORS: &[(&str, Caption)] = &[
    ("", (0, "Unknown")),
    ("user", (1, "User")),
    ("admin", (2, "Admin")),
    ("system", (3, "System")),
    ("api_key", (4, "Service")),
];

/// The method of a sign-in, as a protocol; any other is one of its own. The id of a provider is
/// such another: it does not say by which protocol the provider was asked.
const PROTOCOLS: &[(&str, Caption)] = &[
    ("oidc", (4, "OpenID")),
    ("saml", (5, "SAML")),
    ("oauth", (6, "OAUTH 2.0")),
    ("oauth2", (6, "OAUTH 2.0")),
];

/// The statement of the view with the tables above in the places of their names: maps from a
/// name to a tuple, whose type the statement gives.
pub(crate) fn fill(sql: &str) -> String {
    let mappings = [UNKNOWN].iter().chain(MAPPINGS);
    let named = |(name, (id, caption)): &(&str, Caption)| {
        format!("{}, ({id}, {})", text(name), text(caption))
    };
    sql.replace("{ocsf_version}", OCSF_VERSION)
        .replace("{mapping_version}", MAPPING_VERSION)
        .replace("{product_version}", env!("CARGO_PKG_VERSION"))
        .replace("{ocsf_mappings}", &map_of(mappings.map(Mapping::entry)))
        .replace("{ocsf_outcomes}", &map_of(OUTCOMES.iter().map(outcome)))
        .replace("{ocsf_actors}", &map_of(ACTORS.iter().map(named)))
        .replace("{ocsf_protocols}", &map_of(PROTOCOLS.iter().map(named)))
}

/// A map literal, an entry a line.
fn map_of(entries: impl Iterator<Item = String>) -> String {
    format!(
        "map(\n    {}\n)",
        entries.collect::<Vec<_>>().join(",\n    ")
    )
}

/// A text literal.
fn text(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn outcome((name, status, severity, control): &(&str, Caption, u8, Control)) -> String {
    let name = text(name);
    let ((status_id, status), (action, disposition)) = (status, control);
    format!(
        "{name}, ({status_id}, {}, {severity}, {}, {}, {}, {})",
        text(status),
        action.0,
        text(action.1),
        disposition.0,
        text(disposition.1),
    )
}

impl Mapping {
    fn entry(&self) -> String {
        let Self { class, target, .. } = self;
        let (action, disposition) = self.control;
        let numbers_and_texts = [
            class.uid.to_string(),
            text(class.name),
            class.category.0.to_string(),
            text(class.category.1),
            self.activity.0.to_string(),
            text(self.activity.1),
            self.severity.to_string(),
            self.status.0.to_string(),
            text(self.status.1),
            text(self.status_detail),
            action.0.to_string(),
            text(action.1),
            disposition.0.to_string(),
            text(disposition.1),
            target.kind.0.to_string(),
            text(target.kind.1),
            text(target.uid),
            text(target.name),
            text(self.privileges),
            self.factor.0.to_string(),
            text(self.factor.1),
            self.account_switch.0.to_string(),
            text(self.account_switch.1),
            self.is_mfa.to_string(),
            self.nearest.to_string(),
        ];
        format!(
            "{}, ({})",
            text(self.event_type),
            numbers_and_texts.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_type_has_one_entry() {
        let entries = |name| MAPPINGS.iter().filter(|m| m.event_type == name).count();
        for entry in crate::CATALOGUE {
            assert_eq!(entries(entry.name), 1, "{}", entry.name);
        }
        for mapping in MAPPINGS {
            assert_eq!(entries(mapping.event_type), 1, "{}", mapping.event_type);
        }
    }
}
