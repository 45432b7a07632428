//! What is selected, copied and deleted, held against the rsync that is installed: random trees, rules and options.
//!
//! A case is made from its number alone, so that one that differs can be made again: `FASTCP_CASE=N`. There are a thousand;
//! `FASTCP_CASES=FROM-TO` tries others. What is known to differ is not made, and stands in docs/coming-from-rsync.md.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileTimes};
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use crate::support::compare::differences;
use crate::support::server::Server;
use crate::support::way::RECEIVES;
use crate::support::{Workspace, say, say_skipped};

const CASES: Range<u64> = 0..1000;
const THREADS: usize = 4;
/// The time of all that is made.
const SECONDS: u64 = 1_600_000_000;

/// Numbers that follow from the first alone: `splitmix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// Once in so many times.
    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len())]
    }
}

const NAMES: [&str; 14] =
    ["a", "b", "ab", "foo", "bar", "1.o", "2.c", "core", "keep~", "x y", "a.b.c", "-dash", "tags", "[odd]"];
const DIRS: [&str; 8] = ["a", "b", "foo", "bar", "sub", "CVS", "x y", "deep"];
const MERGE: &str = ".rules";

fn pattern(random: &mut Random) -> String {
    const PARTS: [&str; 24] = [
        "a",
        "b",
        "ab",
        "foo",
        "bar",
        "*",
        "*.o",
        "*.?",
        "f*",
        "?",
        "[ab]",
        "[!a]*",
        "[[:digit:]]*",
        "**",
        "sub",
        "deep",
        "*o*",
        "core",
        "a**",
        "**r",
        "x y",
        "x\\ y",
        "\\a",
        "*~",
    ];
    let mut text = String::new();
    if random.once_in(3) {
        text.push('/');
    }
    let parts = [1, 1, 1, 2, 2, 3][random.below(6)];
    for nth in 0..parts {
        if nth > 0 {
            text.push('/');
        }
        text.push_str(random.of(&PARTS));
    }
    text.push_str(random.of(&["", "", "", "", "/", "/", "/***", "/**"]));
    text
}

fn rule(random: &mut Random, is_in_file: bool) -> String {
    let name = pattern(random);
    match random.below(if is_in_file { 14 } else { 16 }) {
        0..=3 => format!("- {name}"),
        4..=6 => format!("+ {name}"),
        7 => format!("-! {name}"),
        8 => format!("-p {name}"),
        9 => format!("{} {name}", random.of(&["H", "S", "hide,", "show"])),
        10 => format!("{} {name}", random.of(&["P", "R", "protect", "risk"])),
        11 => format!("{} {name}", random.of(&["-s", "-r", "+s", "+r", "exclude", "include,r"])),
        12 => format!("-_{name}"),
        13 if is_in_file && random.once_in(4) => "!".to_owned(),
        13 => format!("- {name}"),
        14 => format!("{} {MERGE}", random.of(&[":", ":n", ":e", ":ne", "dir-merge", ":-", ":s", ":r", ":p", ":w-"])),
        _ => ":C".to_owned(),
    }
}

/// A tree of files whose contents follow from `salt` and their names.
fn make_tree(random: &mut Random, top: &Path, salt: &str) {
    fs::create_dir_all(top).expect("create");
    let mut dirs = vec![top.to_path_buf()];
    for _ in 0..random.below(7) {
        let dir = dirs[random.below(dirs.len())].join(random.of(&DIRS));
        if fs::create_dir(&dir).is_ok() {
            dirs.push(dir);
        }
    }
    for dir in &dirs {
        for _ in 0..random.below(6) {
            let name = random.of(&NAMES);
            let path = dir.join(name);
            if path.symlink_metadata().is_ok() {
                continue;
            }
            if random.once_in(9) {
                symlink(random.of(&["a", "../foo", "nowhere"]), path).expect("link");
            } else {
                let salt = if random.once_in(2) { salt } else { "" };
                fs::write(path, format!("{salt}{name}").repeat(random.below(4))).expect("write");
            }
        }
        if random.once_in(3) {
            let rules: Vec<String> = (0..1 + random.below(3)).map(|_| rule(random, true)).collect();
            fs::write(dir.join(MERGE), rules.join("\n") + "\n").expect("write");
        }
        if random.once_in(8) {
            fs::write(dir.join(".cvsignore"), format!("{} {}\n", random.of(&NAMES[..8]), "*.x")).expect("write");
        }
        if random.once_in(8) {
            let text = format!("{}\n", rule(random, true));
            fs::write(dir.join(".rsync-filter"), text).expect("write");
        }
    }
    settle(top, SystemTime::UNIX_EPOCH + Duration::from_secs(SECONDS));
}

/// Gives everything in a tree this time.
fn settle(dir: &Path, time: SystemTime) {
    for entry in fs::read_dir(dir).expect("list") {
        let path = entry.expect("entry").path();
        let metadata = path.symlink_metadata().expect("examine");
        if metadata.is_dir() {
            settle(&path, time);
        } else if metadata.is_file() {
            let file = fs::File::options().write(true).open(&path).expect("open");
            file.set_times(FileTimes::new().set_modified(time)).expect("set");
        } else {
            let when = format!("@{}", time.duration_since(SystemTime::UNIX_EPOCH).expect("later").as_secs());
            assert!(Command::new("touch").args(["-h", "-d", &when]).arg(&path).status().expect("touch").success());
        }
    }
    fs::File::open(dir).expect("open").set_times(FileTimes::new().set_modified(time)).expect("set");
}

/// The words that are the same to both programs.
fn options(random: &mut Random, top: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    for nth in 0..random.below(6) {
        match random.below(10) {
            0..=2 => words.extend(["--exclude".into(), pattern(random).into()]),
            3 | 4 => words.extend(["--include".into(), pattern(random).into()]),
            5 | 6 => words.extend(["--filter".into(), rule(random, false).into()]),
            7 => words.push("-F".into()),
            8 => words.push(format!("--filter=: {MERGE}").into()),
            _ => {
                let lines: Vec<String> = (0..1 + random.below(3)).map(|_| pattern(random)).collect();
                let file = top.join(format!("patterns{nth}"));
                fs::write(&file, format!("# a comment\n{}\n", lines.join("\n"))).expect("write");
                words.extend([random.of(&["--exclude-from", "--include-from"]).into(), file.into()]);
            }
        }
    }
    if random.once_in(6) {
        words.push("-C".into());
    }
    match random.below(6) {
        0..=2 => words.push("--delete".into()),
        3 => words.push("--delete-excluded".into()),
        _ => {}
    }
    if random.once_in(8) {
        words.push(random.of(&["--max-size=4", "--min-size=3", "--max-size=0"]).into());
    }
    words
}

/// What a program lists, without what only one of them tells.
fn items(output: &Output) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    let is_item = |line: &&str| line.starts_with("*deleting") || line.as_bytes().get(11) == Some(&b' ');
    text.lines().filter(is_item).map(str::to_owned).collect()
}

/// How one case differs, if it does.
fn difference(number: u64, server: &Server) -> Option<String> {
    let workspace = Workspace::new();
    let top = workspace.at("");
    let mut random = Random(number);
    let source = workspace.at("source");
    make_tree(&mut random, &source, "source");
    make_tree(&mut random, &workspace.at("before"), "before");
    let is_itself = random.once_in(4);
    let options = options(&mut random, &top);
    let from = if is_itself { source.clone() } else { source.join("") };
    let (theirs, ours) = (workspace.at("theirs"), workspace.at("ours"));
    for copy in [&theirs, &ours] {
        let inside = if is_itself { copy.join("source") } else { copy.clone() };
        fs::create_dir_all(inside.parent().expect("a parent")).expect("create");
        let made = Command::new("cp").arg("-a").arg(workspace.at("before")).arg(&inside).status();
        assert!(made.expect("cp runs").success());
    }
    let run = |program: &str, words: &[&str], from: &OsStr, into: &OsStr| {
        let mut command = Command::new(program);
        command.args(words).args(&options).arg(from).arg(into).env("HOME", &top).env_remove("CVSIGNORE");
        command.output().expect("it runs")
    };
    let way = random.below(4);
    let deletes = options.iter().any(|word| word.as_encoded_bytes().starts_with(b"--delete"));
    let rsync = run("rsync", &["-a", "-i"], from.as_os_str(), theirs.as_os_str());
    let url = |path: &Path| -> OsString {
        let below = path.strip_prefix(std::env::temp_dir()).expect("in the directory that is served");
        let closing = if path.as_os_str().as_encoded_bytes().ends_with(b"/") { "/" } else { "" };
        server.url(&format!("{}{closing}", below.to_str().expect("plain"))).into()
    };
    let (command, from, into) = match way {
        0 => ("pull", url(&from), ours.clone().into_os_string()),
        1 => ("push", from.clone().into_os_string(), url(&ours)),
        _ => ("pull", from.clone().into_os_string(), ours.clone().into_os_string()),
    };
    let words = [command, "-i", "--force-empty"];
    let fastcp = run(env!("CARGO_BIN_EXE_fastcp-client"), &words[..if deletes { 3 } else { 2 }], &from, &into);
    let codes = [&rsync, &fastcp].map(|output| output.status.code());
    // A directory that takes no part has the time of the moment.
    let is_of_now = |line: &String| line.contains(": mtime [") && !line.contains(&format!("({SECONDS}, "));
    let trees: Vec<_> = differences(&theirs, &ours).into_iter().filter(|line| !is_of_now(line)).collect();
    let (wanted, told) = (items(&rsync), items(&fastcp));
    // A file of rules that makes no sense ends rsync's run; here its directory alone is left out.
    let is_lawless = codes == [Some(1), Some(23)] && rsync.stderr.windows(5).any(|bytes| bytes == b".rule");
    if is_lawless || (trees.is_empty() && wanted == told && codes[0] == codes[1]) {
        return None;
    }
    let options: Vec<_> = options.iter().map(|word| word.to_string_lossy()).collect();
    Some(format!(
        "case {number}, {command} {options:?} {}: {codes:?}\n  trees: {trees:?}\n  rsync alone: {:?}\n  fastcp alone: {:?}\n  {}{}",
        if is_itself { "source" } else { "source/" },
        wanted.difference(&told).collect::<Vec<_>>(),
        told.difference(&wanted).collect::<Vec<_>>(),
        String::from_utf8_lossy(&rsync.stderr),
        String::from_utf8_lossy(&fastcp.stderr),
    ))
}

/// `FROM-TO`, or one number.
fn cases() -> Range<u64> {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    let variable = |name| std::env::var(name).ok();
    match (variable("FASTCP_CASE"), variable("FASTCP_CASES")) {
        (Some(one), _) => number(&one)..number(&one) + 1,
        (None, Some(several)) => {
            let (from, to) = several.split_once('-').expect("FROM-TO");
            number(from)..number(to)
        }
        (None, None) => CASES,
    }
}

#[test]
fn what_is_selected_and_deleted_is_what_rsync_selects_and_deletes() {
    if Command::new("rsync").arg("--version").output().is_err() {
        return say_skipped("rsync is not installed");
    }
    let cases = cases();
    let server = Server::start_with(&std::env::temp_dir(), &format!("127.0.0.1 0 {RECEIVES}"));
    let next = AtomicU64::new(cases.start);
    let found: Vec<String> = std::thread::scope(|threads| {
        let look = || {
            let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
            numbers
                .take_while(|number| *number < cases.end)
                .filter_map(|number| difference(number, &server))
                .collect::<Vec<_>>()
        };
        let looking: Vec<_> = (0..THREADS).map(|_| threads.spawn(look)).collect();
        looking.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    say(&format!("{} cases, {} differences", cases.end - cases.start, found.len()));
    assert!(found.is_empty(), "{} of {} differ:\n{}", found.len(), cases.end - cases.start, found.join("\n"));
}
