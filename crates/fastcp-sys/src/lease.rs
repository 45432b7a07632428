//! Opening a file that another program may have to let go of first.
//!
//! A file server (Samba, the kernel's NFS server) may hold a *lease* on a file. With `O_NONBLOCK`, which files are
//! opened with so that a pipe put in their place blocks nobody, opening a leased file fails with `EAGAIN`, and the
//! kernel asks the holder to give the lease up; it takes it away after `/proc/sys/fs/lease-break-time`, 45 seconds.
//! A holder that is alive answers within moments. So opening is tried again, with growing waits, for a while.
//!
//! `openat2` says `EAGAIN` for another reason as well: something was renamed or mounted while the kernel proved that
//! the path stays beneath its root. That is over at once, so the first attempts do not wait.

use std::os::fd::OwnedFd;
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;

/// So many attempts come without a wait between them.
const AT_ONCE_MAX: u32 = 8;
const WAIT_FIRST: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(100);
/// All waits together: short beside what a peer waits for an answer.
const WAITED_MAX: Duration = Duration::from_secs(2);

/// Opens by `open`, again and again while it is interrupted, and for a while where it says `EAGAIN`.
///
/// # Errors
/// `EAGAIN` where the holder of a lease keeps it; else as `open` says.
pub(crate) fn open_patiently(mut open: impl FnMut() -> nix::Result<OwnedFd>) -> nix::Result<OwnedFd> {
    let (mut attempts, mut wait, mut waited) = (0, WAIT_FIRST, Duration::ZERO);
    loop {
        match open() {
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if attempts < AT_ONCE_MAX => attempts += 1,
            Err(Errno::EAGAIN) if waited < WAITED_MAX => {
                sleep(wait);
                waited += wait;
                wait = (wait * 2).min(WAIT_MAX);
            }
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::sync::mpsc::channel;

    use fastcp_model::{Name, RelPath};
    use nix::errno::Errno;

    use super::open_patiently;
    use crate::Root;

    #[test]
    fn what_stays_leased_is_given_up_after_a_bounded_number_of_attempts() {
        let mut attempts = 0;
        let result = open_patiently(|| {
            attempts += 1;
            Err(Errno::EAGAIN)
        });
        assert_eq!(result.err(), Some(Errno::EAGAIN));
        assert!((10..100).contains(&attempts), "{attempts}");
        let mut errors = vec![Errno::EINTR, Errno::EAGAIN, Errno::EINTR].into_iter();
        let opened = open_patiently(|| match errors.next() {
            Some(error) => Err(error),
            None => Ok(OwnedFd::from(File::open("/dev/null").expect("open"))),
        });
        assert!(opened.is_ok());
    }

    /// Takes a lease, or gives it up.
    fn set_lease(file: &File, lease: i32) -> nix::Result<()> {
        // SAFETY: the descriptor is borrowed for the call, which touches no memory of ours.
        Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, lease) }).map(drop)
    }

    #[test]
    fn a_lease_that_its_holder_gives_up_is_waited_for() {
        // SAFETY: to ignore a signal installs no handler. The kernel tells the holder by SIGIO, which ends a process
        // that does not expect it.
        unsafe { libc::signal(libc::SIGIO, libc::SIG_IGN) };
        let tree = tempfile::tempdir().expect("temporary directory");
        let path = tree.path().join("leased");
        std::fs::write(&path, b"bytes").expect("write");
        let root = Root::open(tree.path()).expect("open");
        let dir = root.dir(&RelPath::root()).expect("open");
        let name = Name::new(b"leased").expect("lawful");
        for by_root in [true, false] {
            let held = File::options().read(true).write(true).open(&path).expect("open");
            if set_lease(&held, libc::F_WRLCK).is_err() {
                return;
            }
            let (opening, opened) = channel();
            std::thread::scope(|threads| {
                threads.spawn(|| {
                    // Once the kernel has asked for the lease it is a shared one on its way to none.
                    let mut lease = libc::F_WRLCK;
                    while lease == libc::F_WRLCK {
                        // SAFETY: as before.
                        lease = unsafe { libc::fcntl(held.as_raw_fd(), libc::F_GETLEASE) };
                        std::thread::yield_now();
                    }
                    set_lease(&held, libc::F_UNLCK).expect("give up");
                });
                let path = RelPath::new(b"leased").expect("lawful");
                let file = if by_root { root.open_file(&path) } else { dir.open_file(&name) };
                opening.send(file.map(drop)).expect("send");
            });
            assert!(opened.recv().expect("sent").is_ok());
        }
    }
}
