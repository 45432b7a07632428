//! What the destination has and the source does not, found while listings come.
//!
//! The unit is one directory's listing that ended `Complete`: only that says that what is not named does
//! not exist. A listing's names ascend, over all its parts; the directory's own names are read once,
//! sorted, and merged with them. Only directories that were there before can have anything extraneous.
//! Whatever failed at the source spoils the whole: then nothing is looked for any more. fastcp's own
//! files and backup directories are never extraneous, and neither is what rules keep.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use fastcp_model::{Entry, Listing, ListingEnd, Name, RelPath, STATE_DIR};
use fastcp_sys::{Dir, Root};
use rayon::prelude::*;

use crate::commit::leftover;
use crate::filter::Parent;
use crate::plan::Placed;
use crate::plan::candidates::Candidates;
use crate::target::backup_dirs::BackupDirs;
use crate::target::dirs::{Age, DirState};
use crate::target::journal::Journal;
use crate::target::protection::Protection;
use crate::target::volume::is_top_of_volume;

/// Where names of the file that holds many candidates are made.
pub(crate) type MakeFile<'a> = Box<dyn Fn() -> io::Result<File> + Sync + 'a>;

/// The search, and what it found.
pub(crate) struct Extraneous<'a> {
    pub(crate) candidates: Candidates,
    /// Entries whose place a directory has that is not empty.
    pub(crate) displacing: Vec<Displacing>,
    /// Whether the source offered nothing where the destination has something.
    pub(crate) is_source_empty: bool,
    pub(crate) spoilt: bool,
    /// The root was not listed: what it names is what was asked for.
    is_root_selected: bool,
    open: HashMap<RelPath, Search>,
    backups: BackupDirs,
    root: Option<&'a Root>,
    make_file: MakeFile<'a>,
}

/// An entry that waits for a directory to go.
pub(crate) struct Displacing {
    pub(crate) state: Arc<DirState>,
    pub(crate) protection: Protection,
    pub(crate) entry: Entry,
}

/// One directory that is being compared.
struct Search {
    state: Arc<DirState>,
    protection: Protection,
    /// What the directory holds, ascending; `None` until it is read.
    names: Option<Vec<Name>>,
    /// Of them, how many were compared.
    compared: usize,
    extraneous: Vec<Name>,
    offered: u64,
    /// Why the directory could not be read, until that was told.
    failure: Option<io::Error>,
}

impl<'a> Extraneous<'a> {
    pub(crate) fn new(root: Option<&'a Root>, backups: BackupDirs, make_file: MakeFile<'a>) -> Self {
        Self {
            candidates: Candidates::default(),
            displacing: Vec::new(),
            is_source_empty: false,
            spoilt: false,
            is_root_selected: false,
            open: HashMap::new(),
            backups,
            root,
            make_file,
        }
    }

    /// Compares a batch of listings with what is there. Answers directories that cannot be read.
    pub(crate) fn look(&mut self, placed: &[Placed]) -> io::Result<Vec<(RelPath, io::Error)>> {
        if self.spoilt {
            return Ok(Vec::new());
        }
        let mut searches = self.searches_of(placed);
        let backups = &self.backups;
        searches.par_iter_mut().for_each(|(search, listings)| search.compare(listings, backups));
        let mut failed = Vec::new();
        for (mut search, listings) in searches {
            failed.extend(search.failure.take().map(|error| (search.state.path.clone(), error)));
            match listings.last().map(|placed| placed.listing.end) {
                Some(ListingEnd::Complete) => self.close(search)?,
                Some(ListingEnd::More) => {
                    self.open.insert(search.state.path.clone(), search);
                }
                // What was not listed is not known.
                _ => {}
            }
        }
        Ok(failed)
    }

    /// Directories of a batch that were there before, each with all its listings in order.
    fn searches_of<'p>(&mut self, placed: &'p [Placed]) -> Vec<(Search, Vec<&'p Placed>)> {
        let mut searches: Vec<(Search, Vec<&Placed>)> = Vec::new();
        let mut places: HashMap<*const DirState, usize> = HashMap::new();
        for one in placed {
            let Placed { listing, state, protection, .. } = one;
            self.is_root_selected |= listing.dir.is_root() && listing.end == ListingEnd::Selected;
            if state.age != Age::Old {
                continue;
            }
            let place = *places.entry(Arc::as_ptr(state)).or_insert_with(|| {
                let search = self.open.remove(&listing.dir).unwrap_or_else(|| Search::new(state, protection));
                searches.push((search, Vec::new()));
                searches.len() - 1
            });
            searches[place].1.push(one);
        }
        searches
    }

    /// A directory's listing is complete.
    fn close(&mut self, search: Search) -> io::Result<()> {
        let Search { state, protection, mut extraneous, offered, .. } = search;
        // In doubt it is one that keeps a state.
        let keeps_state = |root: &Root| is_top_of_volume(root, &state.path).unwrap_or(true);
        if extraneous.iter().any(|name| name.as_bytes() == STATE_DIR) && self.root.is_none_or(keeps_state) {
            extraneous.retain(|name| name.as_bytes() != STATE_DIR);
        }
        if extraneous.is_empty() {
            return Ok(());
        }
        self.is_source_empty |= offered == 0 && self.is_top(&state.path);
        self.candidates.add(&state, protection, &extraneous, &self.make_file)
    }

    /// Whether a directory is what the user asked for, as against one that came with it.
    fn is_top(&self, path: &RelPath) -> bool {
        path.is_root() || (self.is_root_selected && path.names().count() == 1)
    }
}

impl Search {
    fn new(state: &Arc<DirState>, protection: &Protection) -> Self {
        let (state, protection) = (Arc::clone(state), protection.clone());
        Self { state, protection, names: None, compared: 0, extraneous: Vec::new(), offered: 0, failure: None }
    }

    /// Every part of a listing has to pass here, or what it names would look extraneous. So a directory
    /// that cannot be read now counts as one that holds nothing, though it could be read later.
    fn compare(&mut self, listings: &[&Placed], backups: &BackupDirs) {
        for Placed { listing, ground, .. } in listings {
            if self.names.is_none() {
                let read = ground.dir().map_or(Ok(Vec::new()), names_ascending);
                self.names = Some(read.unwrap_or_else(|error| {
                    self.failure = Some(error);
                    Vec::new()
                }));
            }
            let before = self.extraneous.len();
            self.merge(listing, backups);
            if let Some(dir) = ground.dir().filter(|_| !self.protection.is_of_nothing()) {
                let (path, protection) = (&self.state.path, &self.protection);
                let found = self.extraneous.split_off(before);
                let goes = |name: &Name| !protection.keeps(dir, path, name, Parent::Stays);
                self.extraneous.extend(found.into_iter().filter(goes));
            }
        }
    }

    fn merge(&mut self, listing: &Listing, backups: &BackupDirs) {
        let names = self.names.as_deref().unwrap_or_default();
        let path = &self.state.path;
        let mut at = self.compared;
        let mut skip_to = |at: &mut usize, end: Option<&Name>| {
            while let Some(name) = names.get(*at).filter(|&name| end.is_none_or(|end| name < end)) {
                if !is_part_file(name) && !backups.has(path, name) {
                    self.extraneous.push(name.clone());
                }
                *at += 1;
            }
        };
        for entry in &listing.entries {
            skip_to(&mut at, Some(&entry.name));
            if names.get(at) == Some(&entry.name) {
                at += 1;
            }
        }
        if listing.end == ListingEnd::Complete {
            skip_to(&mut at, None);
        }
        self.compared = at;
        self.offered += listing.entries.len() as u64;
    }
}

/// What a directory holds. Names that are not lawful in a tree cannot be offered nor deleted.
fn names_ascending(dir: &Dir) -> io::Result<Vec<Name>> {
    let mut names = Vec::new();
    for raw in dir.names()? {
        names.extend(Name::new(&raw?));
    }
    names.sort_unstable();
    // A directory that changes while it is read may give a name twice.
    names.dedup();
    Ok(names)
}

/// A part file that lies beside its target, or what goes with one: see `Destination::part_place`.
pub(crate) fn is_part_file(name: &Name) -> bool {
    let part = Journal::part_of(name.as_bytes()).unwrap_or(name.as_bytes());
    let part = leftover::part_of(part).unwrap_or(part);
    let hash = part.strip_prefix(b".fastcp-").and_then(|rest| rest.strip_suffix(b".part"));
    hash.is_some_and(|hash| hash.len() == 32 && hash.iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use fastcp_model::{Entry, EntryKind, Listing, ListingEnd, Metadata, Name, RelPath, Timestamp};

    use fastcp_sys::Root;

    use super::{BackupDirs, Extraneous, Placed, Search, is_part_file};
    use crate::plan::decide::Ground;
    use crate::target::dirs::{Age, DirState};
    use crate::target::protection::Protection;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).expect("lawful")
    }

    fn part(names: &[&str], end: ListingEnd) -> Listing {
        let metadata = Metadata { mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::default() };
        let entry = |text: &&str| Entry { name: name(text), kind: EntryKind::Dir, metadata };
        let entries = names.iter().map(entry).collect();
        Listing { dir: RelPath::root(), root: None, entries, failures: Vec::new(), end }
    }

    #[test]
    fn what_no_part_of_a_listing_names_is_extraneous() {
        use ListingEnd::{Complete, More};
        let here = ["a", "b", "c", "d", "e", "f", "g"];
        for parts in [
            vec![part(&["b", "d", "f", "zz"], Complete)],
            vec![part(&["b"], More), part(&["d"], More), part(&["f", "zz"], Complete)],
            vec![part(&[], More), part(&["b", "d", "f"], More), part(&["zz"], More), part(&[], Complete)],
        ] {
            let mut search = Search::new(&DirState::new(RelPath::root(), Age::Old, None, None), &Protection::default());
            search.names = Some(here.iter().map(|text| name(text)).collect());
            parts.iter().for_each(|part| search.merge(part, &BackupDirs::default()));
            assert_eq!(search.extraneous, ["a", "c", "e", "g"].map(name));
            assert_eq!(search.offered, 4);
        }
    }

    #[test]
    fn a_directory_that_opens_only_later_has_nothing_extraneous() {
        let tree = tempfile::tempdir().expect("temporary directory");
        for text in ["a", "b", "c"] {
            std::fs::write(tree.path().join(text), b"").expect("write");
        }
        let root = Root::open(tree.path()).expect("open");
        let state = DirState::new(RelPath::root(), Age::Old, None, None);
        let open = || Ground::Open(root.dir(&RelPath::root()).expect("open"));
        let placed = |ground, names: &[&str], end| {
            let protection = Protection::default();
            Placed { listing: part(names, end), state: state.clone(), ground, protection }
        };
        for (grounds, candidates) in [([open(), open()], 1), ([Ground::Lost, open()], 0), ([open(), Ground::Lost], 1)] {
            let [first, second] = grounds;
            let parts = [placed(first, &["a"], ListingEnd::More), placed(second, &["c"], ListingEnd::Complete)];
            for batches in [&[&parts[..1], &parts[1..]][..], &[&parts[..]]] {
                let mut extraneous = Extraneous::new(Some(&root), BackupDirs::default(), Box::new(tempfile::tempfile));
                for batch in batches {
                    assert!(extraneous.look(batch).expect("look").is_empty());
                }
                assert_eq!(extraneous.candidates.dirs.len(), candidates);
            }
        }
    }

    #[test]
    fn our_own_files_are_never_extraneous() {
        let mut search = Search::new(&DirState::new(RelPath::root(), Age::Old, None, None), &Protection::default());
        let part_file = format!(".fastcp-{}.part", "0a".repeat(16));
        search.names = Some(vec![name(&part_file), name("bak"), name("other")]);
        search.merge(
            &part(&[], ListingEnd::Complete),
            &BackupDirs::of(None, Some(&RelPath::new(b"bak").expect("lawful"))),
        );
        assert_eq!(search.extraneous, [name("other")]);
        for text in [".fastcp-0.part", ".fastcp-0a.parts", "x.fastcp-0a.part"] {
            assert!(!is_part_file(&name(text)));
        }
    }
}
