//! Erasure of a person: which events are about them, and what of these is emptied.
//!
//! The same is said twice, because it is done in two places: [`erase`] empties an event that is
//! about to be stored, [`Whose`] writes the SQL that empties those that are. What counts:
//!
//! - **About them** is an event whose user or key is their id, and one without a user whose
//!   identifier or key is one of their identifiers: a sign-in that failed knows the address alone.
//!   An identifier may be a name, so it does not reach events of other users.
//! - **By them** is an event whose actor they are.
//!
//! Type, outcome, organization, times and position stay, and with them every total and every
//! cursor. Of what was done by them to others the others stay as well, but not the data: it names
//! the actor and the actor's client in ways that cannot be listed.

use std::net::Ipv6Addr;

use crate::row::EventRow;

/// The table of erasures.
pub const ERASURES: &str = "audit_erasures";

/// What the data of an erased event is.
pub const ERASED_DATA: &str = r#"{"erased":true}"#;

/// The reason of a dead letter whose bytes were erased, unless it is a duplicate: what was wrong
/// with the record may quote it.
pub const ERASED_REASON: &str = "a person whom the record names was erased";

/// Empties what an event says of a person, and says whether there was anything.
///
/// Neither `is_user` nor `is_identifier` may be true of an empty text.
pub fn erase(
    row: &mut EventRow,
    is_user: impl Fn(&str) -> bool,
    is_identifier: impl Fn(&str) -> bool,
) -> bool {
    let without_user = row.user_id.is_empty();
    let keyed = is_user(&row.event_key) || (without_user && is_identifier(&row.event_key));
    let about = keyed || is_user(&row.user_id) || (without_user && is_identifier(&row.identifier));
    let by = is_user(&row.actor_id);
    if !about && !by {
        return false;
    }
    if about {
        row.user_id.clear();
        row.identifier.clear();
        // The key of an organization's events is no person.
        if keyed || row.event_key != row.organization_id {
            row.event_key.clear();
        }
    }
    if by {
        row.actor_id.clear();
    }
    for text in [
        &mut row.event_display_name,
        &mut row.session_id,
        &mut row.request_id,
        &mut row.city,
        &mut row.country,
        &mut row.country_code,
        &mut row.user_agent,
    ] {
        text.clear();
    }
    row.ip_address = Ipv6Addr::UNSPECIFIED;
    ERASED_DATA.clone_into(&mut row.event_data);
    true
}

/// A person in SQL: the right sides of `IN`.
#[derive(Debug, Clone, Copy)]
pub struct Whose<'a> {
    /// Their id.
    pub user: &'a str,
    /// Their identifiers, in small letters (ASCII).
    pub identifiers: &'a str,
}

impl Whose<'_> {
    fn keyed(&self) -> String {
        let Self { user, identifiers } = self;
        format!("(event_key IN {user} OR (user_id = '' AND lower(event_key) IN {identifiers}))")
    }

    fn about(&self) -> String {
        let (Self { user, identifiers }, keyed) = (self, self.keyed());
        format!(
            "({keyed} OR user_id IN {user} \
             OR (user_id = '' AND lower(identifier) IN {identifiers}))"
        )
    }

    /// The condition that an event is about them or by them.
    pub fn events(&self) -> String {
        format!("({} OR actor_id IN {})", self.about(), self.user)
    }

    /// What `UPDATE` sets in an event that is.
    pub fn emptied(&self) -> String {
        let (about, keyed, user) = (self.about(), self.keyed(), self.user);
        format!(
            "user_id = if({about}, '', user_id), \
             identifier = if({about}, '', identifier), \
             event_key = if({about} AND ({keyed} OR event_key != organization_id), '', event_key), \
             actor_id = if(actor_id IN {user}, '', actor_id), \
             event_display_name = '', session_id = '', request_id = '', \
             city = '', country = '', country_code = '', user_agent = '', \
             ip_address = toIPv6('::'), event_data = '{ERASED_DATA}'"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::{EventColumns, Millis};
    use crate::{Actor, Event, EventData, EventType, Position};

    /// A row of an event about `user`, with `key` and `identifier`, by `actor`.
    fn row([key, user, identifier, actor]: [&'static str; 4]) -> EventRow {
        let data = serde_json::json!({"note": "n", "userAgent": "curl"});
        let event = Event::builder("acme".parse().unwrap(), EventType::USER_BANNED)
            .event_key(key)
            .user_id(user)
            .identifier(identifier)
            .organization_id("o1")
            .session_id("s1")
            .request_id("r1")
            .event_display_name("Alice")
            .actor(Actor {
                id: actor.into(),
                kind: "admin".into(),
            })
            .event_data(EventData::of(&data).unwrap());
        let mut columns = EventColumns::default();
        let position = Position {
            incarnation: 1,
            partition: 0,
            offset: 7,
        };
        columns.push(&event.build().unwrap(), position, Millis(5));
        columns.rows().next().unwrap()
    }

    /// Key, user, identifier and actor of what is left of such a row; `None` if it is untouched.
    fn left(row: &EventRow) -> Option<[String; 4]> {
        let mut erased = row.clone();
        let found = erase(&mut erased, |id| id == "u1", |name| name == "a@b.c");
        assert_eq!(found, erased != *row);
        found.then(|| {
            assert_eq!(erased.event_data, ERASED_DATA);
            assert_eq!(
                (
                    &erased.event_id,
                    &erased.event_type,
                    &erased.organization_id,
                    erased.created_at
                ),
                (
                    &row.event_id,
                    &row.event_type,
                    &row.organization_id,
                    row.created_at
                ),
            );
            let gone = [
                &erased.session_id,
                &erased.request_id,
                &erased.event_display_name,
            ];
            assert!(gone.iter().all(|text| text.is_empty()) && erased.user_agent.is_empty());
            [
                erased.event_key,
                erased.user_id,
                erased.identifier,
                erased.actor_id,
            ]
        })
    }

    #[test]
    fn what_is_about_a_person_names_nobody_afterwards() {
        for row in [
            row(["u1", "u1", "a@b.c", "u1"]),
            row(["visitor", "u1", "a@b.c", ""]),
            row(["u1", "", "", ""]),
            row(["unknown", "", "a@b.c", ""]),
            row(["a@b.c", "", "", ""]),
        ] {
            assert_eq!(left(&row), Some(Default::default()), "{row:?}");
        }
    }

    #[test]
    fn the_key_of_an_organization_and_another_actor_stay() {
        let kept = ["o1", "", "", "u2"].map(str::to_owned);
        assert_eq!(left(&row(["o1", "u1", "a@b.c", "u2"])), Some(kept));
    }

    #[test]
    fn whom_a_person_acted_on_stays() {
        let kept = ["u2", "u2", "x@y.z", ""].map(str::to_owned);
        assert_eq!(left(&row(["u2", "u2", "x@y.z", "u1"])), Some(kept));
    }

    #[test]
    fn events_of_others_stay_even_under_the_same_name() {
        for others in [
            row(["u2", "u2", "a@b.c", "u2"]),
            row(["o1", "", "x@y.z", ""]),
            row(["", "", "", ""]),
        ] {
            assert_eq!(left(&others), None, "{others:?}");
        }
    }
}
