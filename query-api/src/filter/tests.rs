//! What filters say in SQL, what they are bound to, and what is refused.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::field::{EVENT_TYPE, IDENTIFIER, ORGANIZATION_ID, USER_ID};
use super::*;

const NOW: Millis = Millis(1_800_000_000_000);

fn acme() -> Reach {
    Reach {
        project: "acme".parse().unwrap(),
        organization: None,
    }
}

fn asked(raw: &str) -> Result<Filter, String> {
    let mut query = QueryString::parse(Some(raw)).unwrap();
    let filter = Filter::take(acme(), &mut query).map_err(|error| error.to_string())?;
    Filter::refuse_rest(&query, &[]).map_err(|error| error.to_string())?;
    Ok(filter)
}

fn sql(filter: &Filter) -> String {
    filter.predicate(NOW).sql()
}

#[test]
fn every_filter_has_its_sql() {
    let said: Vec<_> = [
        "userId=u1&userId=u2&organizationId=o2,o1&identifier=a@b.c",
        "actorId=a&eventKey=k&sessionId=s&requestId=r&city=Graz",
        "eventType=user_created&eventType=invoice.paid,member_added,security_*",
        "category=security,account&outcome=failure",
        "ip=192.0.2.0/24&ip=::/0&not.ip=::&not.ip=192.0.2.6/31",
        "country=at,Austria&userAgent=firefox&userAgent=curl",
        "q=hello+world&q=passkey",
        "data.loginMethod=passkey&not.data.a.b=1&not.data.a.b=true&not.data.a.b=x",
        "from=2026-01-31T12:00:00%2B01:00&to=-90m",
        "not.userId=u1&not.eventType=user_*&not.country=AT&not.q=x",
    ]
    .into_iter()
    .map(|raw| {
        let filter = asked(raw).unwrap();
        let (looked_up, scans) = (filter.is_looked_up(), filter.scans());
        let said = filter.predicate(NOW);
        format!("{raw}\nlooked up: {looked_up}, scans: {scans}\n{said:#?}")
    })
    .collect();
    insta::assert_snapshot!(said.join("\n\n"));
}

#[test]
fn a_key_of_one_organization_asks_for_nothing_else() {
    let reach = Reach {
        organization: Some("o1".into()),
        ..acme()
    };
    let filter = Filter::new(reach).with(&ORGANIZATION_ID, vec!["o2".into()]);
    assert_eq!(
        sql(&filter.unwrap()),
        "project_id = {f0:String} AND organization_id = {f1:String} \
         AND (organization_id = {f2:String})"
    );
}

#[test]
fn a_filter_without_a_value_that_says_something_matches_nothing() {
    let filter = Filter::new(acme()).with(&ORGANIZATION_ID, vec![" , ".into()]);
    assert_eq!(
        sql(&filter.unwrap()),
        "project_id = {f0:String} AND (false)"
    );
}

#[test]
fn bad_values_are_refused_by_name() {
    let long = format!("userId={}", "x".repeat(1_025));
    let many = format!("organizationId={}", "o,".repeat(1_001));
    let sought = "q=x&".repeat(101);
    let deep = format!("data.{}=1", ["a"; 9].join("."));
    let refusals: Vec<_> = [
        "userId=",
        "not.userId=",
        "userId=u&userId=",
        "eventType=,%20",
        "eventType=*",
        "eventType=%C3%A4",
        "category=users",
        "outcome=failed",
        "ip=192.0.2",
        "q=%2B%20-",
        "from=yesterday",
        "from=",
        "to=1&to=2",
        "not.from=1",
        "to=99999999999999999999",
        "from=2026-01-31T12:00:00+01:00",
        "data.=1",
        "data.a..b=1",
        "data.a=",
        "usrId=u1",
        "userId[eq]=u1",
        &long,
        &many,
        &sought,
        &deep,
    ]
    .into_iter()
    .map(|raw| asked(raw).map(drop).unwrap_err())
    .collect();
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn the_order_and_writing_of_values_do_not_change_a_filter() {
    let hash = |raw| asked(raw).unwrap().hash();
    assert_eq!(
        hash("organizationId=o1,o2&userId=u&data.a=1&data.b=2"),
        hash("data.b=2&userId=u&organizationId=o2&organizationId=o1,o1&data.a=1")
    );
    assert_eq!(
        hash("from=1700000000123"),
        hash("from=2023-11-14T22:13:20.123Z")
    );
    assert_eq!(hash("from=-1d"), hash("from=-24h"));
}

#[test]
fn an_exclusion_is_another_filter() {
    let hash = |raw| asked(raw).unwrap().hash();
    assert_ne!(hash("userId=u"), hash("not.userId=u"));
    assert_ne!(hash("data.userId=u"), hash("userId=u"));
    assert_ne!(hash("data.a.b=u"), hash("data.a=u"));
    assert_ne!(hash("from=-1d"), hash("to=-1d"));
}

#[test]
fn a_name_of_any_length_makes_a_short_message() {
    let long = "x".repeat(10_000);
    assert!(asked(&long).unwrap_err().len() < 500);
}

proptest! {
    #[test]
    fn no_value_reaches_the_text_of_a_query(
        values in prop::collection::vec("[^,*]{1,40}", 1..5), user in ".{1,40}", path in "[^.]{1,9}",
    ) {
        let filter = |user: &str, values: &[String], path: &str| {
            let mut filter = Filter::new(acme())
                .with(&USER_ID, vec![user.into()])
                .unwrap()
                .with(&IDENTIFIER, values.to_vec())
                .unwrap();
            let condition = data_condition(path, true, values.to_vec()).unwrap();
            filter.conditions.push(condition);
            filter
        };
        // Words that are neither numbers nor booleans, so that all are asked for alike.
        let values: BTreeSet<_> = values.iter().map(|value| format!("ψ{value}")).collect();
        let plain: Vec<_> = (0..values.len()).map(|place| format!("ψ{place}")).collect();
        let values: Vec<_> = values.into_iter().collect();
        let said = sql(&filter(&user, &values, &path));
        let of_project = said.starts_with("project_id = {f0:String} AND ");
        prop_assert!(of_project);
        prop_assert_eq!(said, sql(&filter("u", &plain, "p")));
    }

    #[test]
    fn a_type_is_checked_before_it_is_asked_for(types in prop::collection::vec(".{0,20}", 1..4)) {
        if let Ok(filter) = Filter::new(acme()).with(&EVENT_TYPE, types) {
            let said = sql(&filter);
            prop_assert!(said.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' '));
        }
    }

    #[test]
    fn filters_that_ask_for_something_else_have_other_hashes(
        left in prop::collection::vec("[ab]{1,2}", 1..4),
        right in prop::collection::vec("[ab]{1,2}", 1..4),
        other_field: bool, other_project: bool, other_organization: bool, ascending: bool,
    ) {
        let reach = Reach {
            project: if other_project { "other" } else { "acme" }.parse().unwrap(),
            organization: other_organization.then(|| "o1".to_owned()),
        };
        let order = if ascending { Order::Ascending } else { Order::Descending };
        let field = if other_field { &IDENTIFIER } else { &USER_ID };
        let left = Filter::new(acme()).with(&USER_ID, left).unwrap();
        let right = Filter::new(reach).with(field, right).unwrap().in_order(order);
        prop_assert_eq!(left == right, left.hash() == right.hash());
    }
}
