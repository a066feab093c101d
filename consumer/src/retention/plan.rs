//! What goes: pure, so that every case can be tried.
//!
//! What is kept for [`Retention::keep`] goes by whole months, when their last day is old enough;
//! what a project has of its own goes by whole days, so that however often retention runs, a month
//! is rewritten once a day at most; what is kept for less than a day goes to the millisecond. A
//! month of which every row goes is dropped as a whole; of others rows are deleted. Nothing goes
//! that Kafka took in after the log was last complete: there, rows may still come.

use std::collections::BTreeMap;
use std::time::Duration;

use audit_schema::ProjectId;
use audit_schema::row::Millis;
use serde::{Serialize, Serializer};

use crate::batch::Table;
use crate::config::{Keep, Retention};
use crate::dead_letters::time;
use crate::month::{self, Month};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Whose rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    /// Those of these projects.
    Of(Vec<ProjectId>),
    /// Those of all projects but these.
    AllBut(Vec<ProjectId>),
}

/// Which rows go: those of some projects that Kafka took before a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// Whose.
    pub(super) whose: Whose,
    /// Before which time.
    pub(super) before: Millis,
    /// The setting that says so.
    pub(super) keep: Duration,
}

/// What there is of a month.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Held {
    /// The month.
    pub(super) month: Month,
    /// All rows of it.
    pub(super) rows: u64,
    /// The bytes they take.
    pub(super) bytes: u64,
}

/// What goes of one project in one month.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Going {
    /// The month.
    #[serde(skip)]
    pub month: Month,
    /// Whose rows; empty for dead letters.
    pub project: String,
    /// How many.
    pub rows: u64,
    /// All that Kafka took before this time goes.
    #[serde(serialize_with = "as_text")]
    pub before: Millis,
    /// The setting that says so.
    #[serde(with = "humantime_serde")]
    pub kept_for: Duration,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives references")]
fn as_text<S: Serializer>(at: &Millis, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time(*at))
}

/// What goes of one month of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Removal {
    /// From which table.
    pub table: Table,
    /// The month Kafka took the rows in.
    pub month: Month,
    /// Whether the month goes as a whole.
    pub whole: bool,
    /// How many rows go.
    pub rows: u64,
    /// How many bytes they take, as far as that can be known before they are gone.
    pub bytes: u64,
    /// Whose rows they are.
    pub projects: Vec<Going>,
}

impl Serialize for Table {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Which events go, at `now` and with a log that is complete up to a time.
pub(super) fn rules_of_events(
    config: &Retention,
    now: Millis,
    complete_up_to: Millis,
) -> Vec<Rule> {
    let before = |keep| now.earlier_by(keep).min(complete_up_to);
    let mut own: BTreeMap<Duration, Vec<ProjectId>> = BTreeMap::new();
    for (project, keep) in &config.projects {
        if let Keep::For(keep) = keep {
            own.entry(*keep).or_default().push(project.clone());
        }
    }
    let of_others = config.keep.span().map(|keep| Rule {
        whose: Whose::AllBut(config.projects.keys().cloned().collect()),
        before: month::around(before(keep)).start,
        keep,
    });
    let own = own.into_iter().map(|(keep, projects)| Rule {
        whose: Whose::Of(projects),
        before: if keep < DAY {
            before(keep)
        } else {
            month::day_begin(before(keep))
        },
        keep,
    });
    of_others.into_iter().chain(own).collect()
}

/// Which dead letters go; they are of no project.
pub(super) fn rules_of_dead_letters(
    config: &Retention,
    now: Millis,
    complete_up_to: Millis,
) -> Vec<Rule> {
    let rule = config.dead_letters.span().map(|keep| Rule {
        whose: Whose::AllBut(Vec::new()),
        before: month::around(now.earlier_by(keep).min(complete_up_to)).start,
        keep,
    });
    rule.into_iter().collect()
}

/// Month by month what goes of `table`, given all that there is and what the rules found.
pub(super) fn plan(
    table: Table,
    held: &[Held],
    going: Vec<Going>,
    complete_up_to: Millis,
) -> Vec<Removal> {
    let mut months: BTreeMap<Month, Vec<Going>> = BTreeMap::new();
    for going in going.into_iter().filter(|going| going.rows > 0) {
        months.entry(going.month).or_default().push(going);
    }
    let removal = |(month, mut projects): (Month, Vec<Going>)| {
        projects.sort_by(|a, b| b.rows.cmp(&a.rows).then_with(|| a.project.cmp(&b.project)));
        let rows = projects
            .iter()
            .fold(0_u64, |sum, going| sum.saturating_add(going.rows));
        let held = held.iter().find(|held| held.month == month);
        let (all, bytes) = held.map_or((rows, 0), |held| (held.rows, held.bytes));
        let share = u128::from(bytes).saturating_mul(rows.into()) / u128::from(all.max(1));
        Removal {
            table,
            month,
            whole: rows == all && month.range().end <= complete_up_to,
            rows,
            bytes: u64::try_from(share).unwrap_or(bytes).min(bytes),
            projects,
        }
    };
    months.into_iter().map(removal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, Utc};

    fn at(text: &str) -> Millis {
        text.parse::<DateTime<Utc>>().unwrap().into()
    }

    fn config(keep: Keep, projects: &[(&str, Keep)]) -> Retention {
        Retention {
            keep,
            dead_letters: Keep::Forever,
            run_every: None,
            projects: projects
                .iter()
                .map(|(project, keep)| (project.parse().unwrap(), *keep))
                .collect(),
        }
    }

    fn days(days: u32) -> Keep {
        Keep::For(DAY * days)
    }

    /// Whose rows go, and before when.
    fn said(rules: &[Rule]) -> Vec<String> {
        let names = |projects: &[ProjectId]| -> Vec<String> {
            projects.iter().map(ToString::to_string).collect()
        };
        let rule = |rule: &Rule| {
            let whose = match &rule.whose {
                Whose::Of(projects) => names(projects).join(" "),
                Whose::AllBut(projects) => format!("all but {}", names(projects).join(" ")),
            };
            format!("{whose}: {}", time(rule.before))
        };
        rules.iter().map(rule).collect()
    }

    fn held(month: u32, rows: u64) -> Held {
        Held {
            month: Month(month),
            rows,
            bytes: rows * 10,
        }
    }

    fn going(month: u32, project: &str, rows: u64) -> Going {
        Going {
            month: Month(month),
            project: project.to_owned(),
            rows,
            before: Millis(1),
            kept_for: DAY,
        }
    }

    #[test]
    fn nothing_goes_unless_that_is_said() {
        let now = at("2026-11-26T10:00:00Z");
        let forever = config(Keep::Forever, &[("legal", Keep::Forever)]);
        assert_eq!(rules_of_events(&forever, now, now), []);
        assert_eq!(rules_of_dead_letters(&forever, now, now), []);
    }

    #[test]
    fn what_all_keep_goes_by_months_and_what_a_project_has_of_its_own_by_days() {
        let now = at("2026-11-26T10:00:00Z");
        let projects = [
            ("short", days(30)),
            ("other", days(30)),
            ("brief", Keep::For(Duration::from_secs(3))),
            ("long", days(100)),
            ("legal", Keep::Forever),
        ];
        let rules = rules_of_events(&config(days(60), &projects), now, now);
        assert_eq!(
            said(&rules),
            [
                "all but brief legal long other short: 2026-09-01T00:00:00.000Z",
                "brief: 2026-11-26T09:59:57.000Z",
                "other short: 2026-10-27T00:00:00.000Z",
                "long: 2026-08-18T00:00:00.000Z",
            ]
        );
    }

    #[test]
    fn nothing_goes_from_where_rows_may_still_come() {
        let (now, complete) = (at("2026-11-26T10:00:00Z"), at("2026-08-20T07:00:00Z"));
        let retention = Retention {
            dead_letters: days(1),
            ..config(days(30), &[("short", days(1))])
        };
        assert_eq!(
            said(&rules_of_events(&retention, now, complete)),
            [
                "all but short: 2026-08-01T00:00:00.000Z",
                "short: 2026-08-20T00:00:00.000Z",
            ]
        );
        assert_eq!(
            said(&rules_of_dead_letters(&retention, now, complete)),
            ["all but : 2026-08-01T00:00:00.000Z"]
        );
    }

    #[test]
    fn a_month_goes_as_a_whole_if_all_of_its_rows_go() {
        let all = [
            held(202_608, 100),
            held(202_609, 100),
            held(202_610, 50),
            held(202_611, 7),
        ];
        let going = vec![
            going(202_608, "b", 60),
            going(202_608, "a", 40),
            // A project that is kept for longer has the other 10.
            going(202_609, "a", 90),
            going(202_610, "short", 20),
            // Rows may still come into it.
            going(202_611, "short", 7),
        ];
        let plan = plan(Table::Events, &all, going, at("2026-11-20T00:00:00Z"));
        let of: Vec<_> = plan
            .iter()
            .map(|r| (r.month.0, r.whole, r.rows, r.bytes))
            .collect();
        assert_eq!(
            of,
            [
                (202_608, true, 100, 1000),
                (202_609, false, 90, 900),
                (202_610, false, 20, 200),
                (202_611, false, 7, 70),
            ]
        );
        let projects: Vec<_> = plan[0]
            .projects
            .iter()
            .map(|p| p.project.as_str())
            .collect();
        assert_eq!(projects, ["b", "a"]);
    }
}
