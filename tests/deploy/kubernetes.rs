//! `deploy/kubernetes`: the documents, each held to the types of the Kubernetes API.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use audit_tests::process::root;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A `kustomization.yaml`, as far as these use it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(crate) struct Kustomization {
    api_version: String,
    kind: String,
    namespace: Option<String>,
    resources: Vec<String>,
    images: Vec<ImageName>,
    config_map_generator: Vec<Generator>,
    secret_generator: Vec<Generator>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ImageName {
    name: String,
    new_name: String,
    new_tag: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Generator {
    name: String,
    behavior: Option<String>,
    #[serde(default)]
    literals: Vec<String>,
    #[serde(default)]
    files: Vec<String>,
    #[serde(default)]
    options: Option<Options>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Options {
    disable_name_suffix_hash: bool,
}

impl Kustomization {
    /// That of a folder.
    pub(crate) fn of(folder: &str) -> Self {
        let file = root()
            .join("deploy/kubernetes")
            .join(folder)
            .join("kustomization.yaml");
        serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
    }

    /// The settings of its one `ConfigMap`.
    pub(crate) fn settings(&self) -> BTreeMap<String, String> {
        let [generator] = self.config_map_generator.as_slice() else {
            panic!("one ConfigMap");
        };
        assert_eq!(generator.name, "audit");
        let pairs = generator
            .literals
            .iter()
            .map(|literal| literal.split_once('=').unwrap());
        pairs
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    /// The files of its secrets: secret, key, path.
    pub(crate) fn secrets(&self, folder: &str) -> Vec<(String, String, PathBuf)> {
        let mut secrets = Vec::new();
        for generator in &self.secret_generator {
            for file in &generator.files {
                let path = root().join("deploy/kubernetes").join(folder).join(file);
                let key = path.file_name().unwrap().to_str().unwrap().to_owned();
                secrets.push((generator.name.clone(), key, path));
            }
        }
        secrets
    }
}

/// The documents of the base, by kind.
#[derive(Default)]
pub(crate) struct Base {
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) stateful_sets: Vec<StatefulSet>,
    pub(crate) jobs: Vec<Job>,
    pub(crate) services: Vec<Service>,
    pub(crate) budgets: Vec<PodDisruptionBudget>,
    pub(crate) autoscalers: Vec<HorizontalPodAutoscaler>,
    pub(crate) policies: Vec<NetworkPolicy>,
}

impl Base {
    /// Reads all of it; panics at the first field that its type does not have.
    pub(crate) fn read() -> Self {
        let mut base = Self::default();
        for file in Kustomization::of("base").resources {
            let path = root().join("deploy/kubernetes/base").join(&file);
            let text = std::fs::read_to_string(path).unwrap();
            for document in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
                base.take(&document, &file);
            }
        }
        base
    }

    fn take(&mut self, document: &Value, file: &str) {
        match document["kind"].as_str().unwrap() {
            "Deployment" => self.deployments.push(typed(document, file)),
            "StatefulSet" => self.stateful_sets.push(typed(document, file)),
            "Job" => self.jobs.push(typed(document, file)),
            "Service" => self.services.push(typed(document, file)),
            "PodDisruptionBudget" => self.budgets.push(typed(document, file)),
            "HorizontalPodAutoscaler" => self.autoscalers.push(typed(document, file)),
            "NetworkPolicy" => self.policies.push(typed(document, file)),
            other => panic!("{file}: {other} is not expected"),
        }
    }
}

/// The types leave out what they do not know, so all of it has to come back.
fn typed<T: DeserializeOwned + Serialize>(document: &Value, file: &str) -> T {
    let typed: T = serde_json::from_value(document.clone())
        .unwrap_or_else(|error| panic!("{file}: {error}: {document}"));
    let back = serde_json::to_value(&typed).unwrap();
    assert_eq!(lost(document, &back, ""), Vec::<String>::new(), "{file}");
    typed
}

/// The paths of what is in `given` and not in `kept`.
fn lost(given: &Value, kept: &Value, path: &str) -> Vec<String> {
    match (given, kept) {
        (Value::Object(given), Value::Object(kept)) => {
            let each = given.iter().flat_map(|(name, value)| {
                let kept = kept.get(name).unwrap_or(&Value::Null);
                lost(value, kept, &format!("{path}.{name}"))
            });
            each.collect()
        }
        (Value::Array(given), Value::Array(kept)) if given.len() == kept.len() => {
            let pairs = given.iter().zip(kept).enumerate();
            pairs
                .flat_map(|(at, (given, kept))| lost(given, kept, &format!("{path}[{at}]")))
                .collect()
        }
        (given, kept) if given == kept => Vec::new(),
        _ => vec![path.to_owned()],
    }
}

#[test]
fn a_field_that_kubernetes_does_not_have_is_noticed() {
    let document = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"},
        "spec": {"selector": {"a": "b"}, "port": [{"port": 1}]},
    });
    let typed: Service = serde_json::from_value(document.clone()).unwrap();
    let back = serde_json::to_value(&typed).unwrap();
    assert_eq!(lost(&document, &back, ""), [".spec.port"]);
}

#[test]
fn the_base_is_all_files_of_its_folder_and_names_no_namespace() {
    let base = Kustomization::of("base");
    let folder = std::fs::read_dir(root().join("deploy/kubernetes/base")).unwrap();
    let mut files: Vec<String> = folder
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect();
    files.retain(|file| file != "kustomization.yaml");
    files.sort();
    assert_eq!(base.resources, files);
    assert_eq!(base.namespace, None);
    assert!(base.images.is_empty() && base.secret_generator.is_empty());
    for (name, namespace) in names(&Base::read()) {
        assert_eq!(namespace, None, "{name}");
    }
}

fn names(base: &Base) -> Vec<(String, Option<String>)> {
    let metadata = base.deployments.iter().map(|it| &it.metadata);
    let metadata = metadata.chain(base.stateful_sets.iter().map(|it| &it.metadata));
    let metadata = metadata.chain(base.jobs.iter().map(|it| &it.metadata));
    let metadata = metadata.chain(base.services.iter().map(|it| &it.metadata));
    let metadata = metadata.chain(base.budgets.iter().map(|it| &it.metadata));
    let metadata = metadata.chain(base.autoscalers.iter().map(|it| &it.metadata));
    let metadata = metadata.chain(base.policies.iter().map(|it| &it.metadata));
    metadata
        .map(|it| (it.name.clone().unwrap(), it.namespace.clone()))
        .collect()
}

#[test]
fn the_example_changes_what_the_base_has_and_holds_no_secret() {
    let (base, example) = (Kustomization::of("base"), Kustomization::of("example"));
    for kustomization in [&base, &example] {
        assert_eq!(kustomization.api_version, "kustomize.config.k8s.io/v1beta1");
        assert_eq!(kustomization.kind, "Kustomization");
    }
    assert_eq!(example.resources, ["../base"]);
    assert_eq!(
        example.config_map_generator[0].behavior.as_deref(),
        Some("merge")
    );
    let settings = base.settings();
    for name in example.settings().keys() {
        assert!(settings.contains_key(name), "the base has no {name}");
    }
    let images: BTreeSet<&str> = example
        .images
        .iter()
        .map(|image| image.name.as_str())
        .collect();
    assert_eq!(
        images,
        BTreeSet::from(["audit-consumer", "audit-ingest", "audit-query-api"])
    );
    for image in &example.images {
        assert!(image.new_name.ends_with(&format!("/{}", image.name)));
        assert_eq!(image.new_tag, crate::services::VERSION);
    }
    // The services read a changed file of keys by themselves, under a name that stays.
    let keys = example
        .secret_generator
        .iter()
        .find(|it| it.name == "audit-keys")
        .unwrap();
    assert!(keys.options.as_ref().unwrap().disable_name_suffix_hash);
    for (_, key, path) in example.secrets("example") {
        if key == "keys.toml" {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        for line in text
            .lines()
            .filter(|line| line.contains("password =") || line.contains("secret ="))
        {
            assert!(line.ends_with("\"REPLACE\""), "{key}: {line}");
        }
    }
}
