//! Packet devices (TUN), and the network namespaces to make them in.
//!
//! A descriptor from [`open`] reads what the kernel routes to the device and writes what the kernel
//! shall take as arrived there: one call, one IP packet, no header before it. The device lives as long
//! as the descriptor, so that nothing is left behind by a process that dies.
//!
//! A namespace belongs to a thread, not to a process. [`in_namespace`] enters it on a thread that ends
//! afterwards, so no caller is ever left in the wrong one. A descriptor keeps the namespace that it was
//! made in, whichever thread uses it later.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};

/// Where the kernel offers packet devices. Missing in many containers.
pub const TUN_PATH: &str = "/dev/net/tun";

/// Makes the packet device `name` in the calling thread's namespace. Reads and writes do not block.
///
/// # Errors
/// As `open(2)` of [`TUN_PATH`] and `TUNSETIFF`; `InvalidInput` for a name of no or more than 15 bytes.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let mut request = libc::ifreq { ifr_name: device_name(name)?, ifr_ifru: device_flags() };
    let device = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(TUN_PATH)?;
    // SAFETY: the descriptor is open during the call and TUNSETIFF reads and writes one `ifreq`, which
    // `request` is, initialised to its last byte.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(result)?;
    Ok(device.into())
}

/// Does `act` on a thread of its own inside the network namespace that the file at `path` stands for.
///
/// # Errors
/// As opening `path` and `setns(2)`, otherwise what `act` answers.
pub fn in_namespace<T: Send>(path: &Path, act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let namespace = File::open(path)?;
    let inside = move || {
        setns(&namespace, CloneFlags::CLONE_NEWNET)?;
        act()
    };
    thread::scope(|scope| scope.spawn(inside).join().unwrap_or_else(|panic| resume_unwind(panic)))
}

/// The name as the kernel wants it, with a NUL at its end.
fn device_name(name: &str) -> io::Result<[libc::c_char; libc::IFNAMSIZ]> {
    let mut padded = [0; libc::IFNAMSIZ];
    // The kernel would make up a name for an empty one and stop at a NUL.
    if name.is_empty() || name.len() >= padded.len() || name.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (slot, byte) in padded.iter_mut().zip(name.bytes()) {
        *slot = byte.cast_signed();
    }
    Ok(padded)
}

/// IP packets, and no header before them.
fn device_flags() -> libc::__c_anonymous_ifr_ifru {
    let nothing = libc::__c_anonymous_ifru_map { mem_start: 0, mem_end: 0, base_addr: 0, irq: 0, dma: 0, port: 0 };
    // The longest member first: the kernel copies the union whole, and no byte of it may be stray.
    let mut value = libc::__c_anonymous_ifr_ifru { ifru_map: nothing };
    value.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    value
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::path::Path;
    use std::{fs, thread};

    use nix::sched::{CloneFlags, unshare};

    use super::{TUN_PATH, in_namespace, open};

    fn devices_here() -> String {
        fs::read_to_string("/proc/thread-self/net/dev").expect("read the devices")
    }

    fn is_able() -> bool {
        let is_able =
            crate::process::is_root() && Path::new(TUN_PATH).exists() && Path::new("/proc/thread-self").exists();
        if !is_able {
            let _ = writeln!(io::stderr(), "skipped: packet devices need root and {TUN_PATH}, and the test /proc");
        }
        is_able
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        for name in ["", "sixteen-bytes-xx", "nul\0"] {
            assert_eq!(open(name).expect_err(name).kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn a_device_lives_in_its_namespace_as_long_as_its_descriptor() {
        if !is_able() {
            return;
        }
        thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("a namespace of our own");
            let device = open("fastcp-test").expect("open");
            assert!(devices_here().contains("fastcp-test"));
            // Of the process means of its first thread, which stayed outside.
            let elsewhere = in_namespace(Path::new("/proc/self/ns/net"), || Ok(devices_here())).expect("enter");
            assert!(!elsewhere.contains("fastcp-test"));
            drop(device);
            assert!(!devices_here().contains("fastcp-test"));
        })
        .join()
        .expect("join");
    }
}
