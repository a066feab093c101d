//! From conditions to SQL. Values are bound to the query as parameters and never become part of
//! its text.

use audit_schema::row::Millis;
use clickhouse::query::Query;

use super::network::AddressRange;
use super::{Condition, Reach, Test};

/// Part of a query: its text, and the values bound to it.
#[derive(Debug, PartialEq)]
pub(crate) struct Predicate {
    /// What stands behind `WHERE`.
    pub(crate) sql: String,
    values: Vec<Value>,
}

/// A value bound to a query; its place in the list is its name.
#[derive(Debug, PartialEq)]
enum Value {
    Text(String),
    Texts(Vec<String>),
    Numbers(Vec<f64>),
    Millis(i64),
}

impl Predicate {
    /// The condition of all that `reach` covers.
    pub(crate) fn of(reach: &Reach) -> Self {
        let mut predicate = Self {
            sql: String::new(),
            values: Vec::new(),
        };
        let project = predicate.text(reach.project.as_str(), "String");
        predicate.sql = format!("project_id = {project}");
        if let Some(organization) = &reach.organization {
            let organization = predicate.text(organization, "String");
            predicate.narrow(&format!("organization_id = {organization}"));
        }
        predicate
    }

    /// Narrows it by a condition, in a set that was frozen at `frozen_at`.
    pub(crate) fn and(&mut self, condition: &Condition, frozen_at: Millis) {
        let test = self.test(&condition.test, frozen_at);
        let not = if condition.excluded { "NOT " } else { "" };
        self.narrow(&format!("{not}({test})"));
    }

    fn narrow(&mut self, condition: &str) {
        self.sql.push_str(" AND ");
        self.sql.push_str(condition);
    }

    /// A query with the values bound to it.
    pub(crate) fn bind(self, query: Query) -> Query {
        let mut query = query;
        for (place, value) in self.values.into_iter().enumerate() {
            let name = name(place);
            query = match value {
                Value::Text(text) => query.param(&name, text),
                Value::Texts(texts) => query.param(&name, texts),
                Value::Numbers(numbers) => query.param(&name, numbers),
                Value::Millis(millis) => query.param(&name, millis),
            };
        }
        query
    }

    fn test(&mut self, test: &Test, frozen_at: Millis) -> String {
        match test {
            Test::Nothing => "false".to_owned(),
            Test::Column(column, values) => format!("{column} IN {}", self.texts(values)),
            Test::Types {
                documented,
                sent,
                begin,
            } => {
                let mut any = Vec::new();
                for (column, names) in [("documented_type", documented), ("event_type", sent)] {
                    if !names.is_empty() {
                        any.push(format!("{column} IN {}", self.texts(names)));
                    }
                }
                for beginning in begin {
                    let beginning = self.text(beginning, "String");
                    any.push(format!("startsWith(documented_type, {beginning})"));
                    any.push(format!("startsWith(event_type, {beginning})"));
                }
                any.join(" OR ")
            }
            Test::Country(values) => {
                let names = self.texts(values);
                let codes: Vec<_> = values.iter().map(|v| v.to_ascii_uppercase()).collect();
                let codes = self.texts(&codes);
                format!("country IN {names} OR country_code IN {codes}")
            }
            Test::Address(ranges) => {
                let mut any = vec!["false".to_owned()];
                for AddressRange { first, last } in ranges {
                    let first = self.text(&first.to_string(), "IPv6");
                    let last = self.text(&last.to_string(), "IPv6");
                    any.push(format!("ip_address BETWEEN {first} AND {last}"));
                }
                any.join(" OR ")
            }
            Test::UserAgent(parts) => {
                let found = |part: &String| {
                    let part = self.text(part, "String");
                    format!("positionCaseInsensitive(user_agent, {part}) > 0")
                };
                parts.iter().map(found).collect::<Vec<_>>().join(" OR ")
            }
            Test::Words(texts) => {
                let all = |words: &Vec<String>| {
                    let words = words.iter().map(|word| self.word(word));
                    format!("({})", words.collect::<Vec<_>>().join(" AND "))
                };
                texts.iter().map(all).collect::<Vec<_>>().join(" OR ")
            }
            Test::Data { path, values } => self.data(path, values),
            Test::From(bound) => {
                let time = self.millis(bound.resolve(frozen_at));
                format!("created_at >= {time}")
            }
            Test::To(bound) => {
                let time = self.millis(bound.resolve(frozen_at));
                format!("created_at < {time}")
            }
            Test::Id(id) => format!("event_id = {}", self.text(id, "UUID")),
        }
    }

    fn word(&mut self, word: &str) -> String {
        let word = self.text(word, "String");
        format!(
            "(hasTokenCaseInsensitive(event_display_name, {word}) \
             OR hasTokenCaseInsensitive(event_data, {word}))"
        )
    }

    /// The value at a place in the event data, or each of its elements, is one of `values`.
    fn data(&mut self, path: &[String], values: &[String]) -> String {
        let keys: Vec<_> = path.iter().map(|key| self.text(key, "String")).collect();
        let place = format!("event_data, {}", keys.join(", "));
        let texts = self.texts(values);
        let mut any = vec![format!(
            "(JSONType(v) = 'String' AND JSONExtractString(v) IN {texts})"
        )];
        let numbers: Vec<_> = values.iter().filter_map(|value| number(value)).collect();
        if !numbers.is_empty() {
            let numbers = self.bound(Value::Numbers(numbers), "Array(Float64)");
            any.push(format!(
                "(JSONType(v) IN ('Int64', 'UInt64', 'Double') AND JSONExtractFloat(v) + 0 IN {numbers})"
            ));
        }
        let words = values
            .iter()
            .filter(|v| matches!(v.as_str(), "true" | "false"));
        let words: Vec<_> = words.cloned().collect();
        if !words.is_empty() {
            let words = self.texts(&words);
            any.push(format!("(JSONType(v) = 'Bool' AND v IN {words})"));
        }
        format!(
            "arrayExists(v -> {}, if(JSONType({place}) = 'Array', \
             JSONExtractArrayRaw({place}), [JSONExtractRaw({place})]))",
            any.join(" OR ")
        )
    }

    fn text(&mut self, text: &str, kind: &str) -> String {
        self.bound(Value::Text(text.to_owned()), kind)
    }

    fn texts(&mut self, texts: &[String]) -> String {
        self.bound(Value::Texts(texts.to_vec()), "Array(String)")
    }

    fn millis(&mut self, time: Millis) -> String {
        let time = self.bound(Value::Millis(time.0), "Int64");
        format!("fromUnixTimestamp64Milli({time}, 'UTC')")
    }

    /// How a value that is bound to the query is written in it.
    fn bound(&mut self, value: Value, kind: &str) -> String {
        let name = name(self.values.len());
        self.values.push(value);
        format!("{{{name}:{kind}}}")
    }
}

fn name(place: usize) -> String {
    format!("f{place}")
}

/// The number that a text writes as JSON does.
fn number(text: &str) -> Option<f64> {
    let blank = |c: char| c.is_whitespace();
    if text.starts_with(blank) || text.ends_with(blank) {
        return None;
    }
    // serde_json knows what a number is, but not always the double that is nearest to it.
    serde_json::from_str::<serde_json::Number>(text).ok()?;
    // The engine compares bits here, and -0 is 0.
    let number = text.parse::<f64>().ok()? + 0.0;
    number.is_finite().then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_the_nearest_double_of_what_json_calls_a_number() {
        assert_eq!(number("9007199254740993.0"), Some(9_007_199_254_740_992.0));
        assert_eq!(number("1e3"), Some(1_000.0));
        assert_eq!(number("-0").map(f64::to_bits), Some(0));
        for text in [
            "1e400", "01", "+1", "1.", ".5", "inf", "NaN", " 1", "1 ", "0x1", "", "1_0",
        ] {
            assert_eq!(number(text), None, "{text}");
        }
    }
}
