//! A remote shell that leads to another machine, which is this one: a pipe, or ssh to a private sshd.
//!
//! A script stands for the login: it says what a test wants said, and starts the far end.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::client::Client;
use super::sshd::Sshd;
use super::{Workspace, wait_until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_fastcp-server");

/// A far end as it usually is.
pub(crate) const PLAIN: &str = "exec \"$@\"";
/// A far end that reads the command as sshd has a login shell do it.
pub(crate) const LOGIN: &str = "exec sh -c \"${SSH_ORIGINAL_COMMAND:-$*}\"";
/// Takes whatever comes to its end, and passes nothing on.
pub(crate) const SINK: &str = "cat >/dev/null";

/// The way, and a workspace with a home directory at its end.
#[derive(Debug)]
pub(crate) struct Road {
    pub(crate) workspace: Workspace,
    pub(crate) sshd: Option<Sshd>,
    rsh: String,
}

impl Road {
    /// A pipe. The server does not learn that anybody has logged in, so all goes through it.
    pub(crate) fn piped() -> Self {
        Self::piped_by(PLAIN)
    }

    /// The same; the login does this with the words of the command.
    pub(crate) fn piped_by(script: &str) -> Self {
        let workspace = workspace();
        let rsh = format!("sh {}", workspace.at("login").display());
        let road = Self { workspace, sshd: None, rsh };
        road.set_script(script);
        road
    }

    /// Through ssh, with these lines in the configuration of the daemon. `None` where there is none.
    pub(crate) fn ssh(config: &str) -> Option<Self> {
        let sshd = Sshd::start(config)?;
        let rsh = sshd.rsh();
        Some(Self { workspace: workspace(), sshd: Some(sshd), rsh })
    }

    /// The same; the login does this.
    pub(crate) fn ssh_by(script: &str) -> Option<Self> {
        let workspace = workspace();
        let sshd = Sshd::start(&format!("ForceCommand exec sh {}", workspace.at("login").display()))?;
        let rsh = sshd.rsh();
        let road = Self { workspace, sshd: Some(sshd), rsh };
        road.set_script(script);
        Some(road)
    }

    /// Both kinds, as far as there are both.
    pub(crate) fn both_by(script: &str) -> impl Iterator<Item = Self> + use<> {
        std::iter::once(Self::piped_by(script)).chain(Self::ssh_by(script))
    }

    /// Has the next login do this.
    pub(crate) fn set_script(&self, script: &str) {
        // The words come from ssh in one, or as they are.
        let words = match self.sshd {
            Some(_) => "eval \"set -- $SSH_ORIGINAL_COMMAND\"",
            None => "unset SSH_CONNECTION; shift",
        };
        let home = self.home();
        let text = format!("{words}\nHOME='{0}'; export HOME; cd '{0}'\n{script}\n", home.display());
        fs::write(self.workspace.at("login"), text).expect("write");
    }

    /// Another command in place of the usual one.
    pub(crate) fn set_rsh(&mut self, rsh: &str) {
        rsh.clone_into(&mut self.rsh);
    }

    /// The script of the login.
    pub(crate) fn login(&self) -> PathBuf {
        self.workspace.at("login")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.workspace.at("home")
    }

    /// fastcp-server, under a name that no other test has for it.
    pub(crate) fn program(&self) -> PathBuf {
        self.workspace.at("fastcp-server")
    }

    /// A client that goes this way.
    pub(crate) fn client(&self, client: Client) -> Client {
        self.client_of(client, self.program())
    }

    /// The same, with another program at the end.
    pub(crate) fn client_of(&self, client: Client, program: impl AsRef<OsStr>) -> Client {
        self.plain_client(client).words(&["--remote-bin".as_ref(), program.as_ref()])
    }

    /// The same, which is told of no program. What it keeps for the next run is this road's.
    pub(crate) fn plain_client(&self, client: Client) -> Client {
        let client = client.words(&["--rsh".as_ref(), OsStr::new(&self.rsh)]);
        client.variable("XDG_CONFIG_HOME", self.workspace.at("config"))
    }

    /// The servers at the end of it.
    pub(crate) fn servers(&self) -> Vec<u32> {
        let beginning = [self.program().as_os_str().as_encoded_bytes(), b"\0"].concat();
        let is_one =
            |pid: &u32| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(&beginning));
        processes().into_iter().filter(is_one).collect()
    }

    /// Waits until nothing is left at the end of it.
    pub(crate) fn wait_until_left(&self) {
        wait_until("the far end to be over", || self.servers().is_empty());
    }
}

/// `far:PATH`.
pub(crate) fn far(path: impl AsRef<Path>) -> OsString {
    let mut place = OsString::from("far:");
    place.push(path.as_ref());
    place
}

/// What a process has started, and what that has.
pub(crate) fn descendants(pid: u32) -> Vec<u32> {
    let parents: Vec<_> = processes().into_iter().filter_map(|child| Some((child, parent_of(child)?))).collect();
    let mut found = vec![pid];
    let mut nth = 0;
    while let Some(&parent) = found.get(nth) {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(child, _)| child));
        nth += 1;
    }
    found.split_off(1)
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("list processes");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect()
}

fn parent_of(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    stat.rsplit_once(')')?.1.split(' ').nth(2)?.parse().ok()
}

fn workspace() -> Workspace {
    let workspace = Workspace::new();
    fs::create_dir(workspace.at("home")).expect("make the home directory");
    symlink(PROGRAM, workspace.at("fastcp-server")).expect("make a link");
    workspace
}
