//! A private sshd on loopback, with keys of its own, and what ssh has to know to log in there.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

use nix::unistd::{User, geteuid};

use super::port::ReservedPort;
use super::{Workspace, say_skipped, wait_until};

const PROGRAMS: [&str; 3] = ["/usr/sbin/sshd", "/usr/local/sbin/sshd", "/usr/bin/sshd"];

/// A daemon at work; killed when dropped. What it has started ends with its clients.
#[derive(Debug)]
pub(crate) struct Sshd {
    child: Child,
    port: ReservedPort,
    dir: Workspace,
}

impl Sshd {
    /// One with these lines of configuration first. `None` where nobody can log in here: then the test is skipped.
    pub(crate) fn start(config: &str) -> Option<Self> {
        static WHY_NOT: LazyLock<Option<String>> = LazyLock::new(|| match Sshd::launch("") {
            Ok(sshd) => sshd.try_login().err(),
            Err(error) => Some(error.to_string()),
        });
        if let Some(why) = &*WHY_NOT {
            say_skipped(&format!("nobody can log in to an sshd here: {why}"));
            return None;
        }
        Some(Self::launch(config).expect("one more sshd"))
    }

    fn launch(config: &str) -> io::Result<Self> {
        let program = PROGRAMS.into_iter().find(|program| Path::new(program).exists());
        let program = program.ok_or_else(|| io::Error::other("it is not installed"))?;
        let (dir, port) = (Workspace::new(), ReservedPort::new());
        let at = |name: &str| dir.at(name).display().to_string();
        for name in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            let made = keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(dir.at(name)).status()?;
            assert!(made.success(), "make a key");
        }
        let number = port.port;
        let server = format!(
            "{config}\nListenAddress 127.0.0.1:{number}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             UsePAM no\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nLogLevel VERBOSE\n",
            at("host"),
            at("user.pub")
        );
        fs::write(dir.at("sshd_config"), server)?;
        let user = User::from_uid(geteuid())?.ok_or_else(|| io::Error::other("this user has no name"))?;
        let client = format!(
            "Host far\nHostName 127.0.0.1\nPort {number}\nUser {}\nIdentityFile {}\nIdentitiesOnly yes\nBatchMode yes\n\
             UserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\nStrictHostKeyChecking accept-new\nLogLevel ERROR\n",
            user.name,
            at("user"),
            at("known_hosts")
        );
        fs::write(dir.at("ssh_config"), client)?;
        let mut command = Command::new(program);
        command.args(["-D", "-e", "-f"]).arg(dir.at("sshd_config")).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(dir.at("log"))?).spawn()?;
        let mut sshd = Self { child, port, dir };
        let mut has_ended = false;
        wait_until("sshd to listen", || {
            has_ended = sshd.child.try_wait().expect("ask for the end").is_some();
            has_ended || sshd.log().contains("Server listening")
        });
        if has_ended { Err(io::Error::other(sshd.log())) } else { Ok(sshd) }
    }

    fn try_login(&self) -> Result<(), String> {
        let words = self.rsh();
        let mut words = words.split(' ');
        let mut command = Command::new(words.next().expect("a program"));
        let output = command.args(words).args(["far", "true"]).stdin(Stdio::null()).output();
        let output = output.map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// The command that leads to the host `far`.
    pub(crate) fn rsh(&self) -> String {
        format!("ssh -F {}", self.dir.at("ssh_config").display())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.port
    }

    /// How many logins there were.
    pub(crate) fn logins(&self) -> usize {
        self.log().matches("Accepted publickey").count()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.at("log")).expect("read the log")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
