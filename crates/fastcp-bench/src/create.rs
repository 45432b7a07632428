//! The limit without a network: threads that create, write and rename the files of a tree.
//!
//! Nothing is read but a list of sizes and names, and the directories are there: what is left is
//! what any copy of many files has to do at its destination. Prepared by the benchmark, run as a
//! process of its own so that it is timed as the tools are.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::census::files_below;
use crate::error::BenchError;
use crate::random::Random;
use crate::trees::Tree;
use crate::workload::SEED;

/// What to create.
#[derive(Debug, clap::Args)]
pub(crate) struct CreateWords {
    /// Sizes and names, a file a line
    manifest: PathBuf,

    /// Where to; the directories are there
    destination: PathBuf,

    /// How many threads share the work
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// Writes the list of the tree's files, and makes their directories at the destination.
pub(crate) fn prepare(tree: &Tree, destination: &Path, manifest: &Path) -> Result<(), BenchError> {
    let mut files = files_below(&tree.root)?;
    files.sort();
    let mut text = String::new();
    for file in &files {
        let name = file.path.strip_prefix(&tree.root).ok().and_then(Path::to_str);
        let name = name.ok_or(BenchError::Usage("create takes only trees whose names are text"))?;
        // A String takes everything.
        let _ = writeln!(text, "{} {name}", file.bytes);
        let dir = destination.join(name).parent().map_or_else(|| destination.to_path_buf(), Path::to_path_buf);
        if !dir.exists() {
            fs::create_dir_all(&dir).map_err(BenchError::file("make", &dir))?;
        }
    }
    fs::write(manifest, text).map_err(BenchError::file("write", manifest))
}

/// Creates the files.
pub(crate) fn run(words: &CreateWords) -> Result<(), BenchError> {
    let text = fs::read_to_string(&words.manifest).map_err(BenchError::file("read", &words.manifest))?;
    let files = parse(&text)?;
    let largest = files.iter().map(|&(bytes, _)| bytes).max().unwrap_or(0);
    let mut content = vec![0; largest];
    Random::new(SEED).fill(&mut content);
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        let work = |number: usize| {
            let partial = format!(".creating-{number}");
            while let Some((bytes, name)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                create(&words.destination.join(name), &partial, &content[..*bytes])?;
            }
            Ok(())
        };
        let threads: Vec<_> = (0..words.threads).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn parse(manifest: &str) -> Result<Vec<(usize, &str)>, BenchError> {
    let file = |line| -> Option<(usize, &str)> {
        let (bytes, name) = str::split_once(line, ' ')?;
        Some((bytes.parse().ok()?, name))
    };
    manifest.lines().map(file).collect::<Option<_>>().ok_or(BenchError::Usage("not a list of sizes and names"))
}

fn create(path: &Path, partial: &str, content: &[u8]) -> Result<(), BenchError> {
    let unnamed = path.with_file_name(partial);
    let mut file = File::create_new(&unnamed).map_err(BenchError::file("create", &unnamed))?;
    file.write_all(content).map_err(BenchError::file("write", &unnamed))?;
    drop(file);
    fs::rename(&unnamed, path).map_err(BenchError::file("rename", &unnamed))
}
