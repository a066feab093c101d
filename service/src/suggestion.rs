//! What somebody meant who wrote a name that there is not.

/// Most names that are suggested.
const MOST: usize = 3;

/// The names of `valid` that are written most like `name`, the nearest first: at most three, and
/// none that differs in more than half of the letters of `name`. Capitals count as small letters.
///
/// The order does not depend on that of `valid`.
pub fn nearest<'a>(name: &str, valid: &[&'a str]) -> Vec<&'a str> {
    let name = name.to_lowercase();
    let length = name.chars().count();
    let furthest = length / 2;
    let mut near: Vec<_> = valid
        .iter()
        .filter_map(|valid| {
            let lower = valid.to_lowercase();
            // Lengths that differ so much say enough; a name that is sent may be very long.
            if lower.chars().count().abs_diff(length) > furthest {
                return None;
            }
            let distance = strsim::damerau_levenshtein(&name, &lower);
            (distance <= furthest).then_some((distance, *valid))
        })
        .collect();
    near.sort_unstable();
    near.dedup();
    near.truncate(MOST);
    near.into_iter().map(|(_, valid)| valid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &[&str] = &[
        "userId",
        "eventType",
        "eventKey",
        "organizationId",
        "limit",
        "from",
        "to",
    ];

    #[test]
    fn a_name_with_a_slip_is_recognized() {
        for (name, meant) in [
            ("userID", "userId"),
            ("usreId", "userId"),
            ("user_id", "userId"),
            ("lmit", "limit"),
            ("organisationId", "organizationId"),
            ("frm", "from"),
        ] {
            assert_eq!(nearest(name, VALID), [meant], "{name}");
        }
    }

    #[test]
    fn the_nearest_comes_first_and_equals_come_by_the_alphabet() {
        assert_eq!(nearest("eventTyp", VALID), ["eventType", "eventKey"]);
        let (given, reversed) = (["ab", "ac", "ad", "ae"], ["ae", "ad", "ac", "ab"]);
        assert_eq!(nearest("ax", &given), ["ab", "ac", "ad"]);
        assert_eq!(nearest("ax", &reversed), ["ab", "ac", "ad"]);
    }

    #[test]
    fn a_name_like_no_other_suggests_nothing() {
        let long = "x".repeat(1_000_000);
        for name in ["", "x", "password", long.as_str()] {
            assert_eq!(nearest(name, VALID), [""; 0]);
        }
    }
}
