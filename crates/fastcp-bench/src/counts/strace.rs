//! What strace wrote: the system calls of a program by their names, and the bytes that they copied.
//!
//! Each thread has a file of its own (`-ff`), which is read line by line. Arguments are not looked at. A call that the
//! kernel begins anew after a signal is shown again, so what is to be restarted does not count. A call that was shown
//! in two parts counts where it began, and its bytes where it ended.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::Path;

use crate::error::BenchError;

/// Calls that copy bytes between the kernel and the program, and answer how many. The others that move bytes
/// (`sendfile`, `splice`, `copy_file_range`) leave them in the kernel.
const COPYING: [&str; 14] = [
    "read", "pread64", "readv", "preadv", "preadv2", "recvfrom", "recvmsg", "write", "pwrite64", "writev", "pwritev",
    "pwritev2", "sendto", "sendmsg",
];

/// Calls that are younger than some straces, which show their numbers.
const YOUNG: [(&str, &str); 1] = [("syscall_0x1c4", "fchmodat2")];

const UNFINISHED: &str = "<unfinished ...>";

/// What a program called.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Calls {
    pub(super) by_name: BTreeMap<String, u64>,
    /// Into the program and out of it, together.
    pub(super) copied_bytes: u64,
}

/// The words before a command whose calls go to files that begin with `log`. Signals are the command's alone.
pub(super) fn words(log: &Path) -> Vec<OsString> {
    let fixed = ["strace", "-ff", "-qqq", "-I", "3", "-e", "raw=all", "-e", "signal=none", "-o"];
    fixed.into_iter().map(OsString::from).chain([log.as_os_str().to_owned()]).collect()
}

impl Calls {
    /// Reads every file that begins with `log`, and removes it.
    pub(super) fn take(log: &Path) -> Result<Self, BenchError> {
        let (Some(dir), Some(name)) = (log.parent(), log.file_name()) else {
            return Err(BenchError::Usage("a log has a name"));
        };
        let begin = format!("{}.", name.to_string_lossy());
        let mut calls = Self::default();
        for entry in fs::read_dir(dir).map_err(BenchError::file("list", dir))? {
            let entry = entry.map_err(BenchError::file("list", dir))?;
            if entry.file_name().to_string_lossy().starts_with(&begin) {
                let path = entry.path();
                calls.add_file(&path)?;
                fs::remove_file(&path).map_err(BenchError::file("remove", &path))?;
            }
        }
        Ok(calls)
    }

    fn add_file(&mut self, path: &Path) -> Result<(), BenchError> {
        let mut from = BufReader::new(File::open(path).map_err(BenchError::file("open", path))?);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).map_err(BenchError::file("read", path))? > 0 {
            self.add_line(&String::from_utf8_lossy(&line));
            line.clear();
        }
        Ok(())
    }

    fn add_line(&mut self, line: &str) {
        let line = without_thread(line.trim());
        if let Some(resumed) = line.strip_prefix("<... ") {
            let name = resumed.split(' ').next().unwrap_or_default();
            return self.add_bytes(name, line);
        }
        let Some((name, _)) = line.split_once('(').filter(|(name, _)| is_name(name)) else { return };
        if line.contains(" = ? ERESTART") {
            return;
        }
        let name = YOUNG.iter().find(|(number, _)| *number == name).map_or(name, |(_, name)| name);
        match self.by_name.get_mut(name) {
            Some(count) => *count += 1,
            None => drop(self.by_name.insert(name.to_owned(), 1)),
        }
        if !line.ends_with(UNFINISHED) {
            self.add_bytes(name, line);
        }
    }

    fn add_bytes(&mut self, name: &str, line: &str) {
        if COPYING.contains(&name) {
            self.copied_bytes += answer(line).unwrap_or(0);
        }
    }
}

/// Without the number that lines of several threads in one file begin with.
fn without_thread(line: &str) -> &str {
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.starts_with(' ') { rest.trim_start() } else { line }
}

/// Signals (`---`) and ends (`+++`) have none.
fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What the call answered; `None` for errors and for calls that never came back.
fn answer(line: &str) -> Option<u64> {
    let (_, answer) = line.rsplit_once(" = ")?;
    match answer.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => answer.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Calls;

    fn calls(text: &str) -> Calls {
        let mut calls = Calls::default();
        text.lines().for_each(|line| calls.add_line(line));
        calls
    }

    fn counts(calls: &Calls) -> Vec<(&str, u64)> {
        calls.by_name.iter().map(|(name, &count)| (name.as_str(), count)).collect()
    }

    #[test]
    fn calls_count_by_name_and_bytes_by_what_was_answered() {
        let calls = calls(
            "recvfrom(0x7, 0x7f13, 0x40000, 0, 0, 0) = 0x1f400\n\
             pwrite64(0xf, 0x7f13, 0x10, 0)          = 16\n\
             sendfile(0x7, 0x8, 0, 0x100000)         = 0x100000\n\
             openat2(0x4, 0x7f13, 0x7f13, 0x18)      = 0xe\n\
             close(0x3)                              = 0\n\
             close(0x4)                              = 0\n\
             syscall_0x1c4(0x3, 0x7f13, 0x1ed, 0)    = 0\n\
             exit_group(0)                           = ?\n",
        );
        let once = ["exit_group", "fchmodat2", "openat2", "pwrite64", "recvfrom", "sendfile"].map(|name| (name, 1));
        let expected: Vec<_> = [("close", 2)].into_iter().chain(once).collect();
        assert_eq!(counts(&calls), expected);
        assert_eq!(calls.copied_bytes, 0x1f400 + 16);
    }

    #[test]
    fn errors_count_and_have_no_bytes() {
        let calls = calls(
            "read(0x7, 0x7f13, 0x400) = -1 EAGAIN (Resource temporarily unavailable)\n\
             futex(0x5607, 0x89, 0xffffffff, 0, 0, 0) = -1 ETIMEDOUT (Connection timed out)\n",
        );
        assert_eq!((counts(&calls), calls.copied_bytes), (vec![("futex", 1), ("read", 1)], 0));
    }

    #[test]
    fn a_call_in_two_parts_counts_once() {
        let calls = calls(
            "17 read(0x7, <unfinished ...>\n\
             18 write(0x8, 0x7f13, 0x5) = 0x5\n\
             17 <... read resumed>0x7f13, 0x400) = 0x400\n\
             18 read(0x7, <unfinished ...>\n",
        );
        assert_eq!((counts(&calls), calls.copied_bytes), (vec![("read", 2), ("write", 1)], 0x405));
    }

    #[test]
    fn what_is_restarted_counts_once_and_signals_do_not() {
        let calls = calls(
            "read(0x7, 0x7f13, 0x400) = ? ERESTARTSYS (To be restarted if SA_RESTART is set)\n\
             --- SIGTERM {si_signo=SIGTERM, si_code=SI_USER, si_pid=1} ---\n\
             read(0x7, 0x7f13, 0x400) = 0x3\n\
             poll(0x7f13, 0x1, 0x7cf) = ? ERESTART_RESTARTBLOCK (Interrupted by signal)\n\
             restart_syscall(0x7f13)  = 0x1\n\
             +++ exited with 0 +++\n",
        );
        assert_eq!((counts(&calls), calls.copied_bytes), (vec![("read", 1), ("restart_syscall", 1)], 3));
    }

    #[test]
    fn the_files_of_all_threads_are_read_and_removed() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = |name: &str| dir.path().join(name);
        for name in ["server.1", "server.2", "servers"] {
            fs::write(path(name), "read(0x7, 0x7f13, 0x400) = 0x2\n").expect("write");
        }
        let calls = Calls::take(&path("server")).expect("calls");
        assert_eq!((counts(&calls), calls.copied_bytes), (vec![("read", 2)], 4));
        assert!(!path("server.1").exists() && path("servers").exists());
    }
}
