//! Numbers, sizes and names as people read them.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fastcp_model::{Escaped, Grouped, SpecialKind};

/// A number and a noun: `1 file`, `2,000 files`, `2 entries`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{} {stem}ies", Grouped(count)),
        (_, None) => format!("{} {noun}s", Grouped(count)),
    }
}

/// Numbers of several kinds: `2 missing, 1 size`.
pub(crate) fn counts<K: std::fmt::Display>(by_kind: &BTreeMap<K, u64>) -> String {
    let counts: Vec<String> = by_kind.iter().map(|(kind, count)| format!("{} {kind}", Grouped(*count))).collect();
    counts.join(", ")
}

/// Bytes for people.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

/// What a special file is.
pub(crate) fn kind_name(kind: SpecialKind) -> &'static str {
    match kind {
        SpecialKind::Fifo => "named pipe",
        SpecialKind::Socket => "socket",
        SpecialKind::CharDevice => "character device",
        SpecialKind::BlockDevice => "block device",
    }
}

/// A path in a message.
pub(crate) fn shown(path: &Path) -> String {
    Escaped(path.as_os_str().as_bytes()).to_string()
}
