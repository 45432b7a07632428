//! `--manifest`: every committed file is recorded, with the bytes that it has; and `verify --manifest` finds
//! whatever is not so any more, without a source, whatever happened to the manifest.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::client::{Client, Run};
use crate::support::compare::{assert_same, files_and_bytes};
use crate::support::lied_to::LiedTo;
use crate::support::lying_sender::Lies;
use crate::support::said::{file, listing, offer, truth};
use crate::support::tree::{Tree, everything, noise, set_mtime};
use crate::support::way::{BOTH_WAYS, Route, Way};
use crate::support::{Workspace, is_root, say_skipped};

/// Copies with a manifest.
fn bring(route: &Route, copy: &Path, manifest: &Path, options: &str) -> Run {
    route.bring(copy, &format!("{options} --manifest {}", manifest.display()))
}

fn verify(copy: &Path, manifest: &Path) -> Client {
    Client::new(["verify".as_ref(), "--json".as_ref(), copy.as_os_str(), "--manifest".as_ref(), manifest.as_os_str()])
}

/// The records of a manifest by path as it is written; the first line has to be this.
fn records(manifest: &Path, first: &str) -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(manifest).expect("UTF-8");
    let (header, lines) = text.split_once('\n').expect("a first line");
    assert_eq!(header, first);
    assert!(text.ends_with('\n'));
    let mut records = BTreeMap::<String, Vec<String>>::new();
    for line in lines.lines() {
        let (rest, path) = line.match_indices(' ').nth(2).map(|(at, _)| line.split_at(at)).expect("four fields");
        records.entry(path[1..].to_owned()).or_default().push(rest.to_owned());
    }
    records
}

/// A few files, copied with a manifest.
struct Recorded {
    route: Route,
    workspace: Workspace,
    source: PathBuf,
    copy: PathBuf,
    manifest: PathBuf,
}

impl Recorded {
    /// Without a server.
    fn new() -> Self {
        Self::by(Way::Pull)
    }

    fn by(way: Way) -> Self {
        let workspace = Workspace::new();
        let mut tree = Tree::new(&workspace.at("source"));
        tree.dir("sub").file("sub/one", b"1").file("sub/large", &noise(2_000_000, 1)).file("empty", b"");
        tree.file(b"new\nline \\ \xff", b"odd").link("link", "empty");
        let source = tree.finish();
        let route = Route::new(way, &source, &workspace);
        let recorded =
            Self { route, source, copy: workspace.at("copy"), manifest: workspace.at("manifest"), workspace };
        recorded.bring("").expect_exit(0).expect_counts(&[("files_committed", 4)]);
        recorded
    }

    fn bring(&self, options: &str) -> Run {
        bring(&self.route, &self.copy, &self.manifest, options)
    }

    fn verify(&self) -> Run {
        verify(&self.copy, &self.manifest).run()
    }
}

#[test]
fn everything_is_recorded_with_the_hash_that_other_programs_compute() {
    let workspace = Workspace::new();
    let source = everything(&workspace.at("source")).finish();
    let ends = BOTH_WAYS.map(|way| {
        let route = Route::new(way, &source, &workspace);
        (route.serve(), route)
    });
    let (files, bytes) = files_and_bytes(&source);
    let cases = [
        ("fastcp-manifest 1 sha256", "--manifest-hash sha256"),
        ("fastcp-manifest 1 xxh3-128", "--manifest-hash xxh3 --durability none --receive-path splice"),
        ("fastcp-manifest 1 blake3", "--durability file --verify disk --conns 8"),
    ];
    for (nth, (first, options)) in cases.into_iter().enumerate() {
        let manifests = ends.each_ref().map(|(server, route)| {
            let name = format!("{nth}{:?}", route.way);
            let (copy, manifest) = (workspace.at(&format!("copy {name}")), workspace.at(&format!("manifest{name}")));
            let client = |options: &str| {
                let options = format!("{options} --manifest {}", manifest.display());
                route.client(server.address, &copy).options(&options).run().expect_exit(0)
            };
            client(&format!("-n {options}"));
            assert!(!manifest.exists(), "a dry run records nothing");
            client(options);
            assert_same(&source, &copy);
            assert!(!copy.join(".fastcp/manifest").exists());
            let records = records(&manifest, first);
            assert_eq!(records.len() as u64, files);
            let noise = fs::metadata(source.join("many/7")).expect("examine");
            let fields = &records["many/7"][0];
            let wanted = format!("{} {}.{:09}", noise.size(), noise.mtime(), noise.mtime_nsec());
            assert_eq!(fields.split_once(' ').map(|(_, rest)| rest), Some(wanted.as_str()));
            let run = verify(&copy, &manifest).run().expect_differences(&[]);
            run.expect_counts(&[("entries", files), ("files_verified", files), ("bytes_verified", bytes)]);
            records
        });
        assert_eq!(manifests[0], manifests[1], "{first}");
    }
    let blake3 = &records(&workspace.at("manifest2Push"), "fastcp-manifest 1 blake3")["many/7"][0];
    assert_eq!(blake3[..64], *blake3::hash(&fs::read(source.join("many/7")).expect("read")).to_hex());
    let sha256 = &records(&workspace.at("manifest0Push"), "fastcp-manifest 1 sha256")["many/7"][0];
    match Command::new("sha256sum").arg(source.join("many/7")).output() {
        Ok(output) => assert_eq!(output.stdout[..64], sha256.as_bytes()[..64]),
        Err(error) => say_skipped(&format!("sha256sum cannot be asked: {error}")),
    }
}

#[test]
fn a_rerun_appends_what_it_commits_and_the_last_record_counts() {
    for way in BOTH_WAYS {
        let recorded = Recorded::by(way);
        let first = fs::read(&recorded.manifest).expect("read");
        recorded.bring("").expect_exit(0).expect_counts(&[("files_committed", 0), ("files_unchanged", 4)]);
        assert_eq!(fs::read(&recorded.manifest).expect("read"), first, "what is unchanged is not read");
        for nth in 1..=3u8 {
            fs::write(recorded.source.join("sub/one"), vec![nth; nth.into()]).expect("write");
            recorded.bring("").expect_exit(0).expect_counts(&[("files_committed", 1)]);
        }
        assert!(fs::read(&recorded.manifest).expect("read").starts_with(&first));
        let records = records(&recorded.manifest, "fastcp-manifest 1 blake3");
        assert_eq!((records.len(), records["sub/one"].len(), records["sub/large"].len()), (4, 4, 1));
        recorded.verify().expect_differences(&[]).expect_counts(&[("entries", 4), ("files_verified", 4)]);
    }
}

#[test]
fn every_kind_of_difference_is_named_and_what_is_not_recorded_is_none() {
    type Change = fn(&Path);
    let odd = "new\nline \\ \u{fffd}";
    let changes: [(Change, &[(&str, &str)]); 8] = [
        (|copy| fs::write(copy.join("more"), "of no interest").expect("write"), &[]),
        (|copy| fs::remove_file(copy.join("empty")).expect("remove"), &[("missing", "empty")]),
        (
            |copy| {
                fs::remove_dir_all(copy.join("sub")).expect("remove");
                std::os::unix::fs::symlink("elsewhere", copy.join("sub")).expect("link");
            },
            &[("missing", "sub/one"), ("missing", "sub/large")],
        ),
        (
            |copy| {
                fs::remove_file(copy.join("empty")).expect("remove");
                fs::create_dir(copy.join("empty")).expect("create");
            },
            &[("type", "empty")],
        ),
        (|copy| set_mtime(&copy.join("sub/one"), 3, 4), &[("mtime", "sub/one")]),
        (|copy| change(&copy.join("sub/large"), |file| file.write_all_at(b"x", 2_000_000)), &[("size", "sub/large")]),
        (
            |copy| change(&copy.join("sub/large"), |file| file.write_all_at(b"flip", 1_234_567)),
            &[("contents", "sub/large")],
        ),
        (
            |copy| {
                let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"new\nline \\ \xff");
                change(&copy.join(name), |file| file.write_all_at(b"O", 0));
            },
            &[("contents", "ODD")],
        ),
    ];
    for (make, wanted) in changes {
        let recorded = Recorded::new();
        make(&recorded.copy);
        let wanted: Vec<_> =
            wanted.iter().map(|(what, path)| (*what, if *path == "ODD" { odd } else { path })).collect();
        let run = recorded.verify().expect_differences(&wanted);
        let files_that_differ: std::collections::BTreeSet<_> = wanted.iter().map(|(_, path)| path).collect();
        // Another time does not keep the contents from being what they were.
        let is_equal = wanted.iter().filter(|(what, _)| *what == "mtime").count();
        assert_eq!(run.count("files_verified") as usize, 4 - files_that_differ.len() + is_equal);
    }
}

/// Writes to a file and sets its time back.
fn change(path: &Path, write: impl FnOnce(&fs::File) -> std::io::Result<()>) {
    let before = fs::metadata(path).expect("examine");
    write(&fs::File::options().write(true).open(path).expect("open")).expect("write");
    set_mtime(path, before.mtime(), before.mtime_nsec());
}

#[test]
fn a_torn_line_is_left_out_and_then_cut_off() {
    for way in BOTH_WAYS {
        let recorded = Recorded::by(way);
        let whole = fs::read(&recorded.manifest).expect("read");
        let last_line = whole[..whole.len() - 1].iter().rposition(|&byte| byte == b'\n').expect("lines") + 1;
        for length in [whole.len() - 1, whole.len() - 10, last_line + 1] {
            fs::write(&recorded.manifest, &whole[..length]).expect("write");
            let run = recorded.verify().expect_differences(&[]).expect_counts(&[("files_verified", 3)]);
            assert!(run.stderr.contains("incomplete"), "{}", run.stderr);
        }
        recorded.bring("").expect_exit(0);
        assert_eq!(fs::read(&recorded.manifest).expect("read"), &whole[..last_line]);
    }
}

#[test]
fn no_flipped_bit_makes_a_manifest_vouch_for_the_same() {
    let workspace = Workspace::new();
    let mut tree = Tree::new(&workspace.at("source"));
    tree.file("a", b"1").file("b", b"2");
    let source = tree.finish();
    let (copy, manifest) = (workspace.at("copy"), workspace.at("manifest"));
    bring(&Route::new(Way::Pull, &source, &workspace), &copy, &manifest, "").expect_exit(0);
    let whole = fs::read(&manifest).expect("read");
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << (at % 8);
        fs::write(&manifest, &flipped).expect("write");
        let run = verify(&copy, &manifest).run();
        let is_all_well = run.code == Some(0) && run.count("files_verified") == 2;
        assert!(!is_all_well, "byte {at}: {}", String::from_utf8_lossy(&flipped));
        assert!(matches!(run.code, Some(0 | 1 | 23)), "byte {at}: {:?} {}", run.code, run.stderr);
    }
}

#[test]
fn a_damaged_line_is_said_and_the_others_are_verified() {
    let recorded = Recorded::new();
    let whole = fs::read_to_string(&recorded.manifest).expect("read");
    let mut lines: Vec<String> = whole.lines().map(str::to_owned).collect();
    lines.insert(2, "x".repeat(100_000));
    lines.insert(3, String::new());
    lines[4].insert(0, 'g');
    fs::write(&recorded.manifest, lines.join("\n") + "\n").expect("write");
    let run = recorded.verify().expect_exit(23);
    run.expect_counts(&[("files_failed", 3), ("files_verified", 3), ("differences", 0)]);
    let run = recorded.verify();
    for line in 3..=5 {
        assert!(run.stderr.contains(&format!("line {line} of the manifest is invalid")), "{}", run.stderr);
    }
}

#[test]
fn what_cannot_be_appended_to_is_left_as_it_is_and_nothing_is_copied() {
    for way in BOTH_WAYS {
        let recorded = Recorded::by(way);
        let copy = recorded.workspace.at("second copy");
        let cases = [
            ("another hash", fs::read_to_string(&recorded.manifest).expect("read"), "--manifest-hash sha256", "blake3"),
            ("another version", "fastcp-manifest 2 xxh3-128\n".to_owned(), "", "version 2"),
            ("an unknown hash", "fastcp-manifest 1 md5\n".to_owned(), "", "md5"),
            ("something else", "dear diary\n".to_owned(), "", "not a manifest"),
        ];
        for (what, text, options, said) in cases {
            fs::write(&recorded.manifest, &text).expect("write");
            let run = bring(&recorded.route, &copy, &recorded.manifest, options);
            assert_eq!(run.code, Some(1), "{what}: {}", run.stderr);
            assert!(run.stderr.contains(said), "{what}: {}", run.stderr);
            assert_eq!(fs::read_to_string(&recorded.manifest).expect("read"), text, "{what}");
            assert!(!copy.exists(), "{what}");
        }
        for text in ["fastcp-manifest 2 xxh3-128\n", "fastcp-manifest 1 md5\n", "dear diary\n", ""] {
            fs::write(&recorded.manifest, text).expect("write");
            let run = recorded.verify();
            assert_eq!(run.code, Some(1), "{text}: {}", run.stderr);
        }
        fs::remove_file(&recorded.manifest).expect("remove");
        recorded.verify().expect_exit(11);
    }
}

#[test]
fn a_manifest_does_not_lie_in_the_destination() {
    let recorded = Recorded::new();
    for place in ["copy/manifest", "copy/sub/one", "copy/sub/../manifest", "copy"] {
        let run = bring(&recorded.route, &recorded.copy, &recorded.workspace.at(place), "").expect_exit(1);
        assert!(run.stderr.contains("inside the destination"), "{}", run.stderr);
    }
    recorded.verify().expect_differences(&[]);
    let out = recorded.workspace.at("out");
    Client::get(1, "file", &out).options("--manifest m").run().expect_exit(1);
    bring(&recorded.route, &out, &recorded.workspace.at("no/such/directory"), "").expect_exit(11);
    assert!(!out.exists());
}

#[test]
fn only_what_was_committed_is_recorded() {
    for way in BOTH_WAYS {
        let lied_to = LiedTo::by(way);
        let (copy, manifest) = (lied_to.copy(), lied_to.workspace.at("copy.manifest"));
        let bytes = b"the bytes of a file";
        let entries = vec![file("bad", bytes), file("good", bytes)];
        let lies = Lies::new(offer(vec![listing("", entries)]), move |request| {
            let mut answer = truth(request, bytes);
            answer[50] ^= u8::from(&*request.path == b"bad");
            answer
        });
        let run = lied_to.hear_at(&copy, lies, &format!("--manifest {}", manifest.display())).expect_exit(23);
        run.expect_counts(&[("files_committed", 1), ("files_failed", 1)]);
        let records = records(&manifest, "fastcp-manifest 1 blake3");
        assert_eq!(records.keys().collect::<Vec<_>>(), ["good"]);
        lied_to.finish();
    }
}

#[test]
fn a_file_that_cannot_be_read_is_not_verified() {
    if !is_root() {
        return say_skipped("only root can make a file that is not ours");
    }
    let recorded = Recorded::new();
    fs::set_permissions(recorded.copy.join("sub/one"), Permissions::from_mode(0o600)).expect("chmod");
    let run = verify(&recorded.copy, &recorded.manifest).unprivileged(&recorded.workspace).run().expect_exit(23);
    assert_eq!(run.paths_of("failed"), ["sub/one"]);
    run.expect_counts(&[("files_verified", 3), ("differences", 0)]);
}
