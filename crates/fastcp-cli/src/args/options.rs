//! Groups of options that commands share.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use clap::{ArgAction, Args, ValueEnum};
use fastcp_engine::{
    Connections, Deletion, Durability, EmptySource, ManifestHash, MaxDelete, RETRY_DEFAULT, ReceivePath, SUMS_MAX,
    SizeLimits, VerifyOver,
};
use fastcp_net::{CONNECTIONS_TOTAL_MAX, HANDSHAKE_TIMEOUT, IDLE_MAX, WRONG_TOKENS_MAX};
use fastcp_wire::limits::CONNECTIONS_MAX;

use crate::args::filters::Unqualified;

/// How the server is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct LinkOptions {
    /// Data connections, 1-64, or auto: as many as increase the throughput
    #[arg(long, value_name = "N|auto", default_value = "4", value_parser = parse_connections)]
    pub(crate) conns: Connections,
    #[command(flatten)]
    pub(crate) retry: RetryOption,
    /// Capability bits not to advertise; for tests
    #[arg(long, value_name = "BITS", default_value = "0", hide = true, value_parser = parse_bits)]
    pub(crate) without: u32,
}

/// How long to try.
#[derive(Debug, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct RetryOption {
    /// Give up after this many seconds without progress
    #[arg(long, value_name = "SECONDS", default_value_t = RETRY_DEFAULT.as_secs(), value_parser = parse_seconds)]
    pub(crate) retry: u64,
}

/// What the server has to prove, and what is proven to it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Security")]
pub(crate) struct TrustOptions {
    /// File with the server's token; FASTCP_TOKEN may have the token itself
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Take a server whose certificate is from an authority in this PEM file, instead of one whose key is known
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Certificate to show to the server, in PEM; needs --tls-key and --tls-ca
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of that certificate, in PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Talk to a server on another machine without protection: whoever is in between can read and change everything
    #[arg(long)]
    pub(crate) insecure: bool,
}

/// What the process keeps itself from.
#[derive(Debug, Args)]
#[command(next_help_heading = "Security")]
pub(crate) struct SandboxOptions {
    /// Do not have the kernel refuse to this process what lies outside the destination
    #[arg(long)]
    pub(crate) no_sandbox: bool,
}

/// How a place that a remote shell leads to is reached.
#[derive(Debug, Args)]
#[command(next_help_heading = "Remote shell")]
pub(crate) struct ShellOptions {
    /// Command that leads to HOST of HOST:PATH [default: ssh]. One that ends in -- takes the remote command as it is
    #[arg(short = 'e', long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub(crate) rsh: Option<OsString>,
    /// fastcp-server on that host, where it is not in the path of its logins
    #[arg(long, value_name = "PROGRAM", overrides_with_all = ["deploy", "deploy_bin"])]
    pub(crate) remote_bin: Option<String>,
    /// Send this program to that host and run it there, if it is not there yet. Later runs do so without being asked
    #[arg(long, overrides_with_all = ["no_deploy", "remote_bin"])]
    pub(crate) deploy: bool,
    /// Send this program instead, such as one for another processor
    #[arg(long, value_name = "FILE", overrides_with_all = ["no_deploy", "remote_bin"])]
    pub(crate) deploy_bin: Option<PathBuf>,
    /// Use fastcp-server on that host again
    #[arg(long, overrides_with_all = ["deploy", "deploy_bin"])]
    pub(crate) no_deploy: bool,
}

/// How files are copied.
#[derive(Debug, Args)]
#[command(next_help_heading = "Copying")]
pub(crate) struct CopyOptions {
    /// Preserve permissions, times, links and, as root, owners; this is always done, devices are not copied
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Fetch changed files whole [default for a local source]
    #[arg(short = 'W', long, overrides_with = "no_whole_file")]
    pub(crate) whole_file: bool,
    /// Fetch only those parts of changed files that the old versions lack [default for a server]
    #[arg(long, overrides_with = "whole_file")]
    pub(crate) no_whole_file: bool,
    /// Write into existing files instead of replacing them; an interrupted run leaves a mixture of old and new
    #[arg(long, conflicts_with = "backup_dir")]
    pub(crate) inplace: bool,
    /// What to compute checksums over: bytes as received, part files as read back, or what the disk returns
    #[arg(long, value_enum, value_name = "WHAT", default_value = "received")]
    pub(crate) verify: VerifyOver,
    /// What survives a power failure: nothing is promised, files are synced in groups, or one by one
    #[arg(long, value_enum, value_name = "HOW", default_value = "batch")]
    pub(crate) durability: Durability,
    /// Append hash, size, time and path of each copied file to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) manifest: Option<PathBuf>,
    /// The hash that the manifest uses
    #[arg(long, value_enum, value_name = "HASH", default_value = "blake3")]
    pub(crate) manifest_hash: ManifestHash,
    /// Chunk size in KiB, 4-65536 [default: the server's, or 1024]
    #[arg(long, value_name = "N", value_parser = parse_chunk_kb)]
    pub(crate) chunk_kb: Option<u32>,
    /// Allow the server to compress [default; does nothing for a local source]
    #[arg(short = 'z', long, overrides_with = "no_compress")]
    pub(crate) compress: bool,
    /// Do not use compression
    #[arg(long, overrides_with_all = ["compress", "compress_level"])]
    pub(crate) no_compress: bool,
    /// Compress a local source with this zstd level, 1-19 [default: not compressed]
    #[arg(long, value_name = "N", overrides_with = "no_compress")]
    #[arg(value_parser = parse_level)]
    pub(crate) compress_level: Option<i32>,
    /// How bodies are received; for measurements
    #[arg(long, value_enum, default_value = "auto", hide = true)]
    pub(crate) receive_path: ReceivePath,
}

/// What is changed at the destination. Options that delete are not taken from the environment, where they
/// could be forgotten: they have to be typed.
#[derive(Debug, Args)]
#[command(next_help_heading = "Changes")]
pub(crate) struct ChangeOptions {
    /// Show what would be done and change nothing
    #[arg(short = 'n', long)]
    pub(crate) dry_run: bool,
    /// Print a line for each change, in the format of rsync
    #[arg(short, long)]
    pub(crate) itemize_changes: bool,
    /// Delete what the source does not have, once the whole source was listed without an error
    #[arg(long)]
    pub(crate) delete: bool,
    /// Delete what filter rules leave out as well; implies --delete
    #[arg(long)]
    pub(crate) delete_excluded: bool,
    /// Delete nothing if more than N entries, or N% of those present, would be deleted
    #[arg(long, value_name = "N[%]", value_parser = parse_max_delete)]
    pub(crate) max_delete: Option<MaxDelete>,
    /// Delete even if the source is empty
    #[arg(long)]
    pub(crate) force_empty: bool,
    /// Move what is deleted or replaced to DIR; a relative DIR is below the destination
    #[arg(long, value_name = "DIR")]
    pub(crate) backup_dir: Option<PathBuf>,
}

impl ChangeOptions {
    /// Options that mean nothing without another.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        match (self.delete || self.delete_excluded, self.max_delete, self.force_empty) {
            (false, Some(_), _) => Err("--max-delete needs --delete"),
            (false, None, true) => Err("--force-empty needs --delete"),
            _ => Ok(()),
        }
    }

    /// Where rules are evaluated that do not say.
    pub(crate) fn unqualified(&self) -> Unqualified {
        if self.delete_excluded { Unqualified::SenderAlone } else { Unqualified::BothEnds }
    }

    /// What they mean for deletion.
    pub(crate) fn deletion(&self) -> Option<Deletion> {
        let empty_source = if self.force_empty { EmptySource::Deletes } else { EmptySource::Refused };
        (self.delete || self.delete_excluded).then_some(Deletion { max: self.max_delete, empty_source })
    }
}

/// Which files are copied by their sizes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Selection")]
pub(crate) struct SizeOptions {
    /// Leave files alone that are larger, in bytes or with K, M, G or T; +1 or -1 behind it is a byte more or less
    #[arg(long, value_name = "SIZE", value_parser = parse_size_limit)]
    pub(crate) max_size: Option<u64>,
    /// Leave files alone that are smaller
    #[arg(long, value_name = "SIZE", value_parser = parse_size_limit)]
    pub(crate) min_size: Option<u64>,
}

impl SizeOptions {
    pub(crate) fn limits(&self) -> SizeLimits {
        SizeLimits { min: self.min_size, max: self.max_size }
    }
}

/// How a client reports.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputOptions {
    /// Print events as JSON lines to stdout; the last is the summary
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) log: LogOptions,
}

/// What a server lets clients take.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitOptions {
    /// Connections at a time; fewer where ulimit allows fewer
    #[arg(long, value_name = "N", default_value_t = CONNECTIONS_TOTAL_MAX, value_parser = parse_at_least_two)]
    pub(crate) max_connections: usize,
    /// Connections of one address at a time [default: half of --max-connections]
    #[arg(long, value_name = "N", value_parser = parse_at_least_two)]
    pub(crate) max_connections_per_address: Option<usize>,
    /// Wrong tokens that one address may try within a minute
    #[arg(long, value_name = "N", default_value_t = WRONG_TOKENS_MAX, value_parser = parse_count)]
    pub(crate) max_wrong_tokens: u32,
    /// End connections that have not said what they want within this time
    #[arg(long, value_name = "SECONDS", default_value_t = HANDSHAKE_TIMEOUT.as_secs(), value_parser = parse_some_seconds)]
    pub(crate) handshake_timeout: u64,
    /// End sessions that have used nothing for this long, where others need room
    #[arg(long, value_name = "SECONDS", default_value_t = IDLE_MAX.as_secs(), value_parser = parse_some_seconds)]
    pub(crate) idle_timeout: u64,
    /// Memory for listings that clients have not read yet, of all clients together, in bytes or with K, M or G
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = parse_memory)]
    pub(crate) offer_memory: usize,
    /// Checksums of large files that are computed at a time
    #[arg(long, value_name = "N", default_value_t = SUMS_MAX as u32, value_parser = parse_count)]
    pub(crate) max_sums: u32,
}

impl LimitOptions {
    /// Connections of one address.
    pub(crate) fn per_address(&self) -> usize {
        self.max_connections_per_address.unwrap_or((self.max_connections / 2).max(2))
    }
}

/// Options of both programs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct LogOptions {
    /// List copied files and log more to stderr; repeat for more
    #[arg(short, long, action = ArgAction::Count, overrides_with = "quiet")]
    pub(crate) verbose: u8,
    /// Print errors only
    #[arg(short, long, overrides_with = "verbose")]
    pub(crate) quiet: bool,
    /// Format of log lines
    #[arg(long, value_enum, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn parse_connections(text: &str) -> Result<Connections, &'static str> {
    match text.parse() {
        _ if text == "auto" => Ok(Connections::Auto),
        Ok(count @ 1..=CONNECTIONS_MAX) => Ok(Connections::Fixed(count)),
        _ => Err("expected a number from 1 to 64, or auto"),
    }
}

/// For a server: `auto`, which an environment that it shares with clients may say, leaves the number to them.
pub(super) fn parse_connections_max(text: &str) -> Result<u16, &'static str> {
    match parse_connections(text) {
        Ok(Connections::Auto) => Ok(CONNECTIONS_MAX),
        Ok(Connections::Fixed(count)) => Ok(count),
        Err(_) => Err("expected a number from 1 to 64"),
    }
}

fn parse_max_delete(text: &str) -> Result<MaxDelete, &'static str> {
    match text.strip_suffix('%') {
        Some(percent) => match percent.parse() {
            Ok(percent @ 0..=100) => Ok(MaxDelete::Percent(percent)),
            _ => Err("expected a percentage from 0% to 100%"),
        },
        None => text.parse().map(MaxDelete::Entries).map_err(|_| "expected a number of entries, or N%"),
    }
}

fn parse_bits(text: &str) -> Result<u32, &'static str> {
    let bits = match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16),
        None => text.parse(),
    };
    bits.map_err(|_| "expected a number")
}

/// Why a number is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a number from {first} to {last}")]
pub(super) struct NotBetween {
    first: i64,
    last: i64,
}

fn parse_between<T: std::str::FromStr>(text: &str, numbers: RangeInclusive<i64>) -> Result<T, NotBetween> {
    let is_between = text.parse().is_ok_and(|number: i64| numbers.contains(&number));
    let not_between = NotBetween { first: *numbers.start(), last: *numbers.end() };
    text.parse().ok().filter(|_| is_between).ok_or(not_between)
}

pub(super) fn parse_chunk_kb(text: &str) -> Result<u32, NotBetween> {
    parse_between(text, 4..=65536)
}

pub(super) fn parse_level(text: &str) -> Result<i32, NotBetween> {
    parse_between(text, 1..=19)
}

pub(super) fn parse_port(text: &str) -> Result<u16, NotBetween> {
    parse_between(text, 1..=65535)
}

pub(super) fn parse_port_to_listen_on(text: &str) -> Result<u16, NotBetween> {
    parse_between(text, 0..=65535)
}

/// A number of bytes; K, M, G and T are powers of 1024, as rsync has them.
pub(super) fn parse_size(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "expected a number of bytes, or one with K, M, G or T";
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_uppercase().trim_end_matches('B') {
        "" => 0,
        "K" | "KI" => 10,
        "M" | "MI" => 20,
        "G" | "GI" => 30,
        "T" | "TI" => 40,
        _ => return Err(EXPECTED),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).ok_or(EXPECTED)
}

/// A size, as rsync takes it for limits: letters with a B behind them are powers of 1000, and a byte may be added or taken off.
fn parse_size_limit(text: &str) -> Result<u64, &'static str> {
    const EXPECTED: &str = "expected a number of bytes, or one with K, M, G or T";
    let (number, more) = match (text.strip_suffix("+1"), text.strip_suffix("-1")) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, -1),
        (None, None) => (text, 0),
    };
    let digits = number.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let letters = number[digits.len()..].to_ascii_uppercase();
    let (power, base) = match &letters[..] {
        "" | "B" => (0, 1024),
        letters => {
            let power = "KMGTP".find(&letters[..1]).ok_or(EXPECTED)? as u32 + 1;
            match &letters[1..] {
                "" | "I" | "IB" => (power, 1024),
                "B" => (power, 1000),
                _ => return Err(EXPECTED),
            }
        }
    };
    let unit = u64::pow(base, power);
    // A fraction, such as 1.5K.
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: u64 = if whole.is_empty() && !fraction.is_empty() { 0 } else { whole.parse().map_err(|_| EXPECTED)? };
    let mut bytes = whole.checked_mul(unit).ok_or(EXPECTED)?;
    if !fraction.is_empty() {
        let part: f64 = format!("0.{fraction}").parse().map_err(|_| EXPECTED)?;
        bytes = bytes.checked_add((part * unit as f64) as u64).ok_or(EXPECTED)?;
    }
    bytes.checked_add_signed(more).ok_or(EXPECTED)
}

fn parse_at_least_two(text: &str) -> Result<usize, NotBetween> {
    parse_between(text, 2..=1_000_000)
}

fn parse_count(text: &str) -> Result<u32, NotBetween> {
    parse_between(text, 1..=1_000_000)
}

fn parse_some_seconds(text: &str) -> Result<u64, NotBetween> {
    parse_between(text, 1..=86_400)
}

fn parse_memory(text: &str) -> Result<usize, &'static str> {
    parse_size(text).and_then(|bytes| usize::try_from(bytes).map_err(|_| "expected less"))
}

fn parse_seconds(text: &str) -> Result<u64, &'static str> {
    text.parse().map_err(|_| "expected a number of seconds")
}
