//! What is kept from one run to the next, as ssh keeps the keys of hosts: files of lines in the configuration directory.
//!
//! A line is about one subject, such as a server, and begins with it. Lines that begin with `#` are comments; people may edit
//! the files. Only their user can read and write them: where others could, they are not believed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::exit_code::{self, Failure};
use crate::secrets::is_trusted;
use crate::wording::shown;

/// Where a user's own files of fastcp are; `None` where there is no home.
pub(crate) fn config_dir() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = variable("XDG_CONFIG_HOME").or_else(|| variable("HOME").map(|home| home.join(".config")));
    config.map(|config| config.join("fastcp"))
}

/// Makes that directory, for its user alone.
pub(crate) fn make_config_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The first line that `of` finds something in, and where it stands.
pub(crate) fn find<T>(file_name: &str, of: impl Fn(&str) -> Option<T>) -> Result<Option<(T, String)>, Failure> {
    let Some(path) = config_dir().map(|dir| dir.join(file_name)) else { return Ok(None) };
    let text = match read_trusted(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(Failure::new(exit_code::FILE_IO, format!("cannot read \"{}\": {error}", shown(&path))));
        }
    };
    let found = text.lines().enumerate().find_map(|(nth, line)| Some((nth, of(line)?)));
    Ok(found.map(|(nth, found)| (found, format!("line {} of {}", nth + 1, shown(&path)))))
}

/// Reads a file that nobody else can write to.
fn read_trusted(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let dir = path.parent().map(fs::metadata).transpose()?;
    for metadata in [Some(file.metadata()?), dir].into_iter().flatten() {
        if !is_trusted(metadata.uid()) || metadata.mode() & 0o022 != 0 {
            let of = if metadata.is_dir() { "its directory" } else { "it" };
            let error =
                format!("others can write to {of} (owner {}, mode {:03o})", metadata.uid(), metadata.mode() & 0o777);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, error));
        }
    }
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// Replaces all lines about a subject by this one, or by none.
pub(crate) fn replace(file_name: &str, is_about: impl Fn(&str) -> bool, line: Option<&str>) -> io::Result<()> {
    let Some(dir) = config_dir() else { return Ok(()) };
    make_config_dir(&dir)?;
    let (path, part) = (dir.join(file_name), dir.join(format!("{file_name}.new")));
    // One at a time: of two runs that end together, neither loses what the other keeps.
    let lock = File::open(&dir)?;
    lock.lock()?;
    let before = match read_trusted(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        read => read?,
    };
    let mut text = String::new();
    for line in before.lines().filter(|line| !is_about(line)).chain(line) {
        text.push_str(line);
        text.push('\n');
    }
    // Never through something that another one has put there.
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(part, path)
}
