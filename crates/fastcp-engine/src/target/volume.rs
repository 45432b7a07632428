//! Where one mount of a destination ends and another begins: each keeps a state of its own.

use std::io;

use fastcp_model::RelPath;
use fastcp_sys::Root;

/// Whether a directory is the top of what is mounted there.
///
/// # Errors
/// It, or the one above it, cannot be looked at.
pub(crate) fn is_top_of_volume(root: &Root, path: &RelPath) -> io::Result<bool> {
    let Some((above, _)) = path.split() else { return Ok(true) };
    Ok(root.dir(path)?.volume()? != root.dir(&above)?.volume()?)
}
