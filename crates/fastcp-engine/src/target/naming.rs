//! How a file that is held open gets its name, where others may be able to exchange names.
//!
//! Part files lie in a state directory that is ours alone: nobody else can exchange what has their names, so one
//! rename is right. Where there is none, they lie beside their targets, in a directory that may belong to anybody.
//! There a name is given by descriptor: by linking the held file, if the name is free; else by linking it to a name
//! that nobody can foresee and renaming that. Whether the name then stands for the held file is looked at before
//! the file counts as copied. What the directory's owner does afterwards is his affair.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use fastcp_model::Name;
use fastcp_sys::{Dir, Stat, process};

/// Where a part file lies.
#[derive(Debug, Clone)]
pub(crate) struct PartPlace {
    pub(crate) dir: Arc<Dir>,
    pub(crate) name: Name,
    pub(crate) shelter: Shelter,
}

/// Who else may be able to exchange the names in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shelter {
    /// Nobody: it is our own.
    StateDir,
    /// Whoever may write to the target's directory, for that is where it lies.
    Beside,
}

/// Gives `part`, which lies at `place`, its name, replacing what had it.
pub(crate) fn name_part(part: &File, place: &PartPlace, dir: &Dir, name: &Name) -> io::Result<()> {
    // Who removes our lock while a run is under way lets in another, with part files of the same names.
    let rename = || {
        expect_named(part, &place.dir, &place.name)?;
        place.dir.rename(&place.name, dir, name)
    };
    match place.shelter {
        Shelter::StateDir => rename(),
        Shelter::Beside => match link_or_replace(part, dir, name) {
            Ok(()) => {
                remove_name(part, place);
                Ok(())
            }
            Err(error) if cannot_be_linked(&error) => {
                rename()?;
                expect_named(part, dir, name)
            }
            Err(error) => Err(error),
        },
    }
}

/// Removes the name of a part file whose bytes have their own name by now, and are whole: that it stays behind fails
/// nothing. Another's file is left alone.
pub(crate) fn remove_name(part: &File, place: &PartPlace) {
    if expect_named(part, &place.dir, &place.name).is_ok()
        && let Err(error) = place.dir.remove_file(&place.name)
    {
        tracing::debug!(%error, "cannot remove the name of a part file");
    }
}

/// Gives a file that has no name its name, replacing what had it. `place` makes a place for it to be renamed from.
pub(crate) fn name_unnamed(
    file: &File,
    dir: &Dir,
    name: &Name,
    place: impl FnOnce() -> io::Result<PartPlace>,
) -> io::Result<()> {
    match dir.link_unnamed(file, name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        result => return result,
    }
    let place = place()?;
    match place.shelter {
        Shelter::StateDir => {
            let _ = place.dir.remove_file(&place.name);
            place.dir.link_unnamed(file, &place.name)?;
            place.dir.rename(&place.name, dir, name).inspect_err(|_| drop(place.dir.remove_file(&place.name)))
        }
        Shelter::Beside => replace(file, dir, name),
    }
}

/// Fails unless `name` stands for the file that is held.
pub(crate) fn expect_named(held: impl AsFd, dir: &Dir, name: &Name) -> io::Result<()> {
    expect_same(held, &dir.stat_name(name)?)
}

/// Fails unless `there` is what is held.
pub(crate) fn expect_same(held: impl AsFd, there: &Stat) -> io::Result<()> {
    if Stat::of_fd(held)?.place() == there.place() {
        Ok(())
    } else {
        Err(io::Error::other("another process has replaced it meanwhile"))
    }
}

/// A name that only part files have, and that nobody can foresee.
pub(crate) fn unforeseen_name() -> io::Result<Name> {
    let text = format!(".fastcp-{:032x}.part", process::random()?);
    Ok(Name::new(text.as_bytes()).expect("our own names are lawful"))
}

/// The mode of a file that is made here with `mode`: what the umask leaves, or the directory's own rules.
pub(crate) fn mode_of_new_file(dir: &Dir, mode: u16) -> io::Result<u16> {
    let file = dir.create_unnamed(mode).or_else(|_| {
        let name = unforeseen_name()?;
        let file = dir.create_open_file(&name, mode)?;
        dir.remove_file(&name).map(|()| file)
    });
    Ok(Stat::of_fd(file?)?.metadata.mode)
}

fn link_or_replace(file: &File, dir: &Dir, name: &Name) -> io::Result<()> {
    match dir.link_unnamed(file, name) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => replace(file, dir, name),
        result => result,
    }
}

fn replace(file: &File, dir: &Dir, name: &Name) -> io::Result<()> {
    let fresh = unforeseen_name()?;
    dir.link_unnamed(file, &fresh)?;
    if let Err(error) = dir.rename(&fresh, dir, name) {
        let _ = dir.remove_file(&fresh);
        return Err(error);
    }
    expect_named(file, dir, name)
}

/// A file system without second names (`EPERM`, `EOPNOTSUPP`), one that has given this file all that it can
/// (`EMLINK`), or a process without `/proc` and without the right to link by descriptor (`ENOENT`).
fn cannot_be_linked(error: &io::Error) -> bool {
    use nix::libc::{EMLINK, ENOENT, ENOSYS, EOPNOTSUPP, EPERM};
    matches!(error.raw_os_error(), Some(EPERM | EOPNOTSUPP | ENOSYS | EMLINK | ENOENT))
}
