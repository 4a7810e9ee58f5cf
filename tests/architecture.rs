//! The arrows and the invariants of absence of `docs/ARCHITECTURE.md`, over `cargo metadata` and the sources.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::Value;

/// For each package of ours, the packages of ours that it may depend on.
const ARROWS: &[(&str, &[&str])] = &[
    ("hookpool-core", &[]),
    ("hookpool-store", &["hookpool-core"]),
    ("hookpool-fjall", &["hookpool-core", "hookpool-store"]),
    ("hookpool-engine", &["hookpool-core", "hookpool-store"]),
    (
        "hookpool-http",
        &["hookpool-core", "hookpool-engine", "hookpool-store"],
    ),
    ("hookpool-client", &["hookpool-core"]),
    (
        "hookpool",
        &[
            "hookpool-client",
            "hookpool-core",
            "hookpool-engine",
            "hookpool-fjall",
            "hookpool-http",
            "hookpool-store",
        ],
    ),
];

/// What only one package of ours may depend on.
const OWNERS: &[(&str, &str)] = &[
    ("bincode", "hookpool-core"),
    ("ed25519-dalek", "hookpool-core"),
    ("fjall", "hookpool-fjall"),
    ("prometheus-client", "hookpool-http"),
    ("reqwest", "hookpool-client"),
    ("warp", "hookpool-http"),
];

static METADATA: LazyLock<Value> = LazyLock::new(|| {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--locked"]);
    let output = cargo
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
});

fn packages() -> impl Iterator<Item = &'static Value> {
    METADATA["packages"].as_array().unwrap().iter()
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member]
        .as_str()
        .unwrap_or_else(|| panic!("no {member}"))
}

/// Our packages with the names of what they depend on, for development aside: a bench may compare with anything.
fn dependencies() -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let names = |package: &'static Value| {
        let all = package["dependencies"].as_array().unwrap().iter();
        all.filter(|dependency| dependency["kind"] != "dev")
            .map(|dependency| text(dependency, "name"))
            .collect()
    };
    packages()
        .filter(|package| package["source"].is_null())
        .map(|package| (text(package, "name"), names(package)))
        .collect()
}

/// The Rust sources of one of our packages with their paths from the repository's root.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    walk(&root.join(folder), &mut found);
    assert!(!found.is_empty(), "no sources in {folder}");
    let read = |path: PathBuf| {
        (
            path.strip_prefix(root).unwrap().to_owned(),
            fs::read_to_string(&path).unwrap(),
        )
    };
    found.into_iter().map(read).collect()
}

/// Lines with code in them: comments, whole lines only, are left out.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text
        .lines()
        .enumerate()
        .map(|(n, line)| (n + 1, line.trim()));
    lines.filter(|(_, line)| !line.starts_with("//"))
}

/// Asserts that no source of `folder` has one of the words, except the files for which `exempt` holds.
#[track_caller]
fn assert_absent(folder: &str, words: &[&str], exempt: impl Fn(&Path) -> bool) {
    for (path, source) in sources(folder) {
        if exempt(&path) {
            continue;
        }
        for (n, line) in code(&source) {
            for word in words {
                assert!(
                    !line.contains(word),
                    "{word} in {}:{n}: {line}",
                    path.display()
                );
            }
        }
    }
}

#[test]
fn our_packages_depend_on_each_other_only_as_drawn() {
    let drawn: BTreeMap<&str, BTreeSet<&str>> = ARROWS
        .iter()
        .map(|(from, to)| (*from, to.iter().copied().collect()))
        .collect();
    let found = dependencies();
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        drawn.keys().collect::<Vec<_>>(),
        "draw them"
    );
    for (package, all) in found {
        let ours: BTreeSet<&str> = all
            .into_iter()
            .filter(|name| drawn.contains_key(name))
            .collect();
        assert!(
            ours.is_subset(&drawn[package]),
            "{package} depends on {ours:?}"
        );
    }
}

#[test]
fn what_belongs_to_one_package_is_not_used_by_another() {
    for (package, all) in dependencies() {
        for (dependency, owner) in OWNERS {
            assert!(
                !all.contains(dependency) || package == *owner,
                "{package} depends on {dependency}, which is for {owner} alone"
            );
        }
    }
    for (dependency, owner) in OWNERS {
        assert!(
            dependencies()[owner].contains(dependency),
            "{owner} needs no {dependency}"
        );
    }
}

#[test]
fn core_is_pure() {
    let core = &dependencies()["hookpool-core"];
    for impure in [
        "tokio",
        "warp",
        "hyper",
        "fjall",
        "rand",
        "getrandom",
        "tracing",
        "reqwest",
    ] {
        assert!(!core.contains(impure), "hookpool-core depends on {impure}");
    }
    let words = [
        "async fn",
        ".await",
        "SystemTime::now",
        "Instant::now",
        "Timestamp::now",
        "Uuid::new_v4",
        "Uuid::now_v7",
        "std::fs",
        "std::net",
        "std::thread",
        "std::env",
    ];
    assert_absent("crates/hookpool-core/src", &words, |_| false);
}

#[test]
fn the_fold_has_no_hashed_order() {
    let other = |path: &Path| {
        !["fold.rs", "shape.rs"]
            .iter()
            .any(|file| path.ends_with(file))
    };
    assert_absent("crates/hookpool-core/src", &["HashMap", "HashSet"], other);
}

#[test]
fn only_the_codec_names_bincode() {
    let codec = |path: &Path| {
        path.starts_with("crates/hookpool-core/src/codec") || path.ends_with("codec.rs")
    };
    assert_absent("crates", &["bincode"], codec);
}

#[test]
fn only_http_names_warp_and_only_the_fjall_package_names_fjall() {
    assert_absent("crates", &["warp::", "hyper::"], |path| {
        path.starts_with("crates/hookpool-http")
    });
    let backend = |path: &Path| path.starts_with("crates/hookpool-fjall");
    assert_absent(
        "crates",
        &[" fjall::", "(fjall::", "<fjall::", "&fjall::"],
        backend,
    );
}

#[test]
fn only_retention_drops_events() {
    let retention = |path: &Path| path.ends_with("crates/hookpool-engine/src/retention/drop.rs");
    for folder in ["hookpool", "hookpool-engine/src", "hookpool-http/src"] {
        assert_absent(
            &format!("crates/{folder}"),
            &["log.drop_events("],
            retention,
        );
    }
}

#[test]
fn the_engine_names_no_backend_and_a_backend_not_the_engine() {
    assert_absent("crates/hookpool-engine", &["fjall", "nats"], |_| false);
    assert_absent(
        "crates/hookpool-fjall",
        &["hookpool_engine", "hookpool_http"],
        |_| false,
    );
    assert_absent(
        "crates/hookpool-store",
        &["hookpool_engine", "hookpool_fjall"],
        |_| false,
    );
}

#[test]
fn json_numbers_never_go_through_a_switch_of_another_package() {
    let nodes = METADATA["resolve"]["nodes"].as_array().unwrap();
    let node = nodes
        .iter()
        .find(|node| text(node, "id").contains("#serde_json@"))
        .unwrap();
    let features: Vec<&str> = node["features"]
        .as_array()
        .unwrap()
        .iter()
        .map(|feature| feature.as_str().unwrap())
        .collect();
    assert!(
        features.contains(&"raw_value"),
        "the look-up does not work: {features:?}"
    );
    for unified in [
        "arbitrary_precision",
        "preserve_order",
        "float_roundtrip",
        "unbounded_depth",
    ] {
        assert!(
            !features.contains(&unified),
            "some package has turned {unified} on"
        );
    }
}

#[test]
fn the_pinned_versions_are_the_ones_that_were_read() {
    for (name, pinned) in [("bincode", "=2.0.1"), ("fjall", "=3.1.13")] {
        for package in packages().filter(|package| package["source"].is_null()) {
            for dependency in package["dependencies"].as_array().unwrap() {
                if text(dependency, "name") == name {
                    assert_eq!(
                        text(dependency, "req"),
                        pinned,
                        "{name} of {}",
                        text(package, "name")
                    );
                }
            }
        }
    }
}

#[test]
fn no_requirement_is_a_wildcard_and_everything_comes_from_one_registry() {
    for package in packages().filter(|package| package["source"].is_null()) {
        for dependency in package["dependencies"].as_array().unwrap() {
            let local = !dependency["path"].is_null();
            assert!(local || text(dependency, "req") != "*", "{dependency}");
        }
    }
    let sources: BTreeSet<&str> = packages()
        .filter_map(|package| package["source"].as_str())
        .collect();
    assert_eq!(sources.len(), 1, "{sources:?}");
    assert!(
        sources.iter().all(|source| source.starts_with("registry+")),
        "{sources:?}"
    );
}

#[test]
fn there_is_one_tls_and_it_is_not_openssl() {
    let names: BTreeSet<&str> = packages().map(|package| text(package, "name")).collect();
    assert!(names.contains("rustls"), "the look-up does not work");
    for other in [
        "openssl",
        "openssl-sys",
        "native-tls",
        "aws-lc-sys",
        "aws-lc-rs",
    ] {
        assert!(!names.contains(other), "{other} came in");
    }
}

#[test]
fn every_package_of_ours_takes_the_shared_lints_and_is_not_published() {
    for package in packages().filter(|package| package["source"].is_null()) {
        assert_eq!(
            package["publish"],
            serde_json::json!([]),
            "{}",
            text(package, "name")
        );
        let manifest = fs::read_to_string(text(package, "manifest_path")).unwrap();
        assert!(
            manifest.contains("[lints]\nworkspace = true"),
            "{}",
            text(package, "name")
        );
    }
}
