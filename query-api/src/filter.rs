//! What a reader asks for, and the one way from there to SQL.
//!
//! A [`Filter`] begins with a project, and everything that reads events takes a `Filter`: there is
//! no query without a project. What can be asked for is one table, [`FIELDS`]; a further filter is
//! a further row. Values are bound to the query as parameters and never become part of its text.

use audit_schema::row::Millis;
use audit_schema::{CatalogueEntry, EventId, ProjectId};
use audit_service::ApiError;
use chrono::DateTime;
use sha2::{Digest, Sha256};

use crate::query_string::QueryString;

/// Longest value of a filter, in bytes.
const MAX_VALUE_BYTES: usize = 1_024;

/// Most values of one filter.
const MAX_VALUES: usize = 1_000;

/// 2299-12-31T23:59:59.999Z, the last time the table can hold.
const LAST_MILLIS: i64 = 10_413_791_999_999;

/// The order of every list; part of what a cursor belongs to.
const ORDER: &str = "created_at desc";

/// One thing that can be asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Field {
    /// Its parameter.
    name: &'static str,
    values: Values,
    matches: Matches,
}

/// How many values a field takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// One.
    One,
    /// Several, by repetition.
    Many,
    /// Several, by repetition and separated by commas.
    List,
}

/// Which events a field's values match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Matches {
    /// Those whose column is one of the values.
    Column(&'static str),
    /// Those of one of the types, each under its documented name or the plugin's.
    EventType,
    /// Those created at this time or later.
    From,
    /// Those created before this time.
    Before,
    /// The one with this id.
    Id,
}

pub(crate) const USER_ID: Field = Field::new("userId", Values::Many, Matches::Column("user_id"));
pub(crate) const ORGANIZATION_ID: Field = Field::new(
    "organizationId",
    Values::List,
    Matches::Column("organization_id"),
);
pub(crate) const IDENTIFIER: Field =
    Field::new("identifier", Values::Many, Matches::Column("identifier"));
pub(crate) const EVENT_TYPE: Field = Field::new("eventType", Values::List, Matches::EventType);

/// Everything `/v1/audit-logs` can be asked for.
const FIELDS: &[Field] = &[
    USER_ID,
    ORGANIZATION_ID,
    IDENTIFIER,
    EVENT_TYPE,
    Field::new("from", Values::One, Matches::From),
    Field::new("to", Values::One, Matches::Before),
];

/// The path of one event asks for it by id; no parameter does.
pub(crate) const ID: Field = Field::new("id", Values::One, Matches::Id);

impl Field {
    const fn new(name: &'static str, values: Values, matches: Matches) -> Self {
        Self {
            name,
            values,
            matches,
        }
    }

    /// The values as they are compared: split, checked, in one canonical order and writing.
    fn canonical(&self, given: Vec<String>) -> Result<Vec<String>, ApiError> {
        let mut values: Vec<String> = match self.values {
            Values::One if given.len() > 1 => {
                return Err(ApiError::invalid(self.name, "may be given only once"));
            }
            Values::One | Values::Many => given,
            Values::List => given
                .iter()
                .flat_map(|list| list.split(','))
                .map(|value| value.trim().to_owned())
                .collect(),
        };
        values.retain(|value| !value.is_empty());
        if values.len() > MAX_VALUES {
            let reason = format!("may have at most {MAX_VALUES} values");
            return Err(ApiError::invalid(self.name, reason));
        }
        if values.iter().any(|value| value.len() > MAX_VALUE_BYTES) {
            let reason = format!("a value may have at most {MAX_VALUE_BYTES} bytes");
            return Err(ApiError::invalid(self.name, reason));
        }
        for value in &mut values {
            *value = match self.matches {
                Matches::Column(_) | Matches::EventType => continue,
                Matches::From | Matches::Before => time(value)
                    .map_err(|reason| ApiError::invalid(self.name, reason))?
                    .0
                    .to_string(),
                Matches::Id => value
                    .parse::<EventId>()
                    .map_err(|error| ApiError::invalid(self.name, error.to_string()))?
                    .to_string(),
            };
        }
        values.sort_unstable();
        values.dedup();
        Ok(values)
    }
}

/// Reads a time as epoch milliseconds or RFC 3339. Events are kept to the millisecond, so a time
/// between two counts as the later one, at either end.
fn time(text: &str) -> Result<Millis, &'static str> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let millis = if digits.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse::<i64>().ok()
    } else {
        DateTime::parse_from_rfc3339(text).ok().map(|time| {
            let begun = i64::from(time.timestamp_subsec_nanos() % 1_000_000 != 0);
            time.timestamp_millis().saturating_add(begun)
        })
    };
    millis
        .map(|millis| Millis(millis.clamp(0, LAST_MILLIS)))
        .ok_or("is no time; write 2026-01-31T12:00:00Z (a + as %2B) or milliseconds since 1970")
}

/// Which events of which project a reader asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    project: ProjectId,
    conditions: Vec<Condition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition {
    field: &'static Field,
    values: Vec<String>,
}

/// Part of a query: its text, and the values bound to it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Predicate {
    /// What stands behind `WHERE`.
    pub(crate) sql: String,
    /// Values by the names they have in `sql`.
    pub(crate) texts: Vec<(&'static str, String)>,
    /// Lists of values by the names they have in `sql`.
    pub(crate) lists: Vec<(&'static str, Vec<String>)>,
}

impl Filter {
    /// All events of `project`.
    pub(crate) fn new(project: ProjectId) -> Self {
        Self {
            project,
            conditions: Vec::new(),
        }
    }

    /// What the parameters of a request ask for. An empty value is refused: ignored, it would
    /// mean everything.
    pub(crate) fn take(project: ProjectId, query: &mut QueryString) -> Result<Self, ApiError> {
        let mut filter = Self::new(project);
        for field in FIELDS {
            let given = query.take_all(field.name);
            if given.is_empty() {
                continue;
            }
            let says_nothing = given.iter().any(|value| value.trim().is_empty());
            filter = filter.with(field, given)?;
            if says_nothing || filter.matches_nothing() {
                let reason = "is empty; leave it out or give it a value";
                return Err(ApiError::invalid(field.name, reason));
            }
        }
        Ok(filter)
    }

    /// The parameters [`take`](Self::take) knows.
    pub(crate) fn names() -> impl Iterator<Item = &'static str> {
        FIELDS.iter().map(|field| field.name)
    }

    /// Asks for `field` to match one of `values` as well; if none is left that is not empty, for
    /// nothing at all.
    pub(crate) fn with(
        mut self,
        field: &'static Field,
        values: Vec<String>,
    ) -> Result<Self, ApiError> {
        let values = field.canonical(values)?;
        self.conditions.push(Condition { field, values });
        Ok(self)
    }

    /// Whose events it asks for.
    pub(crate) fn project(&self) -> &ProjectId {
        &self.project
    }

    /// Whether it asks for nothing at all.
    fn matches_nothing(&self) -> bool {
        self.conditions.iter().any(|c| c.values.is_empty())
    }

    /// What tells this filter, its project and its order from every other.
    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        let mut part = |text: &str| {
            hash.update(text.len().to_be_bytes());
            hash.update(text);
        };
        part(ORDER);
        part(self.project.as_str());
        let mut conditions: Vec<_> = self.conditions.iter().collect();
        conditions.sort_by_key(|condition| condition.field.name);
        for condition in conditions {
            part(condition.field.name);
            part(&condition.values.len().to_string());
            condition.values.iter().for_each(|value| part(value));
        }
        hash.finalize().into()
    }

    /// The condition of a query for these events.
    pub(crate) fn predicate(&self) -> Predicate {
        let mut predicate = Predicate {
            sql: "project_id = {project:String}".to_owned(),
            texts: vec![("project", self.project.to_string())],
            lists: Vec::new(),
        };
        for condition in &self.conditions {
            predicate.add(condition);
        }
        predicate
    }
}

impl Predicate {
    fn add(&mut self, Condition { field, values }: &Condition) {
        let mut text = |name| {
            let value = values.first().cloned().unwrap_or_default();
            self.texts.push((name, value));
        };
        let condition = match field.matches {
            _ if values.is_empty() => "false".to_owned(),
            Matches::Column(column) => {
                self.lists.push((column, values.clone()));
                format!("{column} IN {{{column}:Array(String)}}")
            }
            Matches::EventType => {
                let (mut documented, mut sent) = (Vec::new(), Vec::new());
                for name in values {
                    match CatalogueEntry::named(name) {
                        Some(entry) => documented.push(entry.name.to_owned()),
                        None => sent.push(name.clone()),
                    }
                }
                self.lists.push(("documented_type", documented));
                self.lists.push(("event_type", sent));
                "(documented_type IN {documented_type:Array(String)} \
                 OR event_type IN {event_type:Array(String)})"
                    .to_owned()
            }
            Matches::From => {
                text("from");
                "created_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC')".to_owned()
            }
            Matches::Before => {
                text("to");
                "created_at < fromUnixTimestamp64Milli({to:Int64}, 'UTC')".to_owned()
            }
            Matches::Id => {
                text("event_id");
                "event_id = {event_id:UUID}".to_owned()
            }
        };
        self.sql.push_str(" AND ");
        self.sql.push_str(&condition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn acme() -> ProjectId {
        "acme".parse().unwrap()
    }

    fn asked(raw: &str) -> Result<Filter, String> {
        let mut query = QueryString::parse(Some(raw)).unwrap();
        Filter::take(acme(), &mut query).map_err(|error| error.to_string())
    }

    #[test]
    fn every_filter_has_its_sql() {
        let filter = asked(
            "userId=u1&userId=u2&organizationId=o2,o1&identifier=a@b.c&eventType=user_created\
             &eventType=invoice.paid,member_added&from=2026-01-31T12:00:00%2B01:00&to=1800000000000",
        );
        insta::assert_debug_snapshot!(filter.unwrap().predicate());
    }

    #[test]
    fn a_filter_without_a_value_that_says_something_matches_nothing() {
        let filter = Filter::new(acme()).with(&ORGANIZATION_ID, vec![" , ".into()]);
        assert_eq!(
            filter.unwrap().predicate().sql,
            "project_id = {project:String} AND false"
        );
    }

    #[test]
    fn bad_values_are_refused_by_name() {
        let long = format!("userId={}", "x".repeat(1_025));
        let many = format!("organizationId={}", "o,".repeat(1_001));
        let refusals: Vec<_> = [
            "userId=",
            "eventType=,%20",
            "from=yesterday",
            "from=",
            "to=1&to=2",
            "to=99999999999999999999",
            "from=2026-01-31T12:00:00+01:00",
            &long,
            &many,
        ]
        .into_iter()
        .map(|raw| asked(raw).map(drop).unwrap_err())
        .collect();
        insta::assert_snapshot!(refusals.join("\n"));
    }

    #[test]
    fn a_time_counts_as_the_millisecond_it_is_not_after() {
        let millis = |text| time(text).unwrap().0;
        assert_eq!(millis("1700000000123"), 1_700_000_000_123);
        assert_eq!(millis("2023-11-14T22:13:20.123Z"), 1_700_000_000_123);
        assert_eq!(millis("2023-11-14T22:13:20.123000001Z"), 1_700_000_000_124);
        assert_eq!(millis("2023-11-14T23:13:20.1225+01:00"), 1_700_000_000_123);
        assert_eq!(millis("1969-01-01T00:00:00Z"), 0);
        assert_eq!(millis("-5"), 0);
        assert_eq!(millis("9999-12-31T23:59:59Z"), LAST_MILLIS);
    }

    #[test]
    fn the_order_and_writing_of_values_do_not_change_a_filter() {
        let hash = |raw| asked(raw).unwrap().hash();
        assert_eq!(
            hash("organizationId=o1,o2&userId=u"),
            hash("userId=u&organizationId=o2&organizationId=o1,o1")
        );
        assert_eq!(
            hash("from=1700000000123"),
            hash("from=2023-11-14T22:13:20.123Z")
        );
    }

    proptest! {
        #[test]
        fn no_value_reaches_the_text_of_a_query(
            values in prop::collection::vec("[^,]{1,40}", 1..5), user in ".{1,40}",
        ) {
            let filter = Filter::new(acme())
                .with(&USER_ID, vec![user])
                .unwrap()
                .with(&EVENT_TYPE, values.clone())
                .unwrap()
                .with(&IDENTIFIER, values)
                .unwrap();
            let sql = filter.predicate().sql;
            let of_project = sql.starts_with("project_id = {project:String}");
            prop_assert!(of_project);
            let plain = Filter::new(acme())
                .with(&USER_ID, vec!["u".into()])
                .unwrap()
                .with(&EVENT_TYPE, vec!["t".into()])
                .unwrap()
                .with(&IDENTIFIER, vec!["i".into()])
                .unwrap();
            // A value of blanks only says nothing, and a filter of such values matches nothing.
            prop_assert!(sql == plain.predicate().sql || sql.contains("AND false"));
        }

        #[test]
        fn filters_that_ask_for_something_else_have_other_hashes(
            left in prop::collection::vec("[ab]{1,2}", 1..4),
            right in prop::collection::vec("[ab]{1,2}", 1..4),
            other_field: bool, other_project: bool,
        ) {
            let project = if other_project { "other".parse().unwrap() } else { acme() };
            let field = if other_field { &IDENTIFIER } else { &USER_ID };
            let left = Filter::new(acme()).with(&USER_ID, left).unwrap();
            let right = Filter::new(project).with(field, right).unwrap();
            prop_assert_eq!(left == right, left.hash() == right.hash());
        }
    }
}
