//! What sessions are of that are not of the whole tree: several places of it, merged.
//!
//! Sessions of the same places share one source, with what it remembers, for as long as any of them lasts. It holds nothing
//! open.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use fastcp_model::{RelPath, Status};
use fastcp_wire::offer::Place;

use crate::lock::Lock;
use crate::sender::source::Source;

/// The sources of sessions, by their places.
#[derive(Debug, Default)]
pub(crate) struct Views {
    known: Lock<HashMap<Arc<[Place]>, Weak<Source>>>,
}

impl Views {
    /// What these places of `whole` make together.
    ///
    /// # Errors
    /// The first place that cannot be looked at, and why.
    pub(crate) fn of(&self, whole: &Source, places: &Arc<[Place]>) -> Result<Arc<Source>, (RelPath, Status)> {
        let known = self.known.lock().get(places).and_then(Weak::upgrade);
        if let Some(known) = known {
            return Ok(known);
        }
        // Two may do this at a time: the second finds what the first has made.
        let made = Arc::new(whole.of_places(places)?);
        let mut known = self.known.lock();
        known.retain(|_, source| source.strong_count() > 0);
        if let Some(known) = known.get(places).and_then(Weak::upgrade) {
            return Ok(known);
        }
        known.insert(Arc::clone(places), Arc::downgrade(&made));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use fastcp_model::{RelPath, Status};
    use fastcp_wire::offer::{Place, Scope};

    use super::Views;
    use crate::sender::source::Source;

    fn place(path: &str, scope: Scope) -> Place {
        Place { path: RelPath::new(path.as_bytes()).expect("lawful"), scope }
    }

    /// What is not where it was is not taken for empty: somebody may delete by it.
    #[test]
    fn a_place_that_vanishes_is_an_error_and_none_that_lacks_something() {
        let top = tempfile::tempdir().expect("temporary directory");
        for dir in ["a/dir", "b/dir"] {
            fs::create_dir_all(top.path().join(dir)).expect("make");
            fs::write(top.path().join(dir).join("file"), dir).expect("write");
        }
        let whole = Source::open(top.path()).expect("open");
        let contents: Arc<[_]> = [place("a", Scope::Contents), place("b", Scope::Contents)].into();
        let named: Arc<[_]> = [place("a/dir", Scope::Itself), place("b/dir", Scope::Itself)].into();
        let views = Views::default();
        let [of_contents, of_named] = [&contents, &named].map(|places| views.of(&whole, places).expect("there"));
        let path = |text: &str| RelPath::new(text.as_bytes()).expect("lawful");
        assert_eq!(of_contents.tree.dir(&path("elsewhere")).map(drop).expect_err("nowhere").raw_os_error(), Some(2));
        fs::rename(top.path().join("a"), top.path().join("away")).expect("rename");
        for dir in ["", "dir"] {
            let error = of_contents.tree.dir(&path(dir)).map(drop).expect_err("a place is gone");
            assert_eq!(error.raw_os_error(), Some(nix::libc::EIO), "{dir}");
        }
        for source in [of_contents, of_named] {
            assert_eq!(source.open_file(&path("dir/file")).map(drop), Err(Status::InputOutput));
        }
    }

    #[test]
    fn sessions_of_the_same_places_share_a_source_while_any_of_them_lasts() {
        let top = tempfile::tempdir().expect("temporary directory");
        fs::create_dir_all(top.path().join("a/b")).expect("make");
        fs::write(top.path().join("a/b/file"), "x").expect("write");
        fs::write(top.path().join("secret"), "y").expect("write");
        let whole = Source::open(top.path()).expect("open");
        let views = Views::default();
        let places: Arc<[_]> = [place("a/b", Scope::Itself), place("a", Scope::Contents)].into();
        let first = views.of(&whole, &places).expect("there");
        assert!(Arc::ptr_eq(&first, &views.of(&whole, &places).expect("there")));
        assert!(first.open_file(&place("b/file", Scope::Itself).path).is_ok());
        assert_eq!(first.open_file(&place("secret", Scope::Itself).path).map(drop), Err(Status::NotFound));
        drop(first);
        let others: Arc<[_]> = [place("a", Scope::Contents), place("gone", Scope::Itself)].into();
        let (path, status) = views.of(&whole, &others).map(drop).expect_err("one is missing");
        assert_eq!((path.to_string().as_str(), status), ("gone", Status::NotFound));
        let again = views.of(&whole, &places).expect("there");
        assert_eq!(views.known.lock().len(), 1);
        drop(again);
    }
}
