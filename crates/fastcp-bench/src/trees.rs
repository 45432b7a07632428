//! The trees of a run of the benchmark: made when first wanted, shared by all tools and places.
//!
//! They lie in the scratch directory, on tmpfs, so that no tool is measured by how fast its source
//! is read. A tree that is complete has its census beside it; where the trees are kept, the next
//! run takes them from there.

use std::fs;
use std::path::{Path, PathBuf};

use crate::census::Census;
use crate::error::BenchError;
use crate::generate;
use crate::workload::Recipe;

/// A complete tree.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) root: PathBuf,
    pub(crate) census: Census,
}

/// Where trees lie.
#[derive(Debug)]
pub(crate) struct Trees {
    dir: PathBuf,
}

impl Trees {
    /// Makes the directory for them.
    pub(crate) fn new(scratch: &Path) -> Result<Self, BenchError> {
        let dir = scratch.join("workloads");
        fs::create_dir_all(&dir).map_err(BenchError::file("make", &dir))?;
        Ok(Self { dir })
    }

    /// The tree, made if it is not there.
    pub(crate) fn tree(&self, recipe: Recipe) -> Result<Tree, BenchError> {
        let root = self.dir.join(recipe.to_string());
        let marker = self.marker(recipe);
        if let Ok(text) = fs::read(&marker) {
            let census = serde_json::from_slice(&text).map_err(|source| BenchError::Json {
                expected: "a census",
                path: marker,
                source,
            })?;
            return Ok(Tree { root, census });
        }
        self.forget(recipe)?;
        fs::create_dir(&root).map_err(BenchError::file("make", &root))?;
        crate::say(&format!("making {recipe}"));
        generate::make(recipe, &root)?;
        let census = Census::of(&root)?;
        let text = serde_json::to_vec(&census).map_err(|source| BenchError::Json {
            expected: "a census",
            path: marker.clone(),
            source,
        })?;
        fs::write(&marker, text).map_err(BenchError::file("write", marker))?;
        Ok(Tree { root, census })
    }

    /// Removes the tree, complete or not.
    pub(crate) fn forget(&self, recipe: Recipe) -> Result<(), BenchError> {
        let marker = self.marker(recipe);
        if marker.exists() {
            fs::remove_file(&marker).map_err(BenchError::file("remove", &marker))?;
        }
        let root = self.dir.join(recipe.to_string());
        if root.exists() {
            fs::remove_dir_all(&root).map_err(BenchError::file("remove", &root))?;
        }
        Ok(())
    }

    /// Removes all of them.
    pub(crate) fn remove(&self) -> Result<(), BenchError> {
        fs::remove_dir_all(&self.dir).map_err(BenchError::file("remove", &self.dir))
    }

    fn marker(&self, recipe: Recipe) -> PathBuf {
        self.dir.join(format!("{recipe}.census"))
    }
}
