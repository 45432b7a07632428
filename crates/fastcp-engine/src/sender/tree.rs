//! The tree that is served: a directory, one entry of it, or several of both that are merged into one.
//!
//! Of what several parts have under one path, the first part's counts, as with several sources of rsync. Directories are
//! merged: what any of the parts has in them is in them.

use std::borrow::Cow;
use std::fs::File;
use std::io;
use std::sync::Arc;

use fastcp_model::{Metadata, Name, RelPath, Status};
use fastcp_sys::{Dir, Root};
use fastcp_wire::offer::{Place, Scope};
use nix::errno::Errno;

use crate::sender::source::{OpenFile, open_in, status_of};

/// A tree.
#[derive(Debug)]
pub(crate) struct Tree {
    /// At least one.
    parts: Vec<Part>,
}

#[derive(Debug)]
struct Part {
    root: Arc<Root>,
    /// Where it begins, beneath that.
    base: RelPath,
    only: Option<Only>,
}

/// The one entry of a part that may be asked for, with what is in it.
#[derive(Debug)]
struct Only {
    path: RelPath,
    /// What it is called as well.
    other_path: Option<RelPath>,
}

impl Part {
    /// Where what is asked for is, if it may be asked for.
    fn place_of<'p>(&self, path: &'p RelPath) -> Option<Cow<'p, RelPath>> {
        match &self.only {
            None => Some(Cow::Borrowed(path)),
            Some(only) if path.is_within(&only.path) => Some(Cow::Borrowed(path)),
            Some(Only { path: real, other_path: Some(other) }) if path == other => Some(Cow::Owned(real.clone())),
            Some(_) => None,
        }
    }

    /// A directory in which something may be asked for.
    fn dir(&self, path: &RelPath) -> io::Result<PartDir> {
        let only = match &self.only {
            Some(only) if !path.is_within(&only.path) => {
                let (parent, real) = only.path.split().ok_or(io::ErrorKind::NotFound)?;
                if parent != *path {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let other = only.other_path.as_ref().and_then(RelPath::split).map(|(_, name)| name);
                Some(OnlyName { real, other })
            }
            _ => None,
        };
        Ok(PartDir { dir: self.root.dir(&self.base.join_path(path))?, only })
    }

    /// Whether there is anything where it is.
    fn look(&self) -> io::Result<()> {
        match &self.only {
            None => self.dir(&RelPath::root()).map(drop),
            Some(only) => {
                let (parent, name) = only.path.split().ok_or(io::ErrorKind::NotFound)?;
                self.root.dir(&self.base.join_path(&parent))?.stat_name(&name).map(drop)
            }
        }
    }
}

impl Tree {
    pub(crate) fn new(root: Root) -> Self {
        Self { parts: vec![Part { root: Arc::new(root), base: RelPath::root(), only: None }] }
    }

    /// What these places of it make together, merged.
    ///
    /// # Errors
    /// The first place that cannot be looked at, and why.
    pub(crate) fn of_places(&self, places: &[Place]) -> Result<Self, (RelPath, io::Error)> {
        let part_of = |place: &Place| {
            // Only of one that is not made of places itself.
            let [Part { root, base, only: None }] = &self.parts[..] else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            let name = place.path.split().filter(|_| place.scope == Scope::Itself).map(|(_, name)| name);
            let only = name.map(|name| Only { path: RelPath::root().join(&name), other_path: None });
            let part = Part { root: Arc::clone(root), base: base.join_path(&place.base()), only };
            part.look().map(|()| part)
        };
        let parts = places.iter().map(|place| part_of(place).map_err(|error| (place.path.clone(), error)));
        parts.collect::<Result<_, _>>().map(|parts| Self { parts })
    }

    /// The same, with other parts behind it.
    pub(crate) fn merged(mut self, others: impl IntoIterator<Item = Self>) -> Self {
        self.parts.extend(others.into_iter().flat_map(|other| other.parts));
        self
    }

    /// The same, of which nobody is given anything but this entry and what is in it.
    pub(crate) fn only(mut self, path: &RelPath) -> Self {
        for part in &mut self.parts {
            part.only = Some(Only { path: path.clone(), other_path: None });
        }
        self
    }

    /// The one entry of a tree may be asked for by this name as well.
    pub(crate) fn also_called(mut self, name: &Name) -> Self {
        for only in self.parts.iter_mut().filter_map(|part| part.only.as_mut()) {
            only.other_path = only.path.split().map(|(parent, _)| parent.join(name));
        }
        self
    }

    /// The directory that is served, or the first of them.
    pub(crate) fn root(&self) -> &Root {
        &self.parts.first().expect("a tree has a part").root
    }

    /// The directory at this path, of all parts that have one there.
    ///
    /// # Errors
    /// What keeps any of the parts from being looked at; where none has it, why the first has not.
    pub(crate) fn dir(&self, path: &RelPath) -> io::Result<TreeDir> {
        let mut dirs = self.parts.iter().map(|part| part.dir(path).map_err(|error| self.judged(part, error)));
        let mut first = dirs.next().expect("a tree has a part");
        let mut others = Vec::new();
        for dir in dirs {
            match (&first, dir) {
                (_, Err(error)) if is_elsewhere(&error) => {}
                (Err(error), dir) if is_elsewhere(error) => first = dir,
                (Err(_), _) => break,
                (Ok(_), dir) => others.push(dir?),
            }
        }
        Ok(TreeDir { first: first?, others })
    }

    /// Opens the regular file that the first part that has anything at this path has there.
    pub(crate) fn open_file(&self, path: &RelPath) -> io::Result<File> {
        let mut missing = None;
        for part in &self.parts {
            let Some(place) = part.place_of(path) else { continue };
            let opened = part.root.open_file(&part.base.join_path(&place));
            match opened.map_err(|error| self.judged(part, error)) {
                Err(error) if is_elsewhere(&error) => missing = missing.or(Some(error)),
                result => return result,
            }
        }
        Err(missing.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
    }

    /// What an error of a part means. One of several that is gone as a whole does not merely lack something: what it had
    /// must not be taken for deleted, nor another part's for it.
    fn judged(&self, part: &Part, error: io::Error) -> io::Error {
        match self.parts.len() > 1 && is_elsewhere(&error) && part.look().is_err() {
            true => io::Error::from_raw_os_error(nix::libc::EIO),
            false => error,
        }
    }

    /// Whether this path is another name of the one entry.
    pub(crate) fn is_other_name(&self, path: &RelPath) -> bool {
        let other = |part: &Part| part.only.as_ref().and_then(|only| only.other_path.clone());
        self.parts.iter().filter_map(other).any(|other| other == *path)
    }
}

/// Nothing is there, or something on the way to it is no directory: another part may have it.
fn is_elsewhere(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    error.kind() == io::ErrorKind::NotFound || matches!(errno, Some(Errno::ENOTDIR | Errno::ELOOP))
}

/// A directory of the tree.
pub(crate) struct TreeDir {
    first: PartDir,
    /// Of the other parts.
    others: Vec<PartDir>,
}

struct PartDir {
    dir: Dir,
    /// Where nothing but this may be asked for in it.
    only: Option<OnlyName>,
}

struct OnlyName {
    real: Name,
    other: Option<Name>,
}

impl PartDir {
    /// The name that something in it has, if it may be asked for.
    fn real<'n>(&'n self, name: &'n Name) -> Option<&'n Name> {
        match &self.only {
            None => Some(name),
            Some(OnlyName { real, other }) if name == real || other.as_ref() == Some(name) => Some(real),
            Some(_) => None,
        }
    }
}

impl TreeDir {
    fn dirs(&self) -> impl Iterator<Item = &PartDir> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Whether all of it may be asked for, of any of the parts: what it does not have is nowhere.
    pub(crate) fn is_whole(&self) -> bool {
        self.dirs().any(|dir| dir.only.is_none())
    }

    /// The metadata of the first that is whole.
    pub(crate) fn metadata(&self) -> io::Result<Option<Metadata>> {
        let whole = self.dirs().find(|dir| dir.only.is_none());
        whole.map(|whole| whole.dir.stat().map(|stat| stat.metadata)).transpose()
    }

    /// Tells `each` of the names in it, in no order; each as often as there are parts that have it.
    pub(crate) fn each_name(&self, mut each: impl FnMut(&[u8])) -> io::Result<()> {
        for part in self.dirs() {
            match &part.only {
                None => part.dir.names()?.each(&mut each)?,
                Some(only) => each(only.real.as_bytes()),
            }
        }
        Ok(())
    }

    /// What `look` finds in the first part that has the name; `None` where none has.
    pub(crate) fn examine<T>(
        &self,
        name: &Name,
        mut look: impl FnMut(&Dir, &Name) -> Result<Option<T>, Status>,
    ) -> Result<Option<T>, Status> {
        for part in self.dirs() {
            if let Some(real) = part.real(name)
                && let Some(found) = look(&part.dir, real)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Opens a regular file in it, as [`open_in`] does.
    pub(crate) fn open_file(&self, name: &Name) -> Result<OpenFile, Status> {
        let mut missing = Status::NotFound;
        for part in self.dirs() {
            let Some(real) = part.real(name) else { continue };
            match open_in(&part.dir, real) {
                Err(Status::NotFound) => missing = Status::NotFound,
                result => return result,
            }
        }
        Err(missing)
    }
}

/// As [`Tree::dir`], in the wire's words.
pub(crate) fn open_dir(tree: &Tree, path: &RelPath) -> Result<TreeDir, Status> {
    tree.dir(path).map_err(|error| status_of(&error))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Read;
    use std::path::Path;

    use fastcp_model::{Name, RelPath};
    use fastcp_sys::Root;

    use super::Tree;

    fn path(text: &str) -> RelPath {
        RelPath::new(text.as_bytes()).expect("lawful")
    }

    /// A tree of these files, each with a text.
    fn tree(top: &Path, files: &[(&str, &str)]) -> Tree {
        for (file, text) in files {
            let file = top.join(file);
            fs::create_dir_all(file.parent().expect("below")).expect("make");
            fs::write(file, text).expect("write");
        }
        Tree::new(Root::open(top).expect("open"))
    }

    fn read(tree: &Tree, file: &str) -> Option<String> {
        let mut text = String::new();
        tree.open_file(&path(file)).ok()?.read_to_string(&mut text).expect("read");
        Some(text)
    }

    fn names(tree: &Tree, dir: &str) -> Vec<String> {
        let mut names = Vec::new();
        let dir = tree.dir(&path(dir)).expect("a directory");
        dir.each_name(|name| names.push(String::from_utf8(name.to_vec()).expect("text"))).expect("names");
        names.sort();
        names.dedup();
        names
    }

    #[test]
    fn the_first_part_that_has_something_counts_and_directories_are_merged() {
        let tops = [(); 3].map(|()| tempfile::tempdir().expect("temporary directory"));
        let merged = tree(tops[0].path(), &[("both", "first"), ("dir/one", "1"), ("kind", "file")]).merged([
            tree(tops[1].path(), &[("both", "second"), ("dir/two", "2"), ("kind/below", "x")]),
            tree(tops[2].path(), &[("dir", "a file"), ("third", "3")]),
        ]);
        assert_eq!(names(&merged, ""), ["both", "dir", "kind", "third"]);
        assert_eq!(names(&merged, "dir"), ["one", "two"]);
        for (file, text) in [("both", "first"), ("dir/one", "1"), ("dir/two", "2"), ("third", "3"), ("kind", "file")] {
            assert_eq!(read(&merged, file).as_deref(), Some(text), "{file}");
        }
        assert_eq!(read(&merged, "dir/three"), None);
        let dir = merged.dir(&path("dir")).expect("there");
        let name = Name::new(b"two").expect("lawful");
        assert_eq!(dir.open_file(&name).expect("there").stat.size_bytes(), 1);
        assert!(dir.is_whole());
    }

    #[test]
    fn of_one_entry_nothing_else_is_given() {
        let top = tempfile::tempdir().expect("temporary directory");
        let only = tree(top.path(), &[("a/file", "a"), ("ab", "b"), ("secret", "s")]).only(&path("a"));
        assert_eq!(read(&only, "a/file").as_deref(), Some("a"));
        assert_eq!(names(&only, ""), ["a"]);
        assert!(read(&only, "ab").is_none() && read(&only, "secret").is_none());
        assert!(only.dir(&path("nowhere")).is_err());
        let root = only.dir(&path("")).expect("the root");
        assert!(!root.is_whole() && root.metadata().expect("no error").is_none());
        assert!(root.open_file(&Name::new(b"secret").expect("lawful")).is_err());
        let renamed = tree(top.path(), &[]).only(&path("secret")).also_called(&Name::new(b"new").expect("lawful"));
        assert_eq!(read(&renamed, "new").as_deref(), Some("s"));
        assert!(renamed.is_other_name(&path("new")) && !renamed.is_other_name(&path("secret")));
        assert!(read(&renamed, "ab").is_none());
    }
}
