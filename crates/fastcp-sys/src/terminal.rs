//! What a terminal looks like.

use std::os::fd::{AsFd, AsRawFd};

use nix::errno::Errno;

/// How many columns a terminal has; `None` where it does not say, or is none.
pub fn columns(terminal: impl AsFd) -> Option<u16> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the kernel writes a `winsize` into `size`, which lives until the call is over.
    let got = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    Errno::result(got).ok().map(|_| size.ws_col).filter(|&columns| columns > 0)
}
