//! The crates import one way, so do the folders of the engine, and only one crate may say `unsafe`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
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

/// The folders of the engine: each may import those after it, and the files that lie flat beside them.
const FOLDERS: [&str; 13] = [
    "run", "verify", "plan", "fetch", "reuse", "commit", "schedule", "link", "manifest", "target", "sender", "content",
    "filter",
];

/// The sources of the engine: the folder, or flat file, that each belongs to, and its text without comments.
fn engine_sources() -> Vec<(String, PathBuf, String)> {
    sources_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/fastcp-engine/src"))
}

fn sources_below(top: &Path) -> Vec<(String, PathBuf, String)> {
    let mut sources = Vec::new();
    let mut dirs = vec![top.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).expect("read") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                dirs.push(path);
                continue;
            }
            let below = path.strip_prefix(top).expect("below").with_extension("");
            let owner = below.iter().next().and_then(|name| name.to_str()).expect("a name").to_owned();
            let text = std::fs::read_to_string(&path).expect("read");
            let code: Vec<&str> = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect();
            sources.push((owner, path, code.join("\n")));
        }
    }
    sources
}

/// What a source imports of its own crate, tests left out: they may build what they test.
fn imports(code: &str) -> BTreeSet<String> {
    let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or(code);
    let word = |text: &str| text.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect::<String>();
    let words = |text: &str| match text.strip_prefix('{') {
        Some(many) => many.split('}').next().unwrap_or(many).split(',').map(|one| word(one.trim())).collect(),
        None => vec![word(text)],
    };
    code.split("crate::").skip(1).flat_map(words).filter(|name| !name.is_empty()).collect()
}

/// What each folder imports of the others, tests left out.
fn imports_of_folders() -> BTreeMap<String, BTreeSet<String>> {
    let sources = engine_sources();
    let owners: BTreeSet<&str> = sources.iter().map(|(owner, ..)| owner.as_str()).collect();
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (owner, path, code) in sources.iter().filter(|(owner, path, _)| owner != "lib" && !is_of_tests(path)) {
        for import in imports(code).into_iter().filter(|import| import != owner) {
            assert!(owners.contains(import.as_str()), "{} imports {import}", path.display());
            all.entry(owner.clone()).or_default().insert(import);
        }
    }
    all
}

fn is_of_tests(path: &Path) -> bool {
    path.iter().any(|part| part == "tests" || part == "tests.rs" || part == "model.rs")
}

#[test]
fn the_folders_of_the_engine_import_one_way() {
    let place = |name: &str| FOLDERS.iter().position(|folder| *folder == name);
    let mut seen = 0;
    for (owner, imports) in imports_of_folders() {
        for import in imports {
            let is_lawful = match (place(&owner), place(&import)) {
                (Some(own), Some(other)) => own < other,
                (_, None) => true,
                (None, Some(_)) => false,
            };
            assert!(is_lawful, "{owner} imports {import}");
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} imports were seen");
}

#[test]
fn each_folder_of_the_engine_says_what_it_imports() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/fastcp-engine/src");
    let all = imports_of_folders();
    for folder in FOLDERS {
        let text = std::fs::read_to_string(top.join(folder).with_extension("rs")).expect("the folder's own file");
        let line = text.lines().find_map(|line| line.strip_prefix("//! May import: ")).expect("a line of imports");
        let said: BTreeSet<&str> =
            line.trim_end_matches('.').split(", ").filter(|name| FOLDERS.contains(name)).collect();
        let imports = all.get(folder).into_iter().flatten().map(String::as_str);
        let imports: BTreeSet<&str> = imports.filter(|import| FOLDERS.contains(import)).collect();
        assert_eq!(imports, said, "{folder}");
    }
}

#[test]
fn limits_of_the_wire_import_nothing() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/crates/fastcp-wire/src/limits.rs");
    assert_eq!(imports(&std::fs::read_to_string(path).expect("read")), BTreeSet::new());
}

#[test]
fn the_command_line_has_no_circles() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("crates/fastcp-cli/src");
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (owner, _, code) in
        sources_below(&top).into_iter().filter(|(owner, path, _)| owner != "lib" && !is_of_tests(path))
    {
        let imports = imports(&code).into_iter().filter(|import| *import != owner);
        all.entry(owner.clone()).or_default().extend(imports);
    }
    // What imports nothing that is left goes, until nothing is left.
    while let Some(free) = all.iter().find(|(_, imports)| imports.iter().all(|import| !all.contains_key(import))) {
        let free = free.0.clone();
        all.remove(&free);
    }
    assert!(all.is_empty(), "in circles: {all:?}");
}
