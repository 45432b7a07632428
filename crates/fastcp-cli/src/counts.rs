//! What a program built with the feature `counts` leaves when it ends: its counts, as JSON, in the file that
//! `FASTCP_COUNTS` names. For `fastcp-bench counts`.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use fastcp_engine::counts::{Counts, taken};

use crate::stderr::complain;

pub(crate) const VARIABLE: &str = "FASTCP_COUNTS";

/// Writes them, if the variable is set. To be called last.
pub(crate) fn write() {
    let Some(path) = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()) else { return };
    if let Err(error) = write_to(&path) {
        complain(&format!("fastcp: cannot write counts to \"{}\": {error}", path.display()));
    }
}

/// The directory of that file.
pub(crate) fn dir() -> Option<PathBuf> {
    let path = std::env::var_os(VARIABLE).filter(|path| !path.is_empty())?;
    Path::new(&path).parent().map(Path::to_owned)
}

fn write_to(path: &OsStr) -> io::Result<()> {
    let Counts { allocations, locks, context_switches } = taken()?;
    let counts = serde_json::json!({
        "allocations": allocations,
        "locks": locks,
        "context_switches": context_switches,
    });
    std::fs::write(path, counts.to_string())
}
