//! Messages.

use std::io::{self, Write};

/// One line on stderr.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}
