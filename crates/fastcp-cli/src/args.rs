//! What may be typed. Meaning comes later.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use fastcp_engine::{Compression, Connections, Deletion, EmptySource, MaxDelete};
use fastcp_wire::limits::CONNECTIONS_MAX;

use crate::logging::LogFormat;

/// Copies directory trees from a fastcp server, or locally, over many parallel connections.
#[derive(Debug, Parser)]
#[command(name = "fastcp-client", version, about, long_about = None, subcommand_negates_reqs = true)]
#[command(override_usage = "fastcp-client [OPTIONS] <DST_DIR> <HOST> <PORT>\n       \
    fastcp-client pull [OPTIONS] <FROM> <DST_DIR>\n       \
    fastcp-client verify [OPTIONS] <DST_DIR> <FROM>\n       \
    fastcp-client verify [OPTIONS] --manifest <FILE> <DST_DIR>\n       \
    fastcp-client get [OPTIONS] <HOST> <PORT> <PATH> [OUT]")]
pub(crate) struct ClientArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ClientCommand>,
    /// Where to copy to
    #[arg(required = true)]
    pub(crate) dst_dir: Option<PathBuf>,
    /// The server's name or address
    #[arg(required = true)]
    pub(crate) host: Option<String>,
    /// The server's port
    #[arg(required = true)]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) options: ClientOptions,
}

/// What the client does.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Copy a tree: FROM/ copies the contents, FROM the directory itself
    Pull {
        /// fcp://host[:port][/path], or a local file or directory
        from: OsString,
        /// Where to copy to
        dst_dir: PathBuf,
    },
    /// Compare a directory with a source, or with a manifest; list differences and change nothing
    Verify {
        /// What to compare
        dst_dir: PathBuf,
        /// What to compare it with, as for pull
        from: Option<OsString>,
    },
    /// Copy one file from any server that speaks FTQ1
    Get {
        /// The server's name or address
        host: String,
        /// The server's port
        port: u16,
        /// The file, relative to the server's root
        path: OsString,
        /// The file or directory to copy to [default: the file's own name, here]
        out: Option<PathBuf>,
        /// Fail where the server gives no CRC-32
        #[arg(long, env = "FASTCP_REQUIRE_CRC")]
        require_crc: bool,
    },
}

/// Options of the client.
#[derive(Debug, Args)]
pub(crate) struct ClientOptions {
    /// Data connections, 1-64, or auto: as many as throughput says
    #[arg(long, global = true, value_name = "N|auto", env = "FASTCP_CONNS", default_value = "4")]
    #[arg(value_parser = parse_connections)]
    pub(crate) conns: Connections,
    /// Chunk size in KiB, 4-65536 [default: the server's, else 1024]
    #[arg(long, global = true, value_name = "N", env = "FASTCP_CHUNK_KB")]
    #[arg(value_parser = clap::value_parser!(u32).range(4..=65536))]
    pub(crate) chunk_kb: Option<u32>,
    /// Never ask for compressed ranges
    #[arg(long, global = true, env = "FASTCP_NO_COMPRESS")]
    pub(crate) no_compress: bool,
    /// The zstd level of a local source's ranges, 1-19 [default: not compressed]
    #[arg(long, global = true, value_name = "N", env = "FASTCP_COMPRESS_LEVEL", conflicts_with = "no_compress")]
    #[arg(value_parser = clap::value_parser!(i32).range(1..=19))]
    pub(crate) compress_level: Option<i32>,
    /// Seconds to keep trying while nothing answers
    #[arg(long, global = true, value_name = "SECONDS", env = "FASTCP_RETRY", default_value_t = 30)]
    pub(crate) retry: u64,
    /// Events as JSON lines on stdout, the last one the summary
    #[arg(long, global = true, env = "FASTCP_JSON")]
    pub(crate) json: bool,
    /// What survives a power cut: nothing promised, everything by groups, everything file by file
    #[arg(long, global = true, value_enum, env = "FASTCP_DURABILITY", default_value = "batch")]
    pub(crate) durability: DurabilityArg,
    /// Fetch changed files whole [default for a local source]
    #[arg(short = 'W', long, global = true, env = "FASTCP_WHOLE_FILE", value_name = "true|false")]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) whole_file: Option<bool>,
    /// Fetch of changed files only what their old versions lack [default for a server]
    #[arg(long, global = true)]
    pub(crate) no_whole_file: bool,
    /// Write into the files themselves: a run that does not end well leaves them neither old nor new
    #[arg(long, global = true, env = "FASTCP_INPLACE")]
    pub(crate) inplace: bool,
    /// What a file's checksum is taken over before it gets its name: the bytes as they were received, what
    /// its part file reads as, or what the disk gives back
    #[arg(long, global = true, value_enum, env = "FASTCP_VERIFY", default_value = "received")]
    pub(crate) verify: VerifyArg,
    /// Append what was copied to this file: hash, size, time and path of each. With verify: compare with it
    #[arg(long, global = true, value_name = "FILE", env = "FASTCP_MANIFEST")]
    pub(crate) manifest: Option<PathBuf>,
    /// The hash of a manifest's records
    #[arg(long, global = true, value_enum, env = "FASTCP_MANIFEST_HASH", default_value = "xxh3")]
    pub(crate) manifest_hash: ManifestHashArg,
    /// How bodies are received; for measurements
    #[arg(long, global = true, value_enum, env = "FASTCP_RECEIVE_PATH", default_value = "auto", hide = true)]
    pub(crate) receive_path: ReceivePathArg,
    /// Capability bits not to advertise; for tests
    #[arg(long, global = true, value_name = "BITS", env = "FASTCP_WITHOUT", default_value = "0", hide = true)]
    #[arg(value_parser = parse_bits)]
    pub(crate) without: u32,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    #[command(flatten)]
    pub(crate) changes: ChangeOptions,
}

/// What is done at the destination beside copying. What makes entries go is never taken from the
/// environment, where it could be forgotten: it has to be typed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Changes")]
pub(crate) struct ChangeOptions {
    /// Change nothing, and say what would be done
    #[arg(short = 'n', long, global = true, env = "FASTCP_DRY_RUN")]
    pub(crate) dry_run: bool,
    /// A line for each change, as rsync prints them
    #[arg(short = 'i', long, global = true, env = "FASTCP_ITEMIZE_CHANGES")]
    pub(crate) itemize_changes: bool,
    /// Delete what the source does not have, once all of the source was listed without an error
    #[arg(long, global = true)]
    pub(crate) delete: bool,
    /// Delete nothing at all where more than N entries would go, or N% of those there
    #[arg(long, global = true, value_name = "N[%]", value_parser = parse_max_delete)]
    pub(crate) max_delete: Option<MaxDelete>,
    /// Delete although the source is empty
    #[arg(long, global = true)]
    pub(crate) force_empty: bool,
    /// Move what is deleted or replaced there; a relative DIR is below the destination
    #[arg(long, global = true, value_name = "DIR", env = "FASTCP_BACKUP_DIR")]
    pub(crate) backup_dir: Option<PathBuf>,
}

impl ClientOptions {
    /// Options that do not go together.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if self.inplace && self.changes.backup_dir.is_some() {
            return Err("--backup-dir keeps what is replaced, and --inplace replaces nothing: choose one");
        }
        self.changes.check()
    }
}

impl ChangeOptions {
    /// Options that mean nothing without another. An option may stand before the command and the other
    /// behind it, which the parser cannot see together.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match (self.delete, self.max_delete, self.force_empty) {
            (false, Some(_), _) => Err("--max-delete needs --delete"),
            (false, None, true) => Err("--force-empty needs --delete"),
            _ => Ok(()),
        }
    }

    /// What they mean for deletion.
    pub(crate) fn deletion(&self) -> Option<Deletion> {
        let empty_source = if self.force_empty { EmptySource::Deletes } else { EmptySource::Refused };
        self.delete.then_some(Deletion { max: self.max_delete, empty_source })
    }

    /// Those that a single file cannot be fetched with.
    pub(crate) fn is_any_given(&self) -> bool {
        self.dry_run || self.itemize_changes || self.delete || self.backup_dir.is_some()
    }
}

/// What survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DurabilityArg {
    None,
    Batch,
    File,
}

/// What the checksum of a whole file is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerifyArg {
    Received,
    Written,
    Disk,
}

/// The hash of a manifest's records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ManifestHashArg {
    Xxh3,
    Sha256,
}

/// How bodies are received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReceivePathArg {
    Auto,
    Copy,
    Splice,
}

/// Options of both programs.
#[derive(Debug, Args)]
pub(crate) struct LogOptions {
    /// Say more on stderr; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Say nothing but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// How log lines look
    #[arg(long, global = true, value_enum, env = "FASTCP_LOG_FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// Serves a directory tree to fastcp clients and to anything that speaks FTQ1.
#[derive(Debug, Parser)]
#[command(name = "fastcp-server", version, about, long_about = None)]
pub(crate) struct ServerArgs {
    /// The directory to serve
    pub(crate) src_dir: PathBuf,
    /// The address to listen on
    #[arg(default_value = "127.0.0.1")]
    pub(crate) ip: IpAddr,
    /// The port to listen on; 0 picks a free one
    #[arg(default_value_t = fastcp_model::DEFAULT_PORT)]
    pub(crate) port: u16,
    /// The most data connections that one session may open, 1-64
    #[arg(long, value_name = "N", env = "FASTCP_CONNS", default_value_t = 64)]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) conns: u16,
    /// Chunk size in KiB for clients that name none, 4-65536
    #[arg(long, value_name = "N", env = "FASTCP_CHUNK_KB")]
    #[arg(value_parser = clap::value_parser!(u32).range(4..=65536))]
    pub(crate) chunk_kb: Option<u32>,
    /// Never compress
    #[arg(long, env = "FASTCP_NO_COMPRESS")]
    pub(crate) no_compress: bool,
    /// The zstd level, 1-19 [default: adaptive]
    #[arg(long, value_name = "N", env = "FASTCP_COMPRESS_LEVEL", conflicts_with = "no_compress")]
    #[arg(value_parser = clap::value_parser!(i32).range(1..=19))]
    pub(crate) compress_level: Option<i32>,
    /// Serve an address other than loopback to anybody who can reach it
    #[arg(long, env = "FASTCP_INSECURE")]
    pub(crate) insecure: bool,
    /// Answer plain FTQ1 requests with a CRC of 0, for programs that compute theirs wrongly
    #[arg(long, env = "FASTCP_FTQ1_NO_CRC")]
    pub(crate) ftq1_no_crc: bool,
    #[command(flatten)]
    pub(crate) log: LogOptions,
}

/// What the two options about compression mean together.
pub(crate) fn compression(off: bool, level: Option<i32>) -> Compression {
    match (off, level) {
        (true, _) => Compression::Off,
        (false, Some(level)) => Compression::Level(level),
        (false, None) => Compression::Adaptive,
    }
}

fn parse_connections(text: &str) -> Result<Connections, &'static str> {
    match text.parse() {
        _ if text == "auto" => Ok(Connections::Auto),
        Ok(count @ 1..=CONNECTIONS_MAX) => Ok(Connections::Fixed(count)),
        _ => Err("expected 1-64 or auto"),
    }
}

fn parse_max_delete(text: &str) -> Result<MaxDelete, &'static str> {
    match text.strip_suffix('%') {
        Some(percent) => match percent.parse() {
            Ok(percent @ 0..=100) => Ok(MaxDelete::Percent(percent)),
            _ => Err("expected 0% to 100%"),
        },
        None => text.parse().map(MaxDelete::Entries).map_err(|_| "expected a number of entries, or N%"),
    }
}

fn parse_bits(text: &str) -> Result<u32, std::num::ParseIntError> {
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use fastcp_engine::{Connections, MaxDelete};

    use super::{ClientArgs, ClientCommand, ServerArgs};

    #[test]
    fn definitions_are_sound() {
        ClientArgs::command().debug_assert();
        ServerArgs::command().debug_assert();
    }

    #[test]
    fn whole_files_are_asked_for_and_not_asked_for() {
        let parse = |words: &[&str]| {
            let words = ["c"].iter().chain(words).chain(&["pull", "a", "b"]);
            let options = ClientArgs::try_parse_from(words).expect("lawful").options;
            (options.whole_file, options.no_whole_file)
        };
        assert_eq!(parse(&[]), (None, false));
        assert_eq!(parse(&["-W"]), (Some(true), false));
        assert_eq!(parse(&["--whole-file"]), (Some(true), false));
        assert_eq!(parse(&["--whole-file=false"]), (Some(false), false));
        assert_eq!(parse(&["--whole-file=true", "--no-whole-file"]), (Some(true), true));
    }

    #[test]
    fn the_short_form_and_the_commands_take_options_anywhere() {
        let short = ClientArgs::try_parse_from(["c", "--conns", "8", "dst", "host", "9999"]).expect("lawful");
        assert_eq!((short.options.conns, short.port), (Connections::Fixed(8), Some(9999)));
        for words in [["c", "--conns", "8", "pull", "a", "b"], ["c", "pull", "a", "b", "--conns", "8"]] {
            let pull = ClientArgs::try_parse_from(words).expect("lawful");
            assert_eq!(pull.options.conns, Connections::Fixed(8));
            assert!(matches!(pull.command, Some(ClientCommand::Pull { .. })));
        }
        let auto = ClientArgs::try_parse_from(["c", "--conns", "auto", "pull", "a", "b"]).expect("lawful");
        assert_eq!(auto.options.conns, Connections::Auto);
        for words in [&["c", "dst", "host"][..], &["c", "pull", "a"]] {
            assert!(ClientArgs::try_parse_from(words).is_err());
        }
        for count in ["0", "65", "-1", "many", ""] {
            assert!(ClientArgs::try_parse_from(["c", "--conns", count, "d", "h", "1"]).is_err(), "{count}");
        }
    }

    #[test]
    fn limits_of_deletion_are_counts_or_shares_and_need_deletion() {
        let parse = |words: &[&str]| ClientArgs::try_parse_from([&["c", "pull", "a", "b"], words].concat());
        for (text, max) in [("0", MaxDelete::Entries(0)), ("12", MaxDelete::Entries(12)), ("5%", MaxDelete::Percent(5))]
        {
            let args = parse(&["--delete", "--max-delete", text]).expect("lawful");
            assert_eq!(args.options.changes.max_delete, Some(max));
            assert!(args.options.changes.check().is_ok());
        }
        for text in ["-1", "101%", "%", "1.5", "many", ""] {
            assert!(parse(&["--delete", "--max-delete", text]).is_err(), "{text}");
        }
        for words in [&["--max-delete", "1"][..], &["--force-empty"]] {
            assert!(parse(words).expect("parsed").options.changes.check().is_err(), "{words:?}");
        }
        let split = ClientArgs::try_parse_from(["c", "--delete", "pull", "a", "b", "--max-delete", "1"]);
        assert!(split.expect("lawful").options.changes.check().is_ok());
    }
}
