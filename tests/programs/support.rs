//! What the tests of the whole programs are made of: trees, servers, clients, peers that misbehave,
//! and a comparer that owes nothing to the code under test.
//!
//! Every helper works in a [`Workspace`] of its own and ends what it started when it is dropped, so
//! tests run in any order and side by side.

pub(crate) mod balancer;
pub(crate) mod beside;
pub(crate) mod client;
pub(crate) mod collision;
pub(crate) mod compare;
pub(crate) mod copied;
pub(crate) mod crash_disk;
pub(crate) mod cut_proxy;
pub(crate) mod extra;
pub(crate) mod fit;
pub(crate) mod journal;
pub(crate) mod killed;
pub(crate) mod launch;
pub(crate) mod lied_to;
pub(crate) mod link;
pub(crate) mod lying_receiver;
pub(crate) mod lying_sender;
pub(crate) mod memory;
pub(crate) mod mount;
pub(crate) mod peer;
pub(crate) mod plain_source;
pub(crate) mod port;
pub(crate) mod road;
pub(crate) mod said;
pub(crate) mod secrets;
pub(crate) mod server;
pub(crate) mod silence;
pub(crate) mod source_address;
pub(crate) mod sshd;
pub(crate) mod stage;
pub(crate) mod strace;
pub(crate) mod sweep;
pub(crate) mod tree;
pub(crate) mod valve;
pub(crate) mod versions;
pub(crate) mod way;

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The user that unprivileged clients run as when the tests run as root.
pub(crate) const NOBODY: u32 = 65534;

/// Nothing that is waited for takes this long unless it hangs.
pub(crate) const HANG_TIMEOUT: Duration = Duration::from_secs(60);

/// How often [`wait_until`] looks. Nothing rests on it.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Whether permission bits do not bind this process.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Looks again and again until something is so that no event tells of.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + HANG_TIMEOUT;
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Says why a test, or a part of one, did not run.
pub(crate) fn say_skipped(why: &str) {
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Says what a test has seen, for whoever runs it with `--nocapture`.
pub(crate) fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// A temporary directory that other users can enter, removed with all that is in it.
#[derive(Debug)]
pub(crate) struct Workspace {
    dir: TempDir,
}

impl Workspace {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("fastcp-").tempdir().expect("temporary directory");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("chmod");
        Self { dir }
    }

    /// A workspace that an unprivileged client may write to.
    pub(crate) fn for_nobody() -> Self {
        let workspace = Self::new();
        if is_root() {
            chown(workspace.dir.path(), Some(NOBODY), Some(NOBODY)).expect("chown");
        }
        workspace
    }

    /// The path of `name` in the workspace.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        if !is_root() {
            open_up(self.dir.path());
        }
    }
}

/// Gives back the right to remove what is in read-only directories.
fn open_up(dir: &Path) {
    let _ = fs::set_permissions(dir, Permissions::from_mode(0o700));
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|file_type| file_type.is_dir()) {
            open_up(&entry.path());
        }
    }
}
