//! The user `analyst`: the limits an analyst has on a server, by the same list.
//!
//! The library knows one user, so a role's settings profile cannot be theirs. But a request can take a profile: its
//! constraints then hold for all that the request sets, and taking another profile does not end them. The library does
//! not take a profile's values, so these are set beside it.

use std::fmt::Write as _;

use audit_schema::access::{ANALYST, LIMITS, Limit};

/// The limits that mean what they say here: to the engine everybody is one user, so what is of a user is of all.
fn of_a_query() -> impl Iterator<Item = &'static Limit> {
    LIMITS
        .iter()
        .filter(|limit| !limit.setting.ends_with("_for_user"))
}

/// The profile, for `users.xml`.
pub(crate) fn profile() -> String {
    let mut xml = format!("<{ANALYST}><constraints>");
    for Limit {
        setting,
        value,
        lowers,
    } in of_a_query()
    {
        let bounds = if *lowers {
            format!("<min>1</min><max>{value}</max>")
        } else {
            "<const/>".to_owned()
        };
        // Writing to a string does not fail.
        write!(xml, "<{setting}>{bounds}</{setting}>").unwrap_or_default();
    }
    xml + &format!("</constraints></{ANALYST}>")
}

/// The statement that binds a connection. `readonly` holds from the next one on.
pub(crate) fn limits() -> String {
    let mut sql = "SET".to_owned();
    for Limit { setting, value, .. } in of_a_query() {
        write!(sql, " {setting} = {value},").unwrap_or_default();
    }
    sql + &format!(" profile = '{ANALYST}'")
}
