//! `deploy/Dockerfile`.

use std::collections::BTreeMap;
use std::process::Command;

use audit_tests::image::Dockerfile;
use audit_tests::process::{program, root};

use crate::services::{VERSION, healthcheck, port, prefix, takes_arguments, takes_settings};

/// The package that a library comes from, on the Debian of the images. The last three are in every
/// image of it.
const PACKAGES: [(&str, &str); 7] = [
    ("libssl.so.3", "libssl3"),
    ("libcrypto.so.3", "libssl3"),
    ("libz.so.1", "zlib1g"),
    ("libgcc_s.so.1", ""),
    ("libm.so.6", ""),
    ("libc.so.6", ""),
    ("linux-vdso.so.1", ""),
];

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap()
}

#[test]
fn the_images_are_built_with_the_toolchain_of_the_workspace_on_one_debian() {
    let file = Dockerfile::ours().unwrap();
    let toolchain: toml::Table = toml::from_str(&read("rust-toolchain.toml")).unwrap();
    let channel = toolchain["toolchain"]["channel"].as_str().unwrap();
    let debian = file.arguments["RUNTIME"].strip_prefix("debian:").unwrap();
    let debian = debian.strip_suffix("-slim").unwrap();
    assert_eq!(
        file.arguments["BUILDER"],
        format!("rust:{channel}-slim-{debian}")
    );
    assert_eq!(file.targets(), ["ingest", "consumer", "query-api"]);
}

#[test]
fn a_build_is_given_the_workspace_and_nothing_else() {
    let given = read("deploy/Dockerfile.dockerignore");
    let given: Vec<&str> = given
        .lines()
        .filter(|line| !line.starts_with('#'))
        .collect();
    let workspace: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let members = workspace["workspace"]["members"].as_array().unwrap();
    let mut needed = vec!["!Cargo.lock".to_owned(), "!Cargo.toml".to_owned()];
    needed.extend(
        members
            .iter()
            .map(|member| format!("!{}", member.as_str().unwrap())),
    );
    needed.sort();
    let mut wanted = vec!["*".to_owned()];
    wanted.extend(needed);
    wanted.push("**/node_modules".to_owned());
    assert_eq!(given, wanted);
}

#[test]
fn an_image_starts_its_program_as_nobody_and_asks_it_by_itself() {
    let file = Dockerfile::ours().unwrap();
    let build = file.image("build").unwrap().runs.join("\n");
    for target in file.targets() {
        let image = file.image(target).unwrap();
        let name = format!("audit-{target}");
        assert_eq!(image.entrypoint, [name.as_str()]);
        assert_eq!(
            image.programs,
            [(name.clone(), format!("/usr/local/bin/{name}"))]
        );
        assert!(
            build.contains(&format!(" -p {name}")),
            "{name} is not built"
        );
        assert!(
            build.contains(&format!(" target/release/{name}")),
            "{name} is not kept"
        );
        assert!(build.contains("--locked --release"));

        let ids: Vec<u32> = image
            .user
            .split(':')
            .map(|id| id.parse().unwrap())
            .collect();
        assert!(
            ids.len() == 2 && ids.iter().all(|id| *id > 0),
            "{}",
            image.user
        );
        let label = |name: &str| image.labels[&format!("org.opencontainers.image.{name}")].clone();
        assert_eq!(label("title"), name);
        assert_eq!(label("version"), VERSION);
        assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));

        takes_arguments(&image, &image.entrypoint, &image.command);
        takes_settings(&image, &BTreeMap::new(), None);
        let ports: Vec<u16> = ["HTTP", "ADMIN"]
            .iter()
            .filter_map(|of| port(&image, of))
            .collect();
        assert_eq!(image.ports, ports);
    }
}

#[test]
fn no_two_services_listen_at_one_port() {
    let file = Dockerfile::ours().unwrap();
    let mut taken = Vec::new();
    for target in file.targets() {
        let defaults: toml::Table =
            toml::from_str(&read(&format!("{target}/config.toml"))).unwrap();
        let port = |section: &str| {
            let listen = defaults.get(section)?.get("listen")?.as_str()?;
            listen.strip_prefix("127.0.0.1:")?.parse::<u16>().ok()
        };
        let ports: Vec<u16> = ["http", "admin"].into_iter().filter_map(port).collect();
        assert_eq!(ports, file.image(target).unwrap().ports, "{target}");
        taken.extend(ports);
    }
    assert_eq!(taken, [4601, 4611, 4612, 4602, 4613]);
}

#[test]
fn what_is_written_and_where_keys_are_is_there_and_belongs_to_the_user() {
    let file = Dockerfile::ours().unwrap();
    for target in file.targets() {
        let image = file.image(target).unwrap();
        let prefix = prefix(&image);
        let made = image.runs.join("\n");
        for folder in ["/etc/audit/keys", "/var/lib/audit/spool"] {
            assert!(made.contains(&format!(" {folder}")), "{folder} is not made");
        }
        assert!(made.contains("--owner=10001 --group=10001") && image.user == "10001:10001");
        if target != "consumer" {
            let keys = &image.environment[&format!("{prefix}KEYS__FILE")];
            assert_eq!(keys, "/etc/audit/keys/keys.toml");
            let spool = &image.environment[&format!("{prefix}KAFKA__SPOOL__FOLDER")];
            assert_eq!(spool, "/var/lib/audit/spool");
        }
    }
}

#[test]
fn an_image_has_every_library_that_its_program_needs() {
    let file = Dockerfile::ours().unwrap();
    for target in file.targets() {
        let image = file.image(target).unwrap();
        let installed = image.runs.join(" ");
        let needed = Command::new("ldd")
            .arg(program(&image.entrypoint[0]).unwrap())
            .output();
        let needed = String::from_utf8(needed.unwrap().stdout).unwrap();
        for line in needed
            .lines()
            .map(str::trim)
            .filter(|line| !line.starts_with('/'))
        {
            let library = line.split_whitespace().next().unwrap();
            let known = PACKAGES.iter().find(|(name, _)| *name == library);
            let (_, package) = known.unwrap_or_else(|| panic!("{target} needs {library}"));
            let word = |word| word == *package || package.is_empty();
            assert!(installed.split(' ').any(word), "{target} needs {package}");
        }
    }
}

#[test]
fn a_setting_that_no_service_has_is_noticed() {
    let image = Dockerfile::ours().unwrap().image("ingest").unwrap();
    let wrong = (
        "AUDIT_INGEST_KAFKA__BROKER".to_owned(),
        "kafka:9092".to_owned(),
    );
    let said = healthcheck(&image, &BTreeMap::from([wrong]), None);
    assert!(
        said.contains("broker") && !said.contains("/readyz"),
        "{said}"
    );
}
