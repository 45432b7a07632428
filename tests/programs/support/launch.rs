//! How the programs under test are started: the one place for it, so that all of them can be run where something is
//! missing.
//!
//! `FASTCP_TEST_UNDER` names restrictions (`tests/under` lists them), separated by spaces; every client and server
//! that a test starts is then run under them. A test whose subject is a restriction names it itself.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;

use super::{NOBODY, say_skipped};

/// Run with `bash -c`: the user that a program is run as may not be able to reach the file.
const UNDER: &str = include_str!("../../under");

/// What stands between a test and the program that it starts.
#[derive(Debug, Default, Clone)]
pub(crate) struct Launch {
    restrictions: Vec<String>,
    is_unprivileged: bool,
    /// A program that runs it, and its words.
    under: Vec<String>,
    /// Variables of its environment.
    variables: Vec<(String, OsString)>,
}

impl Launch {
    /// Adds restrictions, separated by spaces.
    pub(crate) fn restrict(&mut self, restrictions: &str) {
        self.restrictions.extend(restrictions.split_whitespace().map(str::to_owned));
    }

    /// Has the program run by another one, which these words begin with.
    pub(crate) fn set_under(&mut self, words: Vec<String>) {
        self.under = words;
    }

    /// Gives the program a variable of the environment.
    pub(crate) fn set_variable(&mut self, name: &str, value: impl Into<OsString>) {
        self.variables.push((name.to_owned(), value.into()));
    }

    /// Has the program run as a user without rights.
    pub(crate) fn set_unprivileged(&mut self) {
        self.is_unprivileged = true;
    }

    /// A command that runs `program` so.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut words = self.restricting_words();
        if self.is_unprivileged {
            let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
            words.extend(["setpriv".to_owned(), "--clear-groups".to_owned()].into_iter().chain(user));
        }
        words.extend(self.under.iter().cloned());
        let mut command = match words.split_first() {
            None => Command::new(program),
            Some((first, words)) => {
                let mut command = Command::new(first);
                command.args(words).arg(program);
                command
            }
        };
        // Nobody's own keys are read or written.
        let config = if self.is_unprivileged { config_home().join("nobody") } else { config_home().to_owned() };
        command.env("XDG_CONFIG_HOME", config).env_remove("FASTCP_TOKEN");
        // Not where the tests' own trees are: their sandbox lets programs write to it.
        command.env("TMPDIR", "/var/tmp");
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    fn restricting_words(&self) -> Vec<String> {
        let everywhere = std::env::var("FASTCP_TEST_UNDER").unwrap_or_default();
        let mut restrictions: Vec<String> = everywhere.split_whitespace().map(str::to_owned).collect();
        restrictions.extend(self.restrictions.iter().cloned());
        if restrictions.is_empty() {
            return Vec::new();
        }
        let first = ["bash", "-c", UNDER, "under"].into_iter().map(str::to_owned);
        first.chain(restrictions).chain(["--".to_owned()]).collect()
    }
}

/// A directory for configuration that all programs share unless they are given another one; it ends with the tests.
fn config_home() -> &'static Path {
    static HOME: LazyLock<PathBuf> = LazyLock::new(|| {
        let dir = std::env::temp_dir().join(format!("fastcp-tests-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("make a directory for configuration");
        dir
    });
    &HOME
}

/// Whether every program of this run of the tests is under a restriction.
pub(crate) fn is_everywhere(restriction: &str) -> bool {
    std::env::var("FASTCP_TEST_UNDER").is_ok_and(|all| all.split_whitespace().any(|one| one == restriction))
}

/// Whether programs can be run under these restrictions here; says why a test is skipped where not.
pub(crate) fn can_restrict(restrictions: &str) -> bool {
    let mut launch = Launch::default();
    launch.restrict(restrictions);
    let status = launch.command("true".as_ref()).stderr(Stdio::null()).status();
    let can = status.is_ok_and(|status| status.success());
    if !can {
        say_skipped(&format!("nothing can be run under {restrictions} here"));
    }
    can
}
