//! The cookbook: every question answers its story as its sample says, and reads by the keys it names.

mod attacks;
mod organizations;
mod people;
mod question;
mod story;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::stand::Stand;
use question::Question;
use story::Story;

/// Makes a story happen.
type Tell = fn(&mut Story);

/// What is told, by the name of the question that is asked about it.
const STORIES: [(&str, Tell); 20] = [
    ("01-brute-force", attacks::brute_force),
    ("02-password-spraying", attacks::password_spraying),
    ("03-credential-stuffing", attacks::credential_stuffing),
    ("04-impossible-travel", attacks::impossible_travel),
    (
        "05-first-sign-in-from-country",
        attacks::first_sign_in_from_country,
    ),
    ("06-new-device-of-an-admin", attacks::new_device_of_an_admin),
    ("07-dormant-accounts-woken", attacks::dormant_accounts_woken),
    (
        "08-access-to-an-organization",
        organizations::access_to_an_organization,
    ),
    ("09-what-an-admin-did", people::what_an_admin_did),
    ("10-impersonations", people::impersonations),
    ("11-open-invitations", organizations::open_invitations),
    (
        "12-privilege-escalation",
        organizations::privilege_escalation,
    ),
    ("13-failure-ratio", attacks::failure_ratio),
    ("14-long-sessions", people::long_sessions),
    ("15-before-a-deletion", people::before_a_deletion),
    ("16-takeover-by-reset", attacks::takeover_by_reset),
    ("17-accounts-of-one-device", people::accounts_of_one_device),
    ("18-blocked-requests", attacks::blocked_requests),
    ("19-sign-ups", people::sign_ups),
    ("20-ban-evasion", people::ban_evasion),
];

/// The project in which all the stories happen as well, also some weeks earlier, so that a question which
/// looks beyond its project gets another answer.
const OTHER: &str = "other";

/// Some weeks, in days.
const WEEKS: i64 = 20;

/// So many days before and after, each story happens to other people, so that a question which looks beyond
/// its time gets another answer.
const YEAR: i64 = 400;

/// Tells each story in a project of its own, named like its question.
async fn tell(database: &str) -> Stand {
    let stand = Stand::new(database).await;
    let mut records = Vec::new();
    for ((name, tell), question) in STORIES.into_iter().zip(questions()) {
        let told = |mut story| {
            tell(&mut story);
            story
        };
        records.extend(told(Story::of(name)).records());
        records.extend(told(Story::of(OTHER)).records());
        records.extend(told(Story::days_later(OTHER, -WEEKS)).records());
        records.extend(told(Story::days_later(name, YEAR)).records_of_others());
        // What is asked as of a time is about everything before.
        if question.taken().contains(&"from") {
            records.extend(told(Story::days_later(name, -YEAR)).records_of_others());
        }
    }
    stand.fill(&records).await;
    stand
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/clickhouse/cookbook")
}

/// All questions, in their order.
fn questions() -> Vec<Question> {
    let files = std::fs::read_dir(folder()).unwrap();
    let mut paths: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|ending| ending == "sql"));
    paths.sort();
    paths.iter().map(|path| Question::read(path)).collect()
}

#[test]
fn every_question_has_a_story() {
    let asked: Vec<_> = questions()
        .into_iter()
        .map(|question| question.name)
        .collect();
    let told: Vec<_> = STORIES.iter().map(|(name, _)| *name).collect();
    assert_eq!(asked, told);
}

#[test]
fn the_readme_links_every_question_by_its_own_words() {
    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let links: Vec<_> = readme
        .lines()
        .filter(|line| line.contains(".sql)"))
        .collect();
    let expected: Vec<_> = questions()
        .iter()
        .map(|question| {
            let (number, _) = question.name.split_once('-').unwrap();
            format!("| [{number}]({}.sql) | {} |", question.name, question.words)
        })
        .collect();
    assert_eq!(links, expected);
}

#[test]
fn every_parameter_is_explained_and_none_that_is_not_taken() {
    for question in questions() {
        let mut taken = question.taken();
        taken.sort_unstable();
        taken.dedup();
        let mut explained: Vec<_> = question
            .parameters
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        explained.sort_unstable();
        assert_eq!(taken, explained, "{}", question.name);
    }
}

/// What a plan does not show are the questions behind `IN`.
#[test]
fn no_question_looks_beyond_its_project() {
    for question in questions() {
        let looks = question.statement().matches(" audit_").count();
        let bounds = question
            .statement()
            .matches("project_id = {project:String}")
            .count();
        assert_eq!(looks, bounds, "{}", question.name);
    }
}

/// A sample that is not right is written as it should be to `target/tmp/cookbook`.
#[tokio::test]
async fn every_question_answers_its_story_as_its_sample_says() {
    let stand = tell("cookbook").await;
    let right = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cookbook");
    std::fs::create_dir_all(&right).unwrap();
    let mut wrong = Vec::new();
    for question in questions() {
        let answer = match question.ask(&stand, "", "PrettyCompactMonoBlock").await {
            Ok(answer) => answer,
            Err(error) => {
                wrong.push(format!("{}: {error}", question.name));
                continue;
            }
        };
        if answer != question.sample {
            let file = right.join(format!("{}.sql", question.name));
            std::fs::write(file, question.with_sample(&answer)).unwrap();
            wrong.push(format!("{} answers\n{answer}", question.name));
        }
    }
    assert!(
        wrong.is_empty(),
        "{}\nsee {}",
        wrong.join("\n"),
        right.display()
    );
}

/// The columns of the key that every place it reads from goes by, and the indexes used at any of them.
#[tokio::test]
async fn every_question_reads_by_the_keys_it_names() {
    let stand = tell("cookbook_keys").await;
    let mut wrong = Vec::new();
    for question in questions() {
        let plan = question
            .ask(&stand, "EXPLAIN json = 1, indexes = 1", "TSVRaw")
            .await;
        let plan: Value = serde_json::from_str(&plan.unwrap()).unwrap();
        let reads = reads_of(&plan[0]["Plan"]);
        assert!(!reads.is_empty(), "{} reads nothing", question.name);
        let by_all = |column: &&str| reads.iter().all(|read| read.contains(*column));
        let indexes: BTreeSet<_> = reads
            .iter()
            .flatten()
            .filter(|name| name.starts_with("by_"))
            .collect();
        let mut reads_by: Vec<_> = ["project_id", "created_at"]
            .into_iter()
            .filter(by_all)
            .collect();
        assert!(
            reads_by.contains(&"project_id"),
            "{} looks at other projects",
            question.name
        );
        reads_by.extend(indexes.into_iter().map(String::as_str));
        if question.reads_by != reads_by {
            wrong.push(format!(
                "{} reads by: {}",
                question.name,
                reads_by.join(", ")
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Columns of the key and indexes, for each place that a plan reads from.
fn reads_of(step: &Value) -> Vec<BTreeSet<String>> {
    let all = |list: &Value| list.as_array().cloned().unwrap_or_default();
    if step["Node Type"] == "ReadFromMergeTree" {
        let indexes = all(&step["Indexes"]).into_iter();
        let names = indexes.flat_map(|index| match index["Type"].as_str() {
            Some("PrimaryKey") => all(&index["Keys"]),
            Some("Skip") => vec![index["Name"].clone()],
            _ => Vec::new(),
        });
        return vec![
            names
                .map(|name| name.as_str().unwrap().to_owned())
                .collect(),
        ];
    }
    all(&step["Plans"]).iter().flat_map(reads_of).collect()
}
