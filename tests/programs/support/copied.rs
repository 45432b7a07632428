//! A tree and a copy of it that a first run made.

use std::path::{Path, PathBuf};

use super::Workspace;
use super::client::{Client, Run, contents};

/// A tree and its copy, in a workspace of their own. Test programs add what they do with it.
#[derive(Debug)]
pub(crate) struct Copied {
    pub(crate) workspace: Workspace,
    pub(crate) source: PathBuf,
    pub(crate) copy: PathBuf,
}

impl Copied {
    /// What `make` makes at the path that it is given, copied.
    pub(crate) fn of(make: impl FnOnce(&Path) -> PathBuf) -> Self {
        let workspace = Workspace::new();
        let source = make(&workspace.at("source"));
        let copied = Self { source, copy: workspace.at("copy"), workspace };
        copied.pull("").expect_exit(0);
        copied
    }

    /// Copies once more.
    pub(crate) fn pull(&self, options: &str) -> Run {
        Client::pull(contents(&self.source), &self.copy).options(options).run()
    }
}
