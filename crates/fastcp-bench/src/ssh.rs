//! A private sshd, and how clients log in to it.
//!
//! Keys and configurations are made in the directory of one run and go with it; the user's own are left alone. The sshd takes
//! one key, for the user who runs the benchmark. One thing has to be made outside: the empty directory into which root's
//! sshd locks a part of itself, which is there only once the machine's own sshd has been started.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddrV4;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::BenchError;
use crate::programs::{find_in_path, is_root};

/// What clients call the machine with the sshd.
pub(crate) const HOST: &str = "far";

/// All that is needed of ssh.
pub(crate) const PROGRAMS: [&str; 3] = ["ssh", "sshd", "ssh-keygen"];

/// Where sshd is if nobody knows better. It wants an absolute path: for each client it starts itself again.
const SSHD: &str = "/usr/sbin/sshd";

/// Where root's sshd looks for an empty directory; the path is compiled in.
const EMPTY_DIR: &str = "/run/sshd";

/// The files of one sshd and its clients.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ssh<'a> {
    dir: &'a Path,
}

impl<'a> Ssh<'a> {
    /// With its files in `dir`.
    pub(crate) fn new(dir: &'a Path) -> Self {
        Self { dir }
    }

    /// Makes the files, and answers the command of an sshd that listens at `address`.
    pub(crate) fn server(self, address: SocketAddrV4) -> Result<Vec<OsString>, BenchError> {
        if is_root() {
            fs::create_dir_all(EMPTY_DIR).map_err(BenchError::file("make", EMPTY_DIR))?;
        }
        for key in [self.host_key(), self.user_key()] {
            make_key(&key)?;
        }
        let config = self.dir.join("sshd_config");
        fs::write(&config, self.server_config(address)).map_err(BenchError::file("write", &config))?;
        let client = self.client_config();
        fs::write(&client, self.client_config_text(address)).map_err(BenchError::file("write", &client))?;
        let sshd = find_in_path("sshd").unwrap_or_else(|| SSHD.into());
        Ok(vec![sshd.into(), "-f".into(), config.into(), "-D".into(), "-e".into()])
    }

    /// What `-F` of a client names.
    pub(crate) fn client_config(self) -> PathBuf {
        self.dir.join("ssh_config")
    }

    /// The command that leads to [`HOST`], for programs that take it as one word.
    pub(crate) fn shell(self) -> String {
        format!("ssh -F \"{}\"", self.client_config().display())
    }

    fn host_key(self) -> PathBuf {
        self.dir.join("host_key")
    }

    fn user_key(self) -> PathBuf {
        self.dir.join("user_key")
    }

    fn server_config(self, address: SocketAddrV4) -> String {
        let (ip, port) = (address.ip(), address.port());
        let (host_key, user_key) = (self.host_key(), self.user_key());
        let (host_key, user_key) = (host_key.display(), user_key.display());
        format!(
            "ListenAddress {ip}\n\
             Port {port}\n\
             HostKey \"{host_key}\"\n\
             AuthorizedKeysFile \"{user_key}.pub\"\n\
             PidFile none\n\
             StrictModes no\n\
             UsePAM no\n\
             PermitRootLogin yes\n\
             PasswordAuthentication no\n\
             KbdInteractiveAuthentication no\n\
             Subsystem sftp internal-sftp\n"
        )
    }

    fn client_config_text(self, address: SocketAddrV4) -> String {
        let (ip, port) = (address.ip(), address.port());
        let (user_key, known) = (self.user_key(), self.dir.join("known_hosts"));
        let (user_key, known) = (user_key.display(), known.display());
        format!(
            "Host {HOST}\n\
             HostName {ip}\n\
             Port {port}\n\
             IdentityFile \"{user_key}\"\n\
             IdentitiesOnly yes\n\
             IdentityAgent none\n\
             BatchMode yes\n\
             UserKnownHostsFile \"{known}\"\n\
             GlobalKnownHostsFile none\n\
             StrictHostKeyChecking accept-new\n\
             LogLevel ERROR\n"
        )
    }
}

fn make_key(path: &Path) -> Result<(), BenchError> {
    let program = || "ssh-keygen".to_owned();
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"]).arg(path).stdin(Stdio::null());
    let output = command.output().map_err(|source| BenchError::Spawn { program: program(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(BenchError::Program { program: program(), ended: output.status.to_string(), said })
}
