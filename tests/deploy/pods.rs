//! `deploy/kubernetes/base`: that its parts fit each other, and the services they start.

use std::collections::BTreeMap;
use std::time::Duration;

use audit_tests::image::{Dockerfile, Image};
use audit_tests::process::root;
use k8s_openapi::api::core::v1::{Container, PodTemplateSpec};
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicyPort};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::kubernetes::{Base, Kustomization};
use crate::services::{
    PASSWORD, VERSION, longest_stop, port, prefix, stay_open, takes_arguments, takes_settings,
};

/// How long it may take until no node sends to a pod any more that is being stopped.
const ENDPOINTS_CHANGE: Duration = Duration::from_secs(5);

/// What runs: its name, its pods, and the volumes it claims.
struct Workload {
    name: String,
    pods: PodTemplateSpec,
    claims: Vec<String>,
    image: Image,
    target: String,
}

impl Workload {
    fn container(&self) -> &Container {
        let [container] = self.pods.spec.as_ref().unwrap().containers.as_slice() else {
            panic!("{} has one container", self.name);
        };
        container
    }

    fn labels(&self) -> &BTreeMap<String, String> {
        self.pods
            .metadata
            .as_ref()
            .unwrap()
            .labels
            .as_ref()
            .unwrap()
    }

    fn is_service(&self) -> bool {
        self.name != "audit-migrate"
    }
}

fn workloads(base: &Base) -> Vec<Workload> {
    let file = Dockerfile::ours().unwrap();
    let mut found = Vec::new();
    let mut add = |name: &Option<String>, pods: &PodTemplateSpec, claims: Vec<String>| {
        let image = pods.spec.as_ref().unwrap().containers[0]
            .image
            .clone()
            .unwrap();
        let (repository, tag) = image.split_once(':').unwrap();
        assert_eq!(tag, VERSION);
        let target = repository.strip_prefix("audit-").unwrap().to_owned();
        found.push(Workload {
            name: name.clone().unwrap(),
            pods: pods.clone(),
            claims,
            image: file.image(&target).unwrap(),
            target,
        });
    };
    for it in &base.deployments {
        add(
            &it.metadata.name,
            &it.spec.as_ref().unwrap().template,
            Vec::new(),
        );
    }
    for it in &base.stateful_sets {
        let spec = it.spec.as_ref().unwrap();
        let claims = spec.volume_claim_templates.iter().flatten();
        let claims = claims
            .map(|claim| claim.metadata.name.clone().unwrap())
            .collect();
        add(&it.metadata.name, &spec.template, claims);
    }
    for it in &base.jobs {
        add(
            &it.metadata.name,
            &it.spec.as_ref().unwrap().template,
            Vec::new(),
        );
    }
    assert_eq!(found.len(), 4);
    found
}

fn selects(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let mut equal = equal.map(|(name, value)| labels.get(name) == Some(value));
    let within = selector.match_expressions.iter().flatten();
    let mut within = within.map(|rule| {
        assert_eq!(rule.operator, "In");
        let values = rule.values.as_deref().unwrap();
        labels
            .get(&rule.key)
            .is_some_and(|value| values.contains(value))
    });
    equal.all(|it| it) && within.all(|it| it)
}

#[test]
fn every_setting_argument_and_secret_is_one_of_its_service() {
    let base = Base::read();
    let settings = Kustomization::of("base").settings();
    let secrets = Kustomization::of("example").secrets("example");
    let mut taken = 0;
    for workload in workloads(&base) {
        let container = workload.container();
        assert!(
            container.command.is_none() && container.env.is_none(),
            "{}",
            workload.name
        );
        let [from] = container.env_from.as_deref().unwrap() else {
            panic!("{} has one source of settings", workload.name);
        };
        assert_eq!(from.config_map_ref.as_ref().unwrap().name, "audit");

        let arguments = container.args.clone().unwrap();
        takes_arguments(&workload.image, &workload.image.entrypoint, &arguments);
        let [_, flag, config] = arguments.as_slice() else {
            panic!("{arguments:?}");
        };
        assert_eq!(flag, "--config");
        let mount = config.strip_prefix("/etc/audit/secrets/").unwrap();
        let (_, _, file) = secrets.iter().find(|(_, key, _)| key == mount).unwrap();
        let filled = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        let text = std::fs::read_to_string(file)
            .unwrap()
            .replace("REPLACE", PASSWORD);
        std::fs::write(
            filled.path(),
            text.replace("\n# [", "\n[").replace("\n# s", "\ns"),
        )
        .unwrap();

        let prefix = prefix(&workload.image);
        let own = settings
            .iter()
            .filter(|(name, _)| name.starts_with(&prefix));
        let own: BTreeMap<_, _> = own
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        takes_settings(&workload.image, &own, Some(filled.path()));
        if workload.is_service() {
            taken += own.len();
        }
    }
    assert_eq!(taken, settings.len(), "some settings are nobody's");
}

#[test]
fn every_volume_is_mounted_where_its_service_looks_and_every_secret_is_made() {
    let base = Base::read();
    let made = Kustomization::of("example").secrets("example");
    for workload in workloads(&base) {
        let name = &workload.name;
        let pod = workload.pods.spec.as_ref().unwrap();
        let mut volumes = workload.claims.clone();
        for volume in pod.volumes.iter().flatten() {
            volumes.push(volume.name.clone());
            let Some(secret) = &volume.secret else {
                continue;
            };
            assert_eq!(secret.default_mode, Some(0o440), "{name}");
            for item in secret.items.as_ref().unwrap() {
                let named = secret.secret_name.as_ref().unwrap();
                let there = made
                    .iter()
                    .any(|(secret, key, _)| (secret, key) == (named, &item.key));
                assert!(there, "{name}: {named} has no {}", item.key);
                assert_eq!(item.key, item.path);
            }
        }
        let mounts = workload.container().volume_mounts.as_ref().unwrap();
        let mut mounted: Vec<String> = mounts.iter().map(|mount| mount.name.clone()).collect();
        mounted.sort();
        volumes.sort();
        assert_eq!(mounted, volumes, "{name}");
        for mount in mounts {
            // What is mounted by `subPath` is not replaced when its secret is.
            assert_eq!(mount.sub_path, None, "{name}");
            assert_eq!(
                mount.read_only.unwrap_or(false),
                mount.name != "spool",
                "{name}"
            );
            let known = workload.image.environment.values();
            let mut known = known.chain(workload.container().args.iter().flatten());
            let used = known.any(|value| value.starts_with(&mount.mount_path));
            assert!(used, "{name} uses nothing in {}", mount.mount_path);
        }
    }
}

#[test]
fn ports_and_probes_are_those_of_the_service() {
    let base = Base::read();
    let all = workloads(&base);
    for workload in all.iter().filter(|workload| workload.is_service()) {
        let (name, container) = (&workload.name, workload.container());
        let ports: BTreeMap<&str, u16> = container
            .ports
            .iter()
            .flatten()
            .map(|port| {
                (
                    port.name.as_deref().unwrap(),
                    u16::try_from(port.container_port).unwrap(),
                )
            })
            .collect();
        assert_eq!(
            ports.get("admin").copied(),
            port(&workload.image, "ADMIN"),
            "{name}"
        );
        assert_eq!(
            ports.get("http").copied(),
            port(&workload.image, "HTTP"),
            "{name}"
        );
        let probes = [
            (&container.startup_probe, "/livez"),
            (&container.liveness_probe, "/livez"),
            (&container.readiness_probe, "/readyz"),
        ];
        for (probe, path) in probes {
            let asked = probe.as_ref().unwrap().http_get.as_ref().unwrap();
            assert_eq!(
                asked.port,
                IntOrString::String("admin".to_owned()),
                "{name}"
            );
            assert_eq!(asked.path.as_deref(), Some(path), "{name}");
        }
    }
    for service in &base.services {
        let spec = service.spec.as_ref().unwrap();
        let selector = LabelSelector {
            match_labels: spec.selector.clone(),
            ..LabelSelector::default()
        };
        let behind: Vec<_> = all
            .iter()
            .filter(|it| selects(&selector, it.labels()))
            .collect();
        let [workload] = behind.as_slice() else {
            panic!("{service:?}")
        };
        let [listed] = spec.ports.as_deref().unwrap() else {
            panic!("{service:?}")
        };
        assert_eq!(
            u16::try_from(listed.port).ok(),
            port(&workload.image, "HTTP")
        );
        assert_eq!(
            listed.target_port,
            Some(IntOrString::String("http".to_owned()))
        );
    }
    let governed = base.stateful_sets[0]
        .spec
        .as_ref()
        .unwrap()
        .service_name
        .clone();
    assert!(
        base.services
            .iter()
            .any(|service| service.metadata.name == governed)
    );
}

#[test]
fn pods_may_do_nothing_that_they_need_not_and_have_the_time_they_need_to_stop() {
    for workload in workloads(&Base::read()) {
        let name = &workload.name;
        let (pod, container) = (workload.pods.spec.as_ref().unwrap(), workload.container());
        let security = pod.security_context.as_ref().unwrap();
        assert_eq!(security.run_as_non_root, Some(true), "{name}");
        let ids = format!(
            "{}:{}",
            security.run_as_user.unwrap(),
            security.run_as_group.unwrap()
        );
        assert_eq!(ids, workload.image.user, "{name}");
        assert_eq!(security.fs_group, security.run_as_group, "{name}");
        assert_eq!(
            security.seccomp_profile.as_ref().unwrap().type_,
            "RuntimeDefault"
        );
        assert_eq!(pod.automount_service_account_token, Some(false), "{name}");
        let security = container.security_context.as_ref().unwrap();
        assert_eq!(security.allow_privilege_escalation, Some(false), "{name}");
        assert_eq!(security.read_only_root_filesystem, Some(true), "{name}");
        let dropped = security
            .capabilities
            .as_ref()
            .unwrap()
            .drop
            .as_deref()
            .unwrap();
        assert_eq!(dropped, ["ALL"], "{name}");
        let resources = container.resources.as_ref().unwrap();
        let (requests, limits) = (resources.requests.as_ref(), resources.limits.as_ref());
        assert!(requests.unwrap().contains_key("cpu") && limits.unwrap().contains_key("memory"));
        if workload.is_service() {
            // A hook would keep from the service that it stops, and clients on their connections.
            assert!(container.lifecycle.is_none(), "{name}");
            if port(&workload.image, "HTTP").is_some() {
                assert!(stay_open(&workload.target) >= ENDPOINTS_CHANGE, "{name}");
            }
            let grace = pod.termination_grace_period_seconds.unwrap();
            let grace = Duration::from_secs(u64::try_from(grace).unwrap());
            assert!(
                grace > longest_stop(&workload.target) + Duration::from_secs(1),
                "{name}"
            );
            let spread = pod.topology_spread_constraints.as_deref().unwrap();
            for constraint in spread {
                assert!(selects(
                    constraint.label_selector.as_ref().unwrap(),
                    workload.labels()
                ));
            }
        }
    }
}

#[test]
fn selectors_budgets_and_autoscalers_are_of_pods_that_there_are() {
    let base = Base::read();
    let all = workloads(&base);
    let of = |name: &Option<String>| {
        all.iter()
            .find(|it| Some(&it.name) == name.as_ref())
            .unwrap()
    };
    for it in &base.deployments {
        let spec = it.spec.as_ref().unwrap();
        assert!(selects(&spec.selector, of(&it.metadata.name).labels()));
        // What an autoscaler decides is not set back by an apply.
        assert_eq!(spec.replicas, None);
    }
    for it in &base.stateful_sets {
        assert!(selects(
            &it.spec.as_ref().unwrap().selector,
            of(&it.metadata.name).labels()
        ));
    }
    for it in &base.budgets {
        let selector = it.spec.as_ref().unwrap().selector.as_ref().unwrap();
        let selected: Vec<_> = all
            .iter()
            .filter(|of| selects(selector, of.labels()))
            .collect();
        assert!(selected.len() == 1 && Some(&selected[0].name) == it.metadata.name.as_ref());
    }
    assert_eq!(base.budgets.len(), 3);
    for it in &base.autoscalers {
        let target = &it.spec.as_ref().unwrap().scale_target_ref;
        assert_eq!(
            (target.kind.as_str(), Some(&target.name)),
            ("Deployment", it.metadata.name.as_ref())
        );
        assert!(
            base.deployments
                .iter()
                .any(|of| of.metadata.name == it.metadata.name)
        );
    }
}

#[test]
fn the_consumer_is_scaled_by_a_metric_it_has_up_to_its_partitions() {
    let base = Base::read();
    let named = |name: &str| {
        let mut found = base.autoscalers.iter();
        found
            .find(|it| it.metadata.name.as_deref() == Some(name))
            .unwrap()
            .spec
            .clone()
            .unwrap()
    };
    let config = std::fs::read_to_string(root().join("consumer/config.toml")).unwrap();
    let config: toml::Table = toml::from_str(&config).unwrap();
    let partitions = config["topic"]["partitions"].as_integer().unwrap();
    let scaled = named("audit-consumer");
    assert_eq!(i64::from(scaled.max_replicas), partitions);
    let metrics = scaled.metrics.unwrap();
    let metric = &metrics[0].external.as_ref().unwrap().metric.name;
    let source = std::fs::read_to_string(root().join("consumer/src/metrics.rs")).unwrap();
    assert!(
        source.contains(&format!("\"{metric}\"")),
        "the consumer has no metric {metric}"
    );
}

/// The ports of rules, as text.
fn ports<'a>(ports: impl Iterator<Item = &'a NetworkPolicyPort>) -> Vec<String> {
    let texts = ports.map(|port| match port.port.as_ref().unwrap() {
        IntOrString::Int(port) => port.to_string(),
        IntOrString::String(name) => name.clone(),
    });
    texts.collect()
}

#[test]
fn nothing_is_open_but_what_the_settings_name() {
    let base = Base::read();
    let settings = Kustomization::of("base").settings();
    let used = |workload: &Workload, key: &str| -> Option<String> {
        let value = settings.get(&format!("{}{key}", prefix(&workload.image)))?;
        Some(value.rsplit(':').next().unwrap().to_owned())
    };
    let closes = |it: &&NetworkPolicy| it.metadata.name.as_deref() == Some("audit-deny");
    let deny = base
        .policies
        .iter()
        .find(closes)
        .unwrap()
        .spec
        .as_ref()
        .unwrap();
    assert!(deny.ingress.is_none() && deny.egress.is_none());
    assert_eq!(deny.policy_types.as_deref().unwrap(), ["Ingress", "Egress"]);
    for workload in workloads(&base) {
        let labels = workload.labels();
        assert!(
            selects(deny.pod_selector.as_ref().unwrap(), labels),
            "{}",
            workload.name
        );
        let specs = base.policies.iter().map(|it| it.spec.as_ref().unwrap());
        let of_it = specs.filter(|it| selects(it.pod_selector.as_ref().unwrap(), labels));
        let (mut goes, mut comes) = (Vec::new(), Vec::new());
        for policy in of_it {
            let rules = policy.egress.iter().flatten();
            goes.extend(ports(rules.flat_map(|rule| rule.ports.iter().flatten())));
            let rules = policy.ingress.iter().flatten();
            comes.extend(ports(rules.flat_map(|rule| rule.ports.iter().flatten())));
        }
        let servers = ["KAFKA__BROKERS", "CLICKHOUSE__URL"].map(|key| used(&workload, key));
        let mut wanted: Vec<String> = servers.into_iter().flatten().collect();
        wanted.extend(["53".to_owned(), "53".to_owned()]);
        for list in [&mut goes, &mut wanted, &mut comes] {
            list.sort();
        }
        assert_eq!(goes, wanted, "{}", workload.name);
        let listed = workload.container().ports.iter().flatten();
        let mut listens: Vec<String> = listed.map(|port| port.name.clone().unwrap()).collect();
        listens.sort();
        assert_eq!(comes, listens, "{}", workload.name);
    }
}

#[test]
fn a_claim_holds_what_a_spool_may_grow_to() {
    let config = std::fs::read_to_string(root().join("ingest/config.toml")).unwrap();
    let config: toml::Table = toml::from_str(&config).unwrap();
    let spool = config["kafka"]["spool"]["max_bytes"].as_integer().unwrap();
    let base = Base::read();
    let claims = base.stateful_sets[0]
        .spec
        .as_ref()
        .unwrap()
        .volume_claim_templates
        .clone();
    let claim = claims.unwrap().remove(0).spec.unwrap();
    let size = claim.resources.unwrap().requests.unwrap()["storage"]
        .0
        .clone();
    let gibibytes: i64 = size.strip_suffix("Gi").unwrap().parse().unwrap();
    assert!(gibibytes << 30 > spool);
}
