//! What a reader asks for, and the one way from there to SQL.
//!
//! A [`Filter`] begins with what its caller's key reaches, and everything that reads events takes a
//! `Filter`: there is no query without a project. What can be asked for is one table,
//! [`FIELDS`](field::FIELDS), and any place in the event data.

pub(crate) mod field;
mod network;
mod predicate;
mod time;

use audit_schema::ProjectId;
use audit_schema::row::Millis;
use audit_service::ApiError;
use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::query_string::{QueryString, echo, meant};
use field::{DATA, FIELDS, Field, data_condition, parameter};
use network::AddressRange;
pub(crate) use predicate::Predicate;
use time::Bound;

/// What the parameter of an exclusion begins with.
pub(crate) const NOT: &str = "not.";

/// What a key reaches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Reach {
    pub(crate) project: ProjectId,
    /// The only organization of the project whose events it reaches; all events if `None`.
    pub(crate) organization: Option<String>,
}

/// In which order events are given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) enum Order {
    /// The newest first.
    #[default]
    Descending,
    /// The oldest first.
    Ascending,
}

impl Order {
    /// All there are.
    pub(crate) const ALL: [Self; 2] = [Self::Ascending, Self::Descending];

    /// The word it is asked for by.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Descending => "desc",
            Self::Ascending => "asc",
        }
    }

    /// The order that a request asks for.
    pub(crate) fn take(query: &mut QueryString) -> Result<Self, ApiError> {
        let order = query.take_word("order", Self::ALL, Self::as_str)?;
        Ok(order.unwrap_or_default())
    }
}

/// Which events a reader asks for, and in which order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Filter {
    reach: Reach,
    conditions: Vec<Condition>,
    pub(crate) order: Order,
}

/// What one parameter asks for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Condition {
    /// The parameter.
    name: String,
    /// Whether events that pass the test are those that are left out.
    excluded: bool,
    test: Test,
}

/// What is said of an event; lists are in one order, so that equal tests are equal.
#[derive(Debug, Clone, PartialEq, Serialize)]
enum Test {
    /// Of no event.
    Nothing,
    /// The column is one of the texts.
    Column(&'static str, Vec<String>),
    /// Its type has one of these documented names, was sent with one of those, or begins so.
    Types {
        documented: Vec<String>,
        sent: Vec<String>,
        begin: Vec<String>,
    },
    /// The client was in one of these countries, by name or code.
    Country(Vec<String>),
    /// The client's address is in one of the ranges.
    Address(Vec<AddressRange>),
    /// The client's user agent has one of these parts.
    UserAgent(Vec<String>),
    /// All words of one of the lists are in it.
    Words(Vec<Vec<String>>),
    /// The place in the event data has one of the values.
    Data {
        path: Vec<String>,
        values: Vec<String>,
    },
    /// It was created then or later.
    From(Bound),
    /// It was created before.
    To(Bound),
    /// It has this id.
    Id(String),
}

impl Filter {
    /// All that a key reaches, the newest first.
    pub(crate) fn new(reach: Reach) -> Self {
        Self {
            reach,
            conditions: Vec::new(),
            order: Order::default(),
        }
    }

    /// What the parameters of a request ask for. An empty value is refused: ignored, it would
    /// mean everything.
    pub(crate) fn take(reach: Reach, query: &mut QueryString) -> Result<Self, ApiError> {
        let mut filter = Self::new(reach);
        for field in FIELDS {
            for excluded in [false, true] {
                if excluded && !field.can_exclude() {
                    continue;
                }
                let name = parameter(field.name, excluded);
                let given = query.take_all(&name);
                if !given.is_empty() {
                    says_something(&name, field.is_list(), &given)?;
                    filter.conditions.push(field.condition(excluded, given)?);
                }
            }
        }
        for (prefix, excluded) in [(DATA.to_owned(), false), (format!("{NOT}{DATA}"), true)] {
            while let Some(name) = query.name_beginning_with(&prefix) {
                let given = query.take_all(&name);
                let path = name.strip_prefix(&prefix).unwrap_or_default();
                let condition = data_condition(path, excluded, given.clone())?;
                says_something(&name, false, &given)?;
                filter.conditions.push(condition);
            }
        }
        Ok(filter)
    }

    /// The parameters [`take`](Self::take) knows, without exclusions.
    fn names() -> impl Iterator<Item = &'static str> {
        FIELDS.iter().map(|field| field.name)
    }

    /// Refuses what is left of the parameters when a filter and `others` were taken: a misspelt
    /// filter is an error and never a wider answer.
    pub(crate) fn refuse_rest(
        query: &QueryString,
        others: &[&'static str],
    ) -> Result<(), ApiError> {
        let Some(name) = query.rest() else {
            return Ok(());
        };
        let valid: Vec<_> = Self::names().chain(others.iter().copied()).collect();
        let asked = name.strip_prefix(NOT).unwrap_or(name);
        let reason = format!(
            "is no parameter here{}. There are {}, {DATA}<path>, and {NOT} before each of a filter",
            meant(asked, &valid),
            valid.join(", ")
        );
        Err(ApiError::invalid(echo(name), reason))
    }

    /// Asks for `field` to match one of `values` as well; if none is left that is not empty, for
    /// nothing at all.
    pub(crate) fn with(mut self, field: &Field, values: Vec<String>) -> Result<Self, ApiError> {
        self.conditions.push(field.condition(false, values)?);
        Ok(self)
    }

    /// The same, but no value is refused for what it is: what no event can have matches none.
    pub(crate) fn with_literal(
        mut self,
        field: &Field,
        values: Vec<String>,
    ) -> Result<Self, ApiError> {
        self.conditions.push(field.literal(values)?);
        Ok(self)
    }

    /// Gives the events in this order.
    pub(crate) fn in_order(self, order: Order) -> Self {
        Self { order, ..self }
    }

    /// What its caller's key reaches.
    pub(crate) fn reach(&self) -> &Reach {
        &self.reach
    }

    /// The time range it names in a set frozen at `frozen_at`: from, and before.
    pub(crate) fn range(&self, frozen_at: Millis) -> (Option<Millis>, Option<Millis>) {
        let mut range = (None, None);
        for condition in &self.conditions {
            match condition.test {
                Test::From(bound) => range.0 = Some(bound.resolve(frozen_at)),
                Test::To(bound) => range.1 = Some(bound.resolve(frozen_at)),
                _ => {}
            }
        }
        range
    }

    /// What tells this filter, its reach and its order from every other.
    pub(crate) fn hash(&self) -> [u8; 32] {
        let mut sorted = self.clone();
        sorted.conditions.sort_by(|a, b| a.name.cmp(&b.name));
        // Only maps with keys that are no texts fail, and there are none.
        let text = serde_json::to_vec(&sorted).unwrap_or_default();
        Sha256::digest(text).into()
    }

    /// Whether an index knows the rows of something that is asked for.
    pub(crate) fn is_looked_up(&self) -> bool {
        let looked_up = |c: &Condition| !c.excluded && predicate::is_looked_up(&c.test);
        self.reach.organization.is_some() || self.conditions.iter().any(looked_up)
    }

    /// Whether every row has to be read and taken apart to tell.
    pub(crate) fn scans(&self) -> bool {
        let scans = |c: &Condition| matches!(c.test, Test::Data { .. } | Test::UserAgent(_));
        self.conditions.iter().any(scans)
    }

    /// The condition of a query for these events in a set that was frozen at `frozen_at`.
    pub(crate) fn predicate(&self, frozen_at: Millis) -> Predicate {
        let mut predicate = Predicate::of(&self.reach);
        for condition in &self.conditions {
            predicate.and(condition, frozen_at);
        }
        predicate
    }
}

/// What separates words: ASCII that is neither letter nor digit, as for the engine.
fn is_between_words(c: char) -> bool {
    c.is_ascii() && !c.is_ascii_alphanumeric()
}

/// Whether every value says something; a list of nothing but commas and blanks does not.
fn says_something(name: &str, is_list: bool, given: &[String]) -> Result<(), ApiError> {
    let says_nothing = |value: &String| {
        if is_list {
            value.split(',').all(|one| one.trim().is_empty())
        } else {
            value.is_empty()
        }
    };
    if given.iter().any(says_nothing) {
        let reason = "is empty; leave it out or give it a value";
        return Err(ApiError::invalid(echo(name), reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
