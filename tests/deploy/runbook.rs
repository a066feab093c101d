//! `deploy/README.md`, "Upgrade and rolling restart": what it names is there, and what it says about
//! order and time is so.

use std::collections::BTreeSet;

use audit_tests::compose::Compose;
use audit_tests::image::Dockerfile;
use audit_tests::process::root;

use crate::kubernetes::Base;
use crate::services::{longest_stop, takes_arguments};

/// The order in which services are replaced.
const ORDER: [&str; 3] = ["consumer", "query-api", "ingest"];

fn section() -> String {
    let readme = std::fs::read_to_string(root().join("deploy/README.md")).unwrap();
    let (_, from) = readme
        .split_once("\n## Upgrade and rolling restart\n")
        .unwrap();
    from.split("\n## ").next().unwrap().to_owned()
}

/// What stands behind `beginning`, to the end of the word, of each line of a command that has it.
fn named(beginning: &str) -> Vec<String> {
    let section = section();
    let commands = section.split("```sh\n").skip(1);
    let lines = commands.flat_map(|block| block.split("```").next().unwrap().lines());
    let named = lines.filter_map(|line| line.split_once(beginning)?.1.split([' ', ';']).next());
    named.map(str::to_owned).collect()
}

#[test]
fn services_are_replaced_in_one_order_and_go_back_in_the_other() {
    let forth = ORDER.map(|it| format!("audit-{it}"));
    let applied = named("kubectl apply --kustomize . --selector app.kubernetes.io/name=");
    assert_eq!(applied[0], "audit-migrate");
    assert_eq!(applied[1..], forth);
    let mut back = [
        named("rollout undo statefulset/"),
        named("rollout undo deployment/"),
    ]
    .concat();
    back.reverse();
    assert_eq!(back, forth);

    let up = named("docker compose up --detach --wait --no-deps ");
    let mut both = ORDER.to_vec();
    both.extend(ORDER.iter().rev());
    assert_eq!(up, both);
}

#[test]
fn what_its_commands_name_is_there() {
    let base = Base::read();
    let deployments = base.deployments.iter().map(|it| &it.metadata.name);
    let stateful_sets = base.stateful_sets.iter().map(|it| &it.metadata.name);
    let jobs = base.jobs.iter().map(|it| &it.metadata.name);
    let there = |kind: &str, names: &mut dyn Iterator<Item = &Option<String>>| {
        let names: BTreeSet<&str> = names.filter_map(Option::as_deref).collect();
        let wanted = named(kind);
        assert!(!wanted.is_empty(), "{kind}");
        for name in &wanted {
            let name = name.strip_suffix("-plan").unwrap_or(name);
            assert!(names.contains(name), "there is no {kind}{name}");
        }
    };
    there("deployment/", &mut deployments.into_iter());
    there("statefulset/", &mut stateful_sets.into_iter());
    there("job/", &mut jobs.into_iter());

    let compose = Compose::ours().unwrap();
    for service in ORDER.into_iter().chain(["migrate"]) {
        compose.service(service).unwrap();
    }
    let image = Dockerfile::ours().unwrap().image("consumer").unwrap();
    let plan = ["migrate", "--plan"].map(str::to_owned);
    takes_arguments(&image, &image.entrypoint, &plan);
}

#[test]
fn the_times_to_stop_are_those_of_the_defaults() {
    let section = section();
    for (target, name) in [
        ("ingest", "ingest"),
        ("query-api", "the query API"),
        ("consumer", "the consumer"),
    ] {
        let said = format!("{} s for {name}", longest_stop(target).as_secs());
        assert!(section.contains(&said), "it does not say {said}");
    }
}
