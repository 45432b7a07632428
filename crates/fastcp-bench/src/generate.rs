//! Makes the trees of the workloads, the same ones every time.
//!
//! Each file follows from the seed and its own number, so that threads share the work in any way
//! and the tree is still the same. Times are set too: old ones, all different, with nanoseconds,
//! first of the files and then, when nothing is added any more, of the directories.

use std::fs::{self, File, FileTimes};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use crate::census::Census;
use crate::error::BenchError;
use crate::log_text;
use crate::random::Random;
use crate::revise;
use crate::workload::{Recipe, SEED, Scale};

const USR_SHARE: &str = "/usr/share";

/// Equal in all its versions.
const BIG_NAME: &str = "big.bin";
/// Of a later version's time. Its bytes are those of file 0 but for what has changed.
const REVISED_INDEX: u64 = 1;

const SMALL_MEDIAN_BYTES: f64 = 4096.0;
/// Of the logarithm. The mean is then close to 8 KiB.
const SMALL_DEVIATION: f64 = 1.2;
const SMALL_BYTES_MAX: f64 = 65_536.0;
/// One file in so many is empty, as in trees that people have.
const SMALL_EMPTY_EVERY: u64 = 100;

/// Half of the tiny files are empty, the others shorter than this.
const TINY_BYTES_MAX: u64 = 64;

/// In November of 2023.
const FIRST_MTIME_S: u64 = 1_700_000_000;
const BUFFER_BYTES: usize = 1 << 20;

/// Makes the tree in `root`, a directory that is there and empty.
pub(crate) fn make(recipe: Recipe, root: &Path) -> Result<(), BenchError> {
    match recipe {
        Recipe::Big { bytes } => write_random(&root.join(BIG_NAME), 0, bytes),
        Recipe::Pages { bytes } => write_file(&root.join(BIG_NAME), REVISED_INDEX, |out| {
            fill_random(out, 0, bytes)?;
            revise::rewrite_pages(out, bytes)
        }),
        Recipe::Inserted { bytes } => write_file(&root.join(BIG_NAME), REVISED_INDEX, |out| {
            out.write_all(&revise::insertion())?;
            fill_random(out, 0, bytes)
        }),
        Recipe::Small { files, dirs } => make_grouped(root, files, dirs, small_bytes),
        Recipe::Tiny { files, dirs } => make_grouped(root, files, dirs, tiny_bytes),
        Recipe::Log { files, file_bytes } => make_files(files, |index| {
            let path = root.join(format!("access-{index}.log"));
            write_file(&path, index, |out| log_text::write_log(out, SEED, index, file_bytes))
        }),
        Recipe::UsrShare { scale } => copy_usr_share(root, scale),
    }
}

/// Calls `make` for each file's number, on all processors.
fn make_files(files: u64, make: impl Fn(u64) -> Result<(), BenchError> + Sync) -> Result<(), BenchError> {
    let next = AtomicU64::new(0);
    let work = || {
        while let Some(index) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|&index| index < files) {
            make(index)?;
        }
        Ok(())
    };
    let processors = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..processors).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// Files of the given sizes, spread evenly over the directories.
fn make_grouped(root: &Path, files: u64, dirs: u64, size: fn(u64) -> u64) -> Result<(), BenchError> {
    let dir_path = |index: u64| root.join(format!("d{index:04}"));
    for index in 0..dirs {
        fs::create_dir(dir_path(index)).map_err(BenchError::file("make", dir_path(index)))?;
    }
    make_files(files, |index| {
        let path = dir_path(index % dirs).join(format!("f{index:07}.bin"));
        write_random(&path, index, size(index))
    })?;
    for index in 0..dirs {
        let dir = File::open(dir_path(index)).map_err(BenchError::file("open", dir_path(index)))?;
        set_mtime(&dir, index).map_err(BenchError::file("set the time of", dir_path(index)))?;
    }
    Ok(())
}

fn small_bytes(index: u64) -> u64 {
    if index.is_multiple_of(SMALL_EMPTY_EVERY) {
        return 0;
    }
    let normal = Random::of_part(!SEED, index).normal();
    (SMALL_MEDIAN_BYTES * (SMALL_DEVIATION * normal).exp()).min(SMALL_BYTES_MAX) as u64
}

fn tiny_bytes(index: u64) -> u64 {
    if index.is_multiple_of(2) { 0 } else { Random::of_part(!SEED, index).below(TINY_BYTES_MAX) }
}

fn write_random(path: &Path, index: u64, bytes: u64) -> Result<(), BenchError> {
    write_file(path, index, |out| fill_random(out, index, bytes))
}

/// The bytes of file `index`.
fn fill_random(out: &mut impl Write, index: u64, bytes: u64) -> std::io::Result<()> {
    let mut random = Random::of_part(SEED, index);
    let mut left = bytes;
    let mut buffer = vec![0; BUFFER_BYTES.min(usize::try_from(bytes).unwrap_or(BUFFER_BYTES))];
    while left > 0 {
        let piece = &mut buffer[..BUFFER_BYTES.min(usize::try_from(left).unwrap_or(BUFFER_BYTES))];
        random.fill(piece);
        out.write_all(piece)?;
        left -= piece.len() as u64;
    }
    Ok(())
}

fn write_file(
    path: &Path,
    index: u64,
    fill: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>,
) -> Result<(), BenchError> {
    let file = File::create_new(path).map_err(BenchError::file("create", path))?;
    let mut out = BufWriter::new(file);
    fill(&mut out).map_err(BenchError::file("write", path))?;
    let file = out.into_inner().map_err(|error| BenchError::file("write", path)(error.into_error()))?;
    set_mtime(&file, index).map_err(BenchError::file("set the time of", path))
}

fn set_mtime(file: &File, index: u64) -> std::io::Result<()> {
    let nanoseconds = (index * 1_000_003 % 1_000_000_000) as u32;
    let mtime = SystemTime::UNIX_EPOCH + Duration::new(FIRST_MTIME_S + index * 7, nanoseconds);
    file.set_times(FileTimes::new().set_modified(mtime))
}

/// All of /usr/share, or for the short form its first entries, by name, that together are small.
fn copy_usr_share(root: &Path, scale: Scale) -> Result<(), BenchError> {
    let wanted = match scale {
        Scale::Full => vec![PathBuf::from(USR_SHARE).join(".")],
        Scale::Short => first_entries(Path::new(USR_SHARE), scale.divisor())?,
    };
    copy_into(&wanted, root)
}

/// By `cp -a`.
pub(crate) fn copy_into(wanted: &[PathBuf], dir: &Path) -> Result<(), BenchError> {
    let output = Command::new("cp")
        .arg("-a")
        .args(wanted)
        .arg(dir)
        .stdin(Stdio::null())
        .output()
        .map_err(|source| BenchError::Spawn { program: "cp".to_owned(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let from = wanted.first().map(|path| path.display().to_string()).unwrap_or_default();
    Err(BenchError::Program { program: format!("cp -a {from}"), ended: output.status.to_string(), said })
}

fn first_entries(dir: &Path, divisor: u64) -> Result<Vec<PathBuf>, BenchError> {
    let budget = Census::of(dir)?.bytes / divisor;
    let entries = fs::read_dir(dir).map_err(BenchError::file("list", dir))?;
    let mut entries: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(BenchError::file("list", dir))?;
    entries.sort();
    let mut left = budget;
    let mut taken = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.is_dir() && !entry.is_symlink()) {
        let bytes = Census::of(&entry)?.bytes;
        if bytes > 0 && bytes <= left {
            left -= bytes;
            taken.push(entry);
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;
    use std::time::SystemTime;

    use super::{BIG_NAME, make, small_bytes};
    use crate::census::files_below;
    use crate::workload::Recipe;

    /// Over names, sizes, times and bytes, in the order of the names.
    fn fingerprint(root: &Path) -> u32 {
        let mut files = files_below(root).expect("list");
        files.sort();
        let mut hash = crc32fast::Hasher::new();
        for file in files {
            let metadata = fs::metadata(&file.path).expect("look at");
            let name = file.path.strip_prefix(root).expect("below").to_str().expect("ASCII").to_owned();
            hash.update(format!("{name} {} {} {}\n", file.bytes, metadata.mtime(), metadata.mtime_nsec()).as_bytes());
            hash.update(&fs::read(&file.path).expect("read"));
        }
        hash.finalize()
    }

    fn made(recipe: Recipe) -> u32 {
        let dir = tempfile::tempdir().expect("temporary directory");
        make(recipe, dir.path()).expect("make");
        fingerprint(dir.path())
    }

    #[test]
    fn trees_are_pinned() {
        assert_eq!(made(Recipe::Big { bytes: 3_000_001 }), 2_819_890_701);
        assert_eq!(made(Recipe::Pages { bytes: 3_000_001 }), 1_763_236_956);
        assert_eq!(made(Recipe::Inserted { bytes: 3_000_001 }), 3_429_666_707);
        assert_eq!(made(Recipe::Small { files: 300, dirs: 7 }), 3_671_333_212);
        assert_eq!(made(Recipe::Tiny { files: 300, dirs: 7 }), 2_417_057_187);
        assert_eq!(made(Recipe::Log { files: 3, file_bytes: 100_000 }), 3_052_470_636);
    }

    /// The bytes and the time of the only file.
    fn big_file(recipe: Recipe) -> (Vec<u8>, SystemTime) {
        let dir = tempfile::tempdir().expect("temporary directory");
        make(recipe, dir.path()).expect("make");
        let path = dir.path().join(BIG_NAME);
        let mtime = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("look at");
        (fs::read(path).expect("read"), mtime)
    }

    #[test]
    fn versions_differ_by_what_was_changed_and_are_newer() {
        let bytes = 1000 * 4096 + 1;
        let (old, old_mtime) = big_file(Recipe::Big { bytes });
        let (pages, pages_mtime) = big_file(Recipe::Pages { bytes });
        assert_eq!(pages.len(), old.len());
        let changed = pages.chunks(4096).zip(old.chunks(4096)).filter(|(new, old)| new != old).count();
        assert_eq!(changed, 10);
        let (inserted, inserted_mtime) = big_file(Recipe::Inserted { bytes });
        assert_eq!(inserted[1000..], old);
        assert!(pages_mtime > old_mtime && inserted_mtime > old_mtime);
    }

    #[test]
    fn small_sizes_are_as_promised() {
        let mut sizes: Vec<u64> = (0..50_000).map(small_bytes).collect();
        sizes.sort_unstable();
        assert_eq!((sizes[0], sizes[49_999]), (0, 65_536));
        assert!((3900..4200).contains(&sizes[25_000]), "{}", sizes[25_000]);
    }
}
