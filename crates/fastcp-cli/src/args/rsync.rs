//! Options of rsync(1) that fastcp always acts on, or does not have: the one table of both.
//!
//! The first are accepted by `pull` and `verify`, since what they ask for is done; asking for the opposite is refused. The
//! others are refused by name, with what to type instead where there is something.

use clap::{Arg, ArgAction, Command};

/// An option that asks for what is always done.
struct Always {
    long: &'static str,
    short: Option<char>,
    fact: &'static str,
}

const ALWAYS: [Always; 8] = [
    Always {
        long: "archive",
        short: Some('a'),
        fact: "permissions, times, links and, as root, owners are always preserved",
    },
    Always { long: "recursive", short: Some('r'), fact: "directories are always copied with everything in them" },
    Always { long: "links", short: Some('l'), fact: "symbolic links are always copied as links" },
    Always { long: "perms", short: Some('p'), fact: "permissions are always preserved" },
    Always { long: "times", short: Some('t'), fact: "modification times are always preserved" },
    Always { long: "group", short: Some('g'), fact: "groups are always preserved, as far as the user may set them" },
    Always { long: "owner", short: Some('o'), fact: "owners are always preserved when run as root" },
    Always {
        long: "human-readable",
        short: None,
        fact: "sizes are always printed with units; --json has the exact ones",
    },
];

/// What `verify` always does in addition.
const COMPARED: Always = Always { long: "checksum", short: Some('c'), fact: "verify always compares contents" };

/// Options that fastcp does not have: the names of some that belong together, and what to do instead. Nothing is
/// said where there is nothing instead.
const MISSING: [(&[&str], &str); 42] = [
    (&["-A", "--acls", "-X", "--xattrs"], "access control lists and extended attributes are not copied"),
    (&["-D", "--devices", "--specials", "--copy-devices", "--write-devices"], "devices, pipes and sockets are skipped"),
    (&["-H", "--hard-links"], "hard links are copied as separate files"),
    (&["-S", "--sparse"], "holes of sparse files are always kept: leave it out"),
    (
        &["-P", "--partial", "--progress"],
        "progress is always shown on a terminal, and part files are always kept: leave it out",
    ),
    (&["--partial-dir", "-T", "--temp-dir", "--delay-updates"], "part files are kept in .fastcp in the destination"),
    (&["--append", "--append-verify"], "interrupted files are resumed without it: leave it out"),
    (&["-c", "--checksum"], "fastcp-client verify compares contents"),
    (
        &[
            "-I",
            "--ignore-times",
            "--size-only",
            "-u",
            "--update",
            "--existing",
            "--ignore-non-existing",
            "--ignore-existing",
            "-@",
            "--modify-window",
        ],
        "files count as unchanged if their size and time are equal",
    ),
    (&["-b", "--backup", "--suffix"], "--backup-dir DIR keeps what is deleted or replaced"),
    (
        &["--del", "--delete-before", "--delete-during", "--delete-delay", "--delete-after"],
        "use --delete, which deletes once the whole source was listed",
    ),
    (&["--force"], "use --delete, which also replaces directories that are not empty"),
    (&["--delete-missing-args", "--ignore-missing-args", "--ignore-errors"], ""),
    (&["--files-from"], "several FROM may be given; --include and --exclude-from select by patterns"),
    (&["-m", "--prune-empty-dirs"], ""),
    (&["-x", "--one-file-system"], "file systems mounted below the source are copied too"),
    (
        &["--link-dest", "--copy-dest", "--compare-dest", "-y", "--fuzzy"],
        "changed files are compared with their old versions in the destination; --backup-dir DIR keeps those",
    ),
    (&["-R", "--relative", "--no-implied-dirs"], "give the whole path in DST_DIR, too"),
    (&["-d", "--dirs", "--old-dirs"], "directories are always copied with everything in them"),
    (&["--mkpath"], "the destination is created if it does not exist: leave it out"),
    (
        &["-L", "--copy-links", "--copy-unsafe-links", "--safe-links", "--munge-links", "-k", "--copy-dirlinks"],
        "symbolic links are always copied as links",
    ),
    (&["-K", "--keep-dirlinks"], "links in the destination are never followed"),
    (&["-E", "--executability", "--chmod"], "permissions are always preserved"),
    (
        &["--chown", "--usermap", "--groupmap", "--numeric-ids"],
        "owners are preserved by name if both machines know the name, else by number",
    ),
    (&["-U", "--atimes", "--open-noatime", "-N", "--crtimes"], "only modification times are preserved"),
    (&["-O", "--omit-dir-times", "-J", "--omit-link-times"], "modification times are always preserved"),
    (&["--super", "--fake-super", "--copy-as"], ""),
    (&["--preallocate", "--max-alloc", "-B", "--block-size", "--checksum-choice", "--cc", "--checksum-seed"], ""),
    (
        &["--rsync-path", "-M", "--remote-option", "--blocking-io"],
        "--remote-bin PROGRAM says where fastcp-server is on the other machine",
    ),
    (&["--remove-source-files"], "the source is never changed"),
    (&["--timeout", "--contimeout"], "use --retry SECONDS"),
    (&["--compress-choice", "--zc"], "compression is zstd"),
    (&["--zl"], "use --compress-level N"),
    (&["--skip-compress"], "what does not shrink is sent as it is: leave it out"),
    (&["--port"], "the port is part of the address: fcp://HOST:PORT/PATH"),
    (&["--address", "--sockopts", "-4", "--ipv4", "-6", "--ipv6"], "give the address itself in place of the name"),
    (&["--stats"], "a summary is always printed; --json prints all counts"),
    (
        &[
            "--info",
            "--debug",
            "--stderr",
            "--out-format",
            "--log-file",
            "--log-file-format",
            "--outbuf",
            "-8",
            "--8-bit-output",
            "--msgs2stderr",
        ],
        "-v and -i list files, --json prints events, log lines go to stderr",
    ),
    (&["--list-only"], "pull --dry-run --itemize-changes lists what would be copied"),
    (&["--fsync"], "use --durability file"),
    (
        &["--daemon", "--config", "--detach", "--no-detach", "--server", "--sender", "--dparam"],
        "fastcp-server serves a directory",
    ),
    (
        &[
            "--bwlimit",
            "--stop-after",
            "--time-limit",
            "--stop-at",
            "--write-batch",
            "--only-write-batch",
            "--read-batch",
            "--protocol",
            "--iconv",
            "--password-file",
            "--early-input",
            "--no-motd",
            "-s",
            "--secluded-args",
            "--protect-args",
            "--old-args",
            "--trust-sender",
            "--inc-recursive",
            "--i-r",
            "--no-inc-recursive",
            "--no-i-r",
            "--insecure-links",
            "--confine-root",
            "--drop-D",
            "--compress-threads",
        ],
        "",
    ),
];

/// Adds those that are always acted on, hidden in the help.
pub(super) fn with_always_on(command: Command) -> Command {
    with_all(command, &ALWAYS)
}

/// The same for `verify`, which compares what `pull` preserves.
pub(super) fn with_always_compared(command: Command) -> Command {
    with_all(with_all(command, &ALWAYS), &[COMPARED])
}

fn with_all(mut command: Command, all: &[Always]) -> Command {
    for Always { long, short, .. } in all {
        if command.get_arguments().all(|arg| arg.get_long() != Some(long)) {
            let arg = Arg::new(*long).long(*long).action(ArgAction::SetTrue).overrides_with(*long).hide(true);
            command = command.arg(short.iter().fold(arg, |arg, &short| arg.short(short)));
        }
    }
    command
}

/// Why an option cannot be turned off; `None` for one that can.
pub(super) fn always(long: &str) -> Option<&'static str> {
    ALWAYS.iter().chain([&COMPARED]).find(|always| always.long == long).map(|always| always.fact)
}

/// Why an option of rsync, or its negation, is refused: an error, and what to do instead. `None` for an option that
/// rsync does not have.
pub(super) fn refusal(option: &str) -> Option<(String, String)> {
    if let Some(instead) = missing(option) {
        return Some((format!("fastcp does not have rsync's {option} yet"), instead.to_owned()));
    }
    let name = option.strip_prefix("--no-")?;
    let is_named =
        |always: &&Always| always.long == name || always.short.is_some_and(|short| name == short.to_string());
    if let Some(always) = ALWAYS.iter().find(is_named) {
        return Some((format!("fastcp does not have rsync's {option} yet"), always.fact.to_owned()));
    }
    let positive = if name.len() == 1 { format!("-{name}") } else { format!("--{name}") };
    missing(&positive)?;
    Some((format!("fastcp does not have rsync's {positive} yet"), format!("leave out {option}")))
}

fn missing(option: &str) -> Option<&'static str> {
    MISSING.iter().find(|(names, _)| names.contains(&option)).map(|(_, instead)| *instead)
}
