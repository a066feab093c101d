//! What the file of keys takes and refuses, and who is recognized.

use std::fs;
use std::os::unix::fs::MetadataExt;

use super::*;

const GIVEN: &str = "a-key-of-another-origin-0123456789";

fn folder_with_key() -> (tempfile::TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.toml");
    let scopes = [Scope::Write, Scope::Read];
    let grant = Grant {
        name: "server",
        scopes: &scopes,
        organization: None,
    };
    let key = create_key(&path, &"acme".parse().unwrap(), grant).unwrap();
    (folder, path, key)
}

fn given(name: &str) -> NewKey<'_> {
    NewKey {
        name,
        scopes: &[Scope::Read],
        organization: None,
        key: GIVEN,
    }
}

#[test]
fn a_created_key_names_its_project_and_is_not_in_the_file() {
    let (_folder, path, key) = folder_with_key();
    let identity = ApiKeys::open(&path).unwrap().authenticate(&key).unwrap();
    assert_eq!(identity.project.as_str(), "acme");
    assert_eq!(identity.key_name, "server");
    assert_eq!(identity.scopes, [Scope::Write, Scope::Read]);
    assert!(
        key.starts_with("audit_") && key.len() == 49,
        "{}",
        key.len()
    );
    assert!(!fs::read_to_string(&path).unwrap().contains(&key));
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_key_that_is_not_in_the_file_is_nobodys() {
    let (_folder, path, key) = folder_with_key();
    let keys = ApiKeys::open(&path).unwrap();
    for wrong in [
        "",
        "x",
        key.trim_start_matches('a'),
        &format!("{key}x"),
        GIVEN,
    ] {
        assert_eq!(keys.authenticate(wrong), None, "{wrong}");
    }
}

#[test]
fn a_given_key_is_taken_as_it_is() {
    let (_folder, path, _) = folder_with_key();
    add_key(&path, &"other".parse().unwrap(), given("reader")).unwrap();
    let identity = ApiKeys::open(&path).unwrap().authenticate(GIVEN).unwrap();
    assert_eq!(
        (identity.project.as_str(), identity.scopes),
        ("other", vec![Scope::Read])
    );
}

#[test]
fn a_short_key_a_second_owner_and_a_second_name_are_refused() {
    let (_folder, path, _) = folder_with_key();
    let acme = "acme".parse().unwrap();
    let short = NewKey {
        key: "x".repeat(31).leak(),
        ..given("short")
    };
    let scopeless = NewKey {
        scopes: &[],
        ..given("scopeless")
    };
    assert!(add_key(&path, &acme, short).is_err());
    assert!(add_key(&path, &acme, scopeless).is_err());
    assert!(add_key(&path, &acme, given("server")).is_err());
    add_key(&path, &acme, given("reader")).unwrap();
    assert!(add_key(&path, &"other".parse().unwrap(), given("thief")).is_err());
    assert_eq!(ApiKeys::open(&path).unwrap().count(), 2);
}

#[test]
fn a_changed_file_is_read_again() {
    let (_folder, path, key) = folder_with_key();
    let keys = ApiKeys::open(&path).unwrap();
    assert!(!keys.refresh().unwrap());
    add_key(&path, &"acme".parse().unwrap(), given("reader")).unwrap();
    assert_eq!(keys.authenticate(GIVEN), None);
    assert!(keys.refresh().unwrap());
    assert!(keys.authenticate(GIVEN).is_some() && keys.authenticate(&key).is_some());
}

#[test]
fn one_key_follows_another_and_the_old_one_ends_while_the_service_runs() {
    let (_folder, path, old) = folder_with_key();
    let keys = ApiKeys::open(&path).unwrap();
    let scopes = [Scope::Write, Scope::Read];
    let grant = Grant {
        name: "server 2",
        scopes: &scopes,
        organization: None,
    };
    let new = create_key(&path, &"acme".parse().unwrap(), grant).unwrap();
    assert!(keys.refresh().unwrap());
    let project = |key: &str| keys.authenticate(key).map(|who| who.project.to_string());
    assert_eq!(project(&old).as_deref(), Some("acme"));
    assert_eq!(project(&new).as_deref(), Some("acme"));

    let mut file = KeyFile::read(&path).unwrap();
    file.keys.retain(|entry| entry.name != "server");
    fs::write(&path, toml::to_string(&file).unwrap()).unwrap();
    assert!(keys.refresh().unwrap());
    assert_eq!(project(&old), None);
    assert_eq!(project(&new).as_deref(), Some("acme"));
}

#[test]
fn a_file_that_is_no_good_is_said_once_and_changes_nothing() {
    let (_folder, path, key) = folder_with_key();
    let keys = ApiKeys::open(&path).unwrap();
    fs::write(&path, "[[keys]]\nname = 'x'\n").unwrap();
    assert!(keys.refresh().is_err());
    assert!(!keys.refresh().unwrap());
    assert!(keys.authenticate(&key).is_some());
    fs::remove_file(&path).unwrap();
    assert!(keys.refresh().is_err());
    assert!(keys.authenticate(&key).is_some());
}

#[test]
fn a_file_that_is_no_good_is_told_as_a_metric_for_as_long_as_it_is() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let told = recorder.handle();
    let stale = |value: u8| {
        told.render()
            .contains(&format!("audit_api_keys_stale {value}"))
    };
    ::metrics::with_local_recorder(&recorder, || {
        let (_folder, path, _) = folder_with_key();
        let good = fs::read_to_string(&path).unwrap();
        let keys = ApiKeys::open(&path).unwrap();
        assert!(stale(0));
        fs::write(&path, "[[keys]]").unwrap();
        assert!(keys.refresh().is_err() && stale(1));
        assert!(!keys.refresh().unwrap() && stale(1));
        fs::write(&path, good).unwrap();
        assert!(keys.refresh().unwrap() && stale(0));
    });
}

#[test]
fn a_key_of_an_organization_is_recognized_as_such() {
    let (_folder, path, key) = folder_with_key();
    let restricted = NewKey {
        organization: Some("o1"),
        ..given("customer")
    };
    add_key(&path, &"acme".parse().unwrap(), restricted).unwrap();
    let keys = ApiKeys::open(&path).unwrap();
    let organization = |key: &str| keys.authenticate(key).unwrap().organization;
    assert_eq!(organization(GIVEN).as_deref(), Some("o1"));
    assert_eq!(organization(&key), None);
}

#[test]
fn a_key_of_an_organization_that_could_write_is_refused() {
    let (_folder, path, _) = folder_with_key();
    let acme = "acme".parse().unwrap();
    for scopes in [
        &[Scope::Write][..],
        &[Scope::Admin],
        &[Scope::Read, Scope::Write],
    ] {
        let restricted = NewKey {
            scopes,
            organization: Some("o1"),
            ..given("customer")
        };
        let refused = add_key(&path, &acme, restricted).unwrap_err().to_string();
        assert!(
            refused.contains("\"customer\"") && refused.contains("only have the scope read"),
            "{refused}"
        );
    }
    // Nor does it work when somebody writes it into the file.
    let text = fs::read_to_string(&path).unwrap();
    let text = text.replace("name = ", "organization = \"o1\"\nname = ");
    fs::write(&path, text).unwrap();
    let refused = ApiKeys::open(&path).unwrap_err().to_string();
    assert!(refused.contains("only have the scope read"), "{refused}");
}

#[test]
fn an_organization_that_is_no_text_of_some_length_is_refused() {
    let (_folder, path, _) = folder_with_key();
    let acme = "acme".parse().unwrap();
    let longest = "x".repeat(256);
    for (organization, taken) in [
        ("", false),
        ("a\nb", false),
        (&format!("{longest}x"), false),
        (longest.as_str(), true),
    ] {
        let restricted = NewKey {
            organization: Some(organization),
            ..given("customer")
        };
        let added = add_key(&path, &acme, restricted);
        assert_eq!(added.is_ok(), taken, "{organization:?}");
    }
}
