//! Compares two trees by what the system says of them: kind, bytes, mode, owner, time to the
//! nanosecond, link target, room taken. The state directory of a destination and special files of a
//! source are left out. Where `rsync` is installed it has to agree.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::statfs::{XFS_SUPER_MAGIC, statfs};

use super::say_skipped;

/// How much more room a copy may take than its source, in bytes: file systems round differently.
const ROOM_SLACK_BYTES: u64 = 64 << 10;

type Entries = BTreeMap<Vec<u8>, Metadata>;

/// Path, mode, inode, times and size of whatever is in a directory.
pub(crate) type Snapshot = Vec<(PathBuf, u32, u64, [i64; 4], u64)>;

/// What is in a directory, itself included.
pub(crate) fn snapshot(root: &Path) -> Snapshot {
    let mut found = Vec::new();
    let mut left = vec![root.to_path_buf()];
    while let Some(path) = left.pop() {
        let Ok(about) = path.symlink_metadata() else { continue };
        if about.is_dir() {
            left.extend(fs::read_dir(&path).expect("read").map(|entry| entry.expect("entry").path()));
        }
        let times = [about.mtime(), about.mtime_nsec(), about.ctime(), about.ctime_nsec()];
        found.push((path, about.mode(), about.ino(), times, about.len()));
    }
    found.sort();
    found
}

/// Panics with a list of all differences, those of the two roots themselves included.
pub(crate) fn assert_same(source: &Path, copy: &Path) {
    let found = differences(source, copy);
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

/// As [`assert_same`], but a copy may take up more room than its source.
pub(crate) fn assert_same_but_room(source: &Path, copy: &Path) {
    let mut found = differences(source, copy);
    found.retain(|line| !line.contains(": room ["));
    assert!(found.is_empty(), "{} differences:\n{}", found.len(), found.join("\n"));
}

/// Panics where rsync would still copy something, or where it is asked and fails.
pub(crate) fn assert_rsync_agrees(source: &Path, copy: &Path) {
    let mut command = Command::new("rsync");
    command.args(["-ainc", "--no-D", "--delete", "--exclude=/.fastcp", "--info=nonreg0"]);
    match command.arg(source.join("")).arg(copy.join("")).output() {
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stdout);
            let complaints = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "rsync lists:\n{said}{complaints}");
        }
        Err(error) => say_skipped(&format!("rsync cannot be asked: {error}")),
    }
}

/// One line for each difference.
pub(crate) fn differences(source: &Path, copy: &Path) -> Vec<String> {
    let (wanted, got) = (entries(source), entries(copy));
    let mut found = Vec::new();
    for (name, metadata) in &wanted {
        match got.get(name) {
            None => found.push(format!("{}: missing", shown(name))),
            Some(copied) => {
                let (from, to) = (path_of(source, name), path_of(copy, name));
                let lines = entry_differences(&from, metadata, &to, copied);
                found.extend(lines.into_iter().map(|line| format!("{}: {line}", shown(name))));
            }
        }
    }
    let extra = got.keys().filter(|name| !wanted.contains_key(*name));
    found.extend(extra.map(|name| format!("{}: too much", shown(name))));
    found
}

/// How many regular files a tree holds, and how many bytes they have.
pub(crate) fn files_and_bytes(root: &Path) -> (u64, u64) {
    let entries = entries(root);
    let files = entries.values().filter(|metadata| metadata.is_file());
    files.fold((0, 0), |(count, bytes), metadata| (count + 1, bytes + metadata.len()))
}

fn entry_differences(from: &Path, wanted: &Metadata, to: &Path, got: &Metadata) -> Vec<String> {
    if wanted.file_type() != got.file_type() {
        return vec![format!("{:?} became {:?}", wanted.file_type(), got.file_type())];
    }
    let mut found = Vec::new();
    let mut check = |what: &str, is_same: bool, detail: String| {
        if !is_same {
            found.push(format!("{what} {detail}"));
        }
    };
    let times = [wanted, got].map(|one| (one.mtime(), one.mtime_nsec()));
    check("mtime", times[0] == times[1], format!("{times:?}"));
    let owners = [wanted, got].map(|one| (one.uid(), one.gid()));
    check("owner", owners[0] == owners[1], format!("{owners:?}"));
    if wanted.is_symlink() {
        let targets = [from, to].map(|path| fs::read_link(path).expect("read a link"));
        check("target", targets[0] == targets[1], format!("{targets:?}"));
        return found;
    }
    check("mode", wanted.mode() == got.mode(), format!("{:o} {:o}", wanted.mode(), got.mode()));
    if wanted.is_file() {
        let bytes = [from, to].map(|path| fs::read(path).expect("read a file"));
        check("bytes", bytes[0] == bytes[1], format!("{} {}", bytes[0].len(), bytes[1].len()));
        let room = [(from, wanted), (to, got)].map(|(path, metadata)| room_bytes(path, metadata));
        let is_sparse = room[0] < wanted.len();
        check("room", !is_sparse || room[1] <= room[0] + ROOM_SLACK_BYTES, format!("{room:?}"));
        check("names", got.nlink() == 1, got.nlink().to_string());
    }
    found
}

/// What a file system of the tests gives out at a time.
const BLOCK_BYTES: u64 = 4096;

/// The room that a file takes. XFS counts what it reserves for writes to bytes that are shared, and gives that back
/// minutes later: there it is what the file's extents have.
fn room_bytes(path: &Path, metadata: &Metadata) -> u64 {
    let counted = metadata.blocks() * 512;
    let is_as_long = counted == metadata.len().next_multiple_of(BLOCK_BYTES);
    if counted == 0 || is_as_long || statfs(path).expect("examine the file system").filesystem_type() != XFS_SUPER_MAGIC
    {
        return counted;
    }
    let Ok(output) = Command::new("xfs_bmap").arg(path).output() else { return counted };
    let listed = String::from_utf8_lossy(&output.stdout);
    // `0: [0..2047]: hole` or `1: [2048..4095]: 6293440..6295487`, in sectors.
    let extents = listed.lines().filter_map(|line| line.split_once(": [")?.1.split_once("]: "));
    let sectors = extents.filter(|(_, what)| *what != "hole").map(|(span, _)| {
        let (first, last) = span.split_once("..").expect("a span");
        last.parse::<u64>().expect("a number") + 1 - first.parse::<u64>().expect("a number")
    });
    sectors.sum::<u64>() * 512
}

fn entries(root: &Path) -> Entries {
    let mut found = Entries::new();
    let metadata = fs::symlink_metadata(root).expect("examine the root");
    let is_dir = metadata.is_dir();
    found.insert(Vec::new(), metadata);
    if is_dir {
        add_entries(root, &[], &mut found);
    }
    found.remove(&b".fastcp"[..]);
    found.retain(|name, _| !name.starts_with(b".fastcp/"));
    found
}

fn add_entries(root: &Path, dir: &[u8], found: &mut Entries) {
    for entry in fs::read_dir(path_of(root, dir)).expect("read a directory") {
        let entry = entry.expect("read a directory");
        let metadata = entry.metadata().expect("examine an entry");
        let file_type = metadata.file_type();
        if file_type.is_fifo() || file_type.is_socket() {
            continue;
        }
        let name = entry.file_name().into_vec();
        let path = if dir.is_empty() { name } else { [dir, b"/", &name].concat() };
        if file_type.is_dir() {
            add_entries(root, &path, found);
        }
        found.insert(path, metadata);
    }
}

fn path_of(root: &Path, name: &[u8]) -> PathBuf {
    if name.is_empty() { root.to_path_buf() } else { root.join(OsStr::from_bytes(name)) }
}

fn shown(name: &[u8]) -> String {
    format!("\"{}\"", name.escape_ascii())
}

/// All paths below a directory, without the state of runs.
pub(crate) fn walk(root: &Path) -> Vec<String> {
    let all = snapshot(root).into_iter().map(|(path, ..)| path.strip_prefix(root).expect("below").to_path_buf());
    let names = all.map(|path| path.to_str().expect("plain").to_owned());
    names.filter(|path| !path.is_empty() && !path.split('/').any(|name| name == ".fastcp")).collect()
}
