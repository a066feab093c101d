//! `deploy/compose.yaml`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use audit_schema::access::{READER, WRITER, statements};
use audit_schema::clickhouse::Engine;
use audit_tests::compose::{Compose, words};
use audit_tests::image::{Dockerfile, Image};
use audit_tests::process::root;
use serde_json::Value;

use crate::services::{PASSWORD, VERSION, longest_stop, port, takes_arguments, takes_settings};

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

fn ours() -> Compose {
    Compose::ours().unwrap()
}

/// All required variables, set.
fn set(compose: &Compose) -> BTreeMap<String, String> {
    let required = compose
        .variables
        .iter()
        .filter(|(_, default)| default.is_none());
    required
        .map(|(name, _)| (name.clone(), PASSWORD.to_owned()))
        .collect()
}

/// The services that run an image of this repository, with its target.
fn of_this_repository(compose: &Compose) -> Vec<(&str, &Value, String, Image)> {
    let file = Dockerfile::ours().unwrap();
    let images = compose.services().filter_map(|(name, service)| {
        let target = text(&service["image"]).strip_prefix("audit-")?;
        let version = format!(":${{AUDIT_VERSION:-{VERSION}}}");
        let target = target.strip_suffix(&version).expect("our version");
        Some((
            name,
            service,
            target.to_owned(),
            file.image(target).unwrap(),
        ))
    });
    images.collect()
}

fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

/// The entries of a list; none if there is no list.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

#[test]
fn it_is_what_the_compose_specification_allows() {
    let schema: Value = serde_json::from_str(include_str!("compose-spec.json")).unwrap();
    let schema = jsonschema::validator_for(&schema).unwrap();
    let mut document = ours().document;
    let wrong = |document: &Value| -> Vec<String> {
        let errors = schema.iter_errors(document);
        errors
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    };
    assert_eq!(wrong(&document), Vec::<String>::new());
    document["services"]["ingest"]["read-only"] = Value::Bool(true);
    assert_eq!(
        wrong(&document).len(),
        1,
        "a key that does not exist is noticed"
    );
}

#[test]
fn what_is_secret_has_no_default_and_only_this_machine_reaches_it() {
    let compose = ours();
    let with_default = compose
        .variables
        .iter()
        .filter(|(_, default)| default.is_some());
    let with_default: Vec<_> = with_default
        .map(|(name, default)| (name.as_str(), default))
        .collect();
    assert_eq!(with_default, [("AUDIT_VERSION", &Some(VERSION.to_owned()))]);
    let readme = read("deploy/README.md");
    for (name, _) in compose
        .variables
        .iter()
        .filter(|(_, default)| default.is_none())
    {
        assert!(
            readme.contains(name),
            "deploy/README.md does not say how to make {name}"
        );
    }
    for (name, service) in compose.services() {
        for published in list(&service["ports"]) {
            assert!(
                text(published).starts_with("127.0.0.1:"),
                "{name}: {published}"
            );
        }
        let environment = service["environment"].as_object().into_iter().flatten();
        for (setting, value) in environment {
            let secret = ["PASSWORD", "SECRET"]
                .iter()
                .any(|word| setting.ends_with(word));
            assert!(
                !secret || text(value).starts_with("${"),
                "{setting} is written down"
            );
        }
    }
}

#[test]
fn images_are_pinned_to_the_versions_that_are_tested() {
    let compose = ours();
    let pom = read("deploy/local/kafka/pom.xml");
    let after = pom
        .split_once("<artifactId>kafka_2.13</artifactId>")
        .unwrap()
        .1;
    let kafka = after
        .split_once("<version>")
        .unwrap()
        .1
        .split_once('<')
        .unwrap()
        .0;
    let image = |name: &str| text(&compose.service(name).unwrap()["image"]).to_owned();
    assert_eq!(image("kafka"), format!("apache/kafka:{kafka}"));

    let engine: Value = serde_json::from_str(&read("deploy/local/engine/package.json")).unwrap();
    let dependencies = engine["dependencies"].as_object().unwrap();
    let engine = text(dependencies.values().next().unwrap());
    let release = engine.split('.').take(2).collect::<Vec<_>>().join(".");
    let tag = image("clickhouse");
    let tag = tag.strip_prefix("clickhouse/clickhouse-server:").unwrap();
    assert!(
        tag.starts_with(&format!("{release}.")) && tag.split('.').count() == 4,
        "{tag}"
    );

    for (name, service, target, _) in of_this_repository(&compose) {
        if service["build"].is_object() {
            assert_eq!(text(&service["build"]["target"]), target, "{name}");
            assert_eq!(text(&service["build"]["dockerfile"]), "deploy/Dockerfile");
            assert_eq!(text(&service["build"]["context"]), "..");
        }
    }
}

#[test]
fn volumes_files_and_services_that_are_named_exist() {
    let compose = ours();
    let made: BTreeSet<&str> = compose.document["volumes"]
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    let mut used = BTreeSet::new();
    for (name, service) in compose.services() {
        for mount in list(&service["volumes"]) {
            let from = text(mount).split_once(':').unwrap().0;
            if from.starts_with('.') {
                assert!(
                    root().join("deploy").join(from).is_file(),
                    "{name}: {mount}"
                );
            } else {
                used.insert(from);
            }
        }
        for (other, how) in service["depends_on"].as_object().into_iter().flatten() {
            let other = compose.service(other).unwrap();
            match text(&how["condition"]) {
                "service_healthy" => assert!(other["healthcheck"]["test"].is_array()),
                "service_completed_successfully" => {
                    assert_eq!(text(&other["restart"]), "on-failure:5");
                }
                other => panic!("{name} waits for {other}"),
            }
        }
    }
    assert_eq!(used, made);
}

#[test]
fn every_setting_argument_port_and_folder_is_one_of_its_service() {
    let compose = ours();
    let set = set(&compose);
    for (name, service, _, image) in of_this_repository(&compose) {
        takes_settings(&image, &compose.environment(service, &set).unwrap(), None);
        let (mut entrypoint, mut command) = (
            words(service.get("entrypoint")),
            words(service.get("command")),
        );
        if entrypoint.is_empty() {
            entrypoint.clone_from(&image.entrypoint);
            if command.is_empty() {
                command.clone_from(&image.command);
            }
        }
        takes_arguments(&image, &entrypoint, &command);
        for published in list(&service["ports"]) {
            let inside = text(published).rsplit(':').next().unwrap().parse().unwrap();
            assert!(
                image.ports.contains(&inside),
                "{name} does not listen on {inside}"
            );
        }
        for mount in list(&service["volumes"]) {
            let to = text(mount).split(':').nth(1).unwrap();
            let known = image
                .environment
                .values()
                .any(|value| value.starts_with(to));
            assert!(known, "{name} uses nothing in {to}");
        }
    }
}

#[test]
fn the_addresses_are_those_of_the_servers() {
    let compose = ours();
    for (_, service, _, _) in of_this_repository(&compose) {
        for (name, value) in compose.environment(service, &set(&compose)).unwrap() {
            match name {
                name if name.ends_with("__BROKERS") => assert_eq!(value, "kafka:9092"),
                name if name.ends_with("__URL") => assert_eq!(value, "http://clickhouse:8123"),
                _ => {}
            }
        }
    }
    let kafka = &compose.service("kafka").unwrap()["environment"];
    assert_eq!(
        text(&kafka["KAFKA_ADVERTISED_LISTENERS"]),
        "PLAINTEXT://kafka:9092"
    );
    let data = text(&kafka["KAFKA_LOG_DIRS"]);
    let mounts = &compose.service("kafka").unwrap()["volumes"];
    assert!(list(mounts).any(|mount| text(mount) == format!("kafka:{data}")));
}

#[test]
fn the_services_write_nothing_but_their_volumes_and_have_limits_and_time_to_stop() {
    let compose = ours();
    for (name, service, target, image) in of_this_repository(&compose) {
        assert_eq!(service["read_only"], Value::Bool(true), "{name}");
        let runs_on = port(&image, "ADMIN").is_some() && service["build"].is_object();
        if runs_on {
            assert!(
                service["deploy"]["resources"]["limits"]["memory"].is_string(),
                "{name}"
            );
            let grace = text(&service["stop_grace_period"]);
            let grace = humantime_serde::re::humantime::parse_duration(grace).unwrap();
            assert!(
                grace > longest_stop(&target) + Duration::from_secs(1),
                "{name}"
            );
        }
    }
    for (name, service) in compose.services() {
        assert_eq!(words(service.get("cap_drop")), ["ALL"], "{name}");
        assert_eq!(
            words(service.get("security_opt")),
            ["no-new-privileges:true"],
            "{name}"
        );
    }
}

#[test]
fn the_users_of_clickhouse_have_the_rights_of_their_roles() {
    let compose = ours();
    let users = read("deploy/clickhouse/users.d/audit.xml");
    let section = |user: &str| {
        let after = users.split_once(&format!("<{user}>")).expect(user).1;
        after
            .split_once(&format!("</{user}>"))
            .unwrap()
            .0
            .to_owned()
    };
    let set = set(&compose);
    let server = compose.service("clickhouse").unwrap();
    let known = compose.environment(server, &set).unwrap();
    for (name, service, _, _) in of_this_repository(&compose) {
        let environment = compose.environment(service, &set).unwrap();
        let Some((_, user)) = environment
            .iter()
            .find(|(name, _)| name.ends_with("CLICKHOUSE__USER"))
        else {
            continue;
        };
        let section = section(user);
        let password = section
            .split_once("from_env=\"")
            .unwrap()
            .1
            .split_once('"')
            .unwrap()
            .0;
        assert!(
            known.contains_key(password),
            "clickhouse is not told {password}"
        );
        let given = service["environment"].as_object().unwrap();
        let (_, given) = given
            .iter()
            .find(|(name, _)| name.ends_with("PASSWORD"))
            .unwrap();
        assert!(
            text(given).starts_with(&format!("${{{password}:?")),
            "{name}: {given}"
        );
    }
    for (user, role) in [("audit_consumer", WRITER), ("audit_query_api", READER)] {
        let to = format!(" TO {role}");
        let statements = statements("audit", &Engine::SingleNode);
        let rights: Vec<String> = statements
            .iter()
            .filter_map(|statement| statement.strip_prefix("GRANT ")?.strip_suffix(&to))
            .flat_map(|rights| rights.split(", ").map(str::to_owned))
            .collect();
        let section = section(user);
        let granted = section.split("<query>GRANT ").skip(1);
        let granted: Vec<&str> = granted
            .map(|rest| rest.split_once('<').unwrap().0)
            .collect();
        assert_eq!(granted, rights, "{user}");
    }
}
