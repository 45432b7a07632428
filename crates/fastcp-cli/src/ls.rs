//! `fastcp-client ls`: what is in a directory of a server, or here.

use std::cell::Cell;
use std::sync::Arc;

use fastcp_engine::{Report, RunError, list_path};
use fastcp_model::{Entry, EntryKind, Metadata, RelPath, SpecialKind};
use fastcp_wire::offer::{Place, Scope};
use serde_json::{Value, json};

use crate::args::LsArgs;
use crate::args::filters::Unqualified;
use crate::course::Course;
use crate::events::with_name;
use crate::exit_code::{self, Failure};
use crate::filters;
use crate::from::From;
use crate::output::{Format, Output};
use crate::pattern::{Pattern, is_pattern};
use crate::screen::Screen;
use crate::setup::{format, retry_only, start_pool};
use crate::sources::reach;
use crate::time::utc;
use crate::watched::{Watched, watched};
use crate::wording::kind_name;

pub(crate) fn ls(args: &LsArgs, screen: &Arc<Screen>) -> Result<u8, Failure> {
    let from = From::parse(&args.from).map_err(|error| Failure::new(exit_code::USAGE, error))?;
    let rules = filters::rules(&args.filters, Unqualified::BothEnds)?;
    start_pool()?;
    // The shell ends when the run does.
    let (reached, Place { path, scope }, _shell) = reach(from, &args.trust, &args.shell)?;
    let typed = Some(path.clone()).filter(|_| scope == Scope::Itself);
    let (path, pattern) = selected(path, scope);
    let typed = typed.filter(|_| pattern.is_some());
    let output = Output::new(format(&args.output), screen);
    let lister = Lister { args, output: &output, pattern, named: Cell::new(0) };
    let settings = retry_only(args.retry.retry);
    let Watched { report, result, .. } = watched(&output, Course::List, |report| {
        let dialer = reached.dialer(Arc::clone(&report.wire));
        let is_deep = args.recursive;
        let mut tell = |dir: &RelPath, entry: &Entry| lister.tell(dir, entry);
        list_path(&dialer, &path, is_deep, &rules, &settings, report, &mut tell)?;
        match &typed {
            // Nothing matches: it may be the very name.
            Some(typed) if lister.named.get() == 0 => {
                let lister = Lister { pattern: None, named: Cell::new(0), ..lister };
                let mut tell = |dir: &RelPath, entry: &Entry| lister.tell(dir, entry);
                list_path(&dialer, typed, is_deep, &rules, &settings, report, &mut tell)
            }
            _ => Ok(()),
        }
    });
    reached.remember();
    let result = result.unwrap_or_else(|source| Err(RunError::Exhausted { operation: "start a thread", source }));
    Ok(ended(&output, &report, &result))
}

fn ended(output: &Output, report: &Report, result: &Result<(), RunError>) -> u8 {
    let code = match result {
        Ok(()) => exit_code::of_report(report),
        Err(error) => {
            let code = exit_code::of_run_error(error);
            output.error(&error.to_string(), code);
            code
        }
    };
    output.stdout.exit_code(code)
}

/// The directory, and the pattern that its names have to match.
fn selected(path: RelPath, scope: Scope) -> (RelPath, Option<Pattern>) {
    match path.split().filter(|_| scope == Scope::Itself) {
        Some((parent, last)) if is_pattern(last.as_bytes()) => (parent, Some(Pattern::new(last.as_bytes()))),
        _ => (path, None),
    }
}

struct Lister<'a> {
    args: &'a LsArgs,
    output: &'a Output,
    pattern: Option<Pattern>,
    /// How many were.
    named: Cell<u64>,
}

impl Lister<'_> {
    fn tell(&self, dir: &RelPath, entry: &Entry) {
        let path = dir.join(&entry.name);
        let first = path.names().next();
        let is_wanted = match (&self.pattern, first) {
            (Some(pattern), Some(first)) => pattern.matches(first.as_bytes()),
            _ => true,
        };
        if !is_wanted {
            return;
        }
        self.named.set(self.named.get() + 1);
        match self.output.format {
            Format::Json => self.output.stdout.json(&as_json(&path, entry)),
            Format::Text | Format::Quiet if self.args.long => self.output.stdout.line(&long(&path, entry)),
            Format::Text | Format::Quiet => self.output.stdout.line(&short(&path, entry)),
        }
    }
}

fn short(path: &RelPath, entry: &Entry) -> String {
    let end = if entry.kind == EntryKind::Dir { "/" } else { "" };
    format!("{path}{end}")
}

/// As `rsync --list-only` has it: permissions, size, time, name.
fn long(path: &RelPath, entry: &Entry) -> String {
    let Metadata { mode, mtime, .. } = entry.metadata;
    let size = match entry.kind {
        EntryKind::File { size_bytes, .. } => size_bytes,
        EntryKind::Dir | EntryKind::Symlink { .. } | EntryKind::Special(_) => 0,
    };
    let target = match &entry.kind {
        EntryKind::Symlink { target } => format!(" -> {}", fastcp_model::Escaped(target)),
        _ => String::new(),
    };
    format!("{}{} {size:>14} {} {path}{target}", letter(&entry.kind), permissions(mode), utc(mtime))
}

fn letter(kind: &EntryKind) -> char {
    match kind {
        EntryKind::File { .. } => '-',
        EntryKind::Dir => 'd',
        EntryKind::Symlink { .. } => 'l',
        EntryKind::Special(SpecialKind::Fifo) => 'p',
        EntryKind::Special(SpecialKind::Socket) => 's',
        EntryKind::Special(SpecialKind::CharDevice) => 'c',
        EntryKind::Special(SpecialKind::BlockDevice) => 'b',
    }
}

fn permissions(mode: u16) -> String {
    let bit = |bit: u16, letter: char| if mode & bit == 0 { '-' } else { letter };
    let special = |special: u16, execute: u16, letter: char| match (mode & special != 0, mode & execute != 0) {
        (false, false) => '-',
        (false, true) => 'x',
        (true, false) => letter.to_ascii_uppercase(),
        (true, true) => letter,
    };
    [
        bit(0o400, 'r'),
        bit(0o200, 'w'),
        special(0o4000, 0o100, 's'),
        bit(0o040, 'r'),
        bit(0o020, 'w'),
        special(0o2000, 0o010, 's'),
        bit(0o004, 'r'),
        bit(0o002, 'w'),
        special(0o1000, 0o001, 't'),
    ]
    .into_iter()
    .collect()
}

fn as_json(path: &RelPath, entry: &Entry) -> Value {
    let Metadata { mode, uid, gid, mtime } = entry.metadata;
    let kind = match &entry.kind {
        EntryKind::File { .. } => "file",
        EntryKind::Dir => "directory",
        EntryKind::Symlink { .. } => "link",
        EntryKind::Special(kind) => kind_name(*kind),
    };
    let mut object = json!({
        "event": "entry", "kind": kind, "mode": format!("{mode:04o}"), "uid": uid, "gid": gid, "mtime": utc(mtime),
        "mtime_ns": mtime.wire_ns().cast_signed(),
    });
    match &entry.kind {
        EntryKind::File { size_bytes, .. } => object["size"] = (*size_bytes).into(),
        EntryKind::Symlink { target } => object = with_name(object, "target", target),
        EntryKind::Dir | EntryKind::Special(_) => {}
    }
    with_name(object, "path", path.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::permissions;

    #[test]
    fn permissions_look_as_in_a_listing() {
        for (mode, text) in [
            (0o644, "rw-r--r--"),
            (0o755, "rwxr-xr-x"),
            (0o4755, "rwsr-xr-x"),
            (0o2640, "rw-r-S---"),
            (0o1777, "rwxrwxrwt"),
            (0o1776, "rwxrwxrwT"),
            (0, "---------"),
        ] {
            assert_eq!(permissions(mode), text);
        }
    }
}
