//! System calls that fail on demand: strace runs a program and answers some of its calls in the kernel's place.
//!
//! The tracer runs beside the program (`-D`): the program's process is the one that was started, so signals and
//! exit codes are its own.

use std::path::Path;
use std::process::Command;

use super::launch::is_everywhere;
use super::say_skipped;

/// The faults that a program is run with.
#[derive(Debug, Clone)]
pub(crate) struct Strace {
    calls: Vec<String>,
    words: Vec<String>,
}

impl Strace {
    /// No fault yet; `None`, with a message, where there is no strace.
    pub(crate) fn new() -> Option<Self> {
        if is_everywhere("no-proc") {
            say_skipped("strace finds no paths without /proc");
            return None;
        }
        let is_there = Command::new("strace").arg("-V").output().is_ok_and(|output| output.status.success());
        if !is_there {
            say_skipped("strace is not installed");
        }
        is_there.then(|| Self { calls: Vec::new(), words: Vec::new() })
    }

    /// Each of these calls fails with an error, such as `EIO`.
    pub(crate) fn fails(self, call: &str, error: &str) -> Self {
        self.inject(call, &format!("error={error}"))
    }

    /// Some of these calls fail: `3` is the third of each thread, `3+` all from there, `3..5` three of them, `1+2`
    /// every other one.
    pub(crate) fn fails_at(self, call: &str, error: &str, when: &str) -> Self {
        self.inject(call, &format!("error={error}:when={when}"))
    }

    /// The process is killed in the middle of this call.
    pub(crate) fn kills_at(self, call: &str, when: u32) -> Self {
        self.inject(call, &format!("signal=KILL:when={when}"))
    }

    /// Each of these calls begins so much later.
    pub(crate) fn delays(self, call: &str, micros: u32) -> Self {
        self.inject(call, &format!("delay_enter={micros}"))
    }

    /// What `-e inject=CALL:` may be followed by.
    pub(crate) fn inject(mut self, call: &str, fault: &str) -> Self {
        self.calls.push(call.to_owned());
        self.words.extend(["-e".to_owned(), format!("inject={call}:{fault}")]);
        self
    }

    /// Only calls count whose descriptor or path argument leads to `path`. May be given more than once.
    pub(crate) fn on_path(mut self, path: &Path) -> Self {
        self.words.extend(["-P".to_owned(), path.to_str().expect("plain").to_owned()]);
        self
    }

    /// Lines of what was traced go to `log`.
    pub(crate) fn logged_to(mut self, log: &Path) -> Self {
        self.words.extend(["-o".to_owned(), log.to_str().expect("plain").to_owned()]);
        self
    }

    /// What the program's words follow on.
    pub(crate) fn words(&self) -> Vec<String> {
        let trace = format!("trace={}", self.calls.join(","));
        let first = ["strace", "-D", "-f", "-qqq", "-o", "/dev/null", "-e", &trace];
        first.into_iter().map(str::to_owned).chain(self.words.iter().cloned()).collect()
    }
}
