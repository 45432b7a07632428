//! A copy that has more than its source, and what is told where that is not deleted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::client::Run;
use super::copied::Copied;
use super::tree::plain;
use super::way::Way;

impl Copied {
    /// A plain tree, and [`put_extra`] in its copy.
    pub(crate) fn with_extra() -> Self {
        Self::with_extra_by(Way::Pull)
    }

    /// The same, copied this way.
    pub(crate) fn with_extra_by(way: Way) -> Self {
        let copied = Self::by(way, plain);
        put_extra(&copied.copy);
        copied
    }

    pub(crate) fn delete(&self, options: &str) -> Run {
        self.run(&format!("--delete {options}"))
    }

    /// Panics unless [`put_extra`] is still there, all of it.
    pub(crate) fn assert_extra_kept(&self) {
        for path in ["extra", "sub/extra", "gone/below/deep", "gone/link"] {
            assert!(self.copy.join(path).symlink_metadata().is_ok(), "{path} is gone");
        }
    }
}

/// How many entries [`put_extra`] makes.
pub(crate) const EXTRA: u64 = 6;

pub(crate) fn put_extra(copy: &Path) {
    fs::write(copy.join("extra"), b"extra").expect("write");
    fs::write(copy.join("sub/extra"), b"extra in sub").expect("write");
    fs::create_dir_all(copy.join("gone/below")).expect("create");
    fs::write(copy.join("gone/below/deep"), b"deep").expect("write");
    symlink("below", copy.join("gone/link")).expect("link");
}

/// Why nothing was deleted, by the events.
pub(crate) fn refusals(run: &Run) -> Vec<String> {
    let events = run.events().into_iter().filter(|event| event["event"] == "not_deleting");
    events.map(|event| event["reason"].as_str().expect("a reason").to_owned()).collect()
}
