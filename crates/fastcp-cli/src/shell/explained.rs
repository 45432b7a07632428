//! What a tunnel ended with, in words that say what to do.

use fastcp_net::{End, NetError, RemoteProblem};
use fastcp_wire::session::MARK_VERSION;

/// This client's version.
const OWN: &str = env!("CARGO_PKG_VERSION");
const INSTEAD: &str = "--deploy runs this client's own program there; --remote-bin names another one";

/// What the far end was to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum FarEnd {
    /// A program that is installed there.
    #[default]
    Installed,
    /// The script that takes a program.
    Deploying,
    /// The program that was sent.
    Deployed,
}

/// How it ended: the exit code of the shell that led there, and what was heard.
pub(super) struct Ended {
    pub(super) far_end: FarEnd,
    pub(super) code: Option<i32>,
    pub(super) is_marked: bool,
    pub(super) other_version: Option<u32>,
    pub(super) end: Option<End>,
}

impl Ended {
    /// Why there is no session on this host, or none any more.
    pub(super) fn explain(&self, host: &str) -> NetError {
        let (problem, detail) = match (self.code, self.end) {
            (_, Some(End::Silence)) if self.is_marked => {
                (RemoteProblem::Ended, format!("nothing was heard from {host} for too long"))
            }
            _ if self.is_marked => (RemoteProblem::Ended, format!("the connection to {host} ended")),
            (Some(255), _) => {
                (RemoteProblem::NoLogin, format!("the remote shell could not reach {host} (exit code 255)"))
            }
            (code, _) => (RemoteProblem::NoProgram, self.without_session(host, code)),
        };
        NetError::Remote { problem, detail }
    }

    fn without_session(&self, host: &str, code: Option<i32>) -> String {
        let ended = code.map_or(String::new(), |code| format!(" (exit code {code})"));
        let installed = "install fastcp-server there, and run this with --no-deploy";
        match (self.far_end, code, self.other_version) {
            (FarEnd::Deploying, Some(126 | 127), _) => {
                format!("{host} has no shell (sh) that could take a program; {installed}")
            }
            (FarEnd::Deploying, ..) => {
                format!("{host} does not let a login run the commands that take a program{ended}; {installed}")
            }
            (FarEnd::Deployed, ..) => format!("the program that was sent to {host} did not begin a session{ended}"),
            (FarEnd::Installed, Some(126 | 127), _) => format!(
                "fastcp-server is not found on {host}. --deploy sends it there; or install it, or say where it is: \
                 --remote-bin /path/to/fastcp-server"
            ),
            (FarEnd::Installed, _, Some(other)) => format!(
                "fastcp-server on {host} speaks version {other} of the session, this client ({OWN}) version \
                 {MARK_VERSION}. {INSTEAD}"
            ),
            (FarEnd::Installed, Some(_), None) => format!(
                "fastcp-server on {host} did not begin a session{ended}; is it older than this client ({OWN})? {INSTEAD}"
            ),
            (FarEnd::Installed, None, None) => {
                format!("what answers on {host} is no fastcp-server of this client's version ({OWN}). {INSTEAD}")
            }
        }
    }
}
