//! The crates import one way, and only one of them may say `unsafe`.

use std::collections::BTreeSet;
use std::process::Command;

const LAYERS: [(&str, &[&str]); 7] = [
    ("fastcp-model", &[]),
    ("fastcp-wire", &["fastcp-model"]),
    ("fastcp-sys", &["fastcp-model"]),
    ("fastcp-net", &["fastcp-model", "fastcp-wire", "fastcp-sys"]),
    ("fastcp-engine", &["fastcp-model", "fastcp-wire", "fastcp-sys", "fastcp-net"]),
    ("fastcp-cli", &["fastcp-model", "fastcp-wire", "fastcp-net", "fastcp-engine"]),
    ("fastcp-bench", &["fastcp-model", "fastcp-sys"]),
];

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo metadata runs");
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON")
}

#[test]
fn imports_go_one_way() {
    let metadata = metadata();
    for (name, allowed) in LAYERS {
        let packages = metadata["packages"].as_array().expect("packages");
        let package = packages.iter().find(|package| package["name"] == name).expect("the crate exists");
        let own: BTreeSet<&str> = package["dependencies"]
            .as_array()
            .expect("dependencies")
            .iter()
            .filter(|dependency| dependency["kind"].is_null())
            .filter_map(|dependency| dependency["name"].as_str())
            .filter(|dependency| dependency.starts_with("fastcp"))
            .collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        assert!(own.is_subset(&allowed), "{name} imports {own:?}, and may import {allowed:?}");
    }
}

#[test]
fn unsafe_lives_in_one_crate() {
    let root = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).expect("manifest");
    assert!(root.contains("unsafe_code = \"forbid\""));
    for (name, _) in LAYERS {
        let path = format!("{}/crates/{name}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
        let manifest = std::fs::read_to_string(path).expect("manifest");
        assert_eq!(manifest.contains("[lints]\nworkspace = true"), name != "fastcp-sys", "{name}");
    }
}
