//! What may be typed. Meaning comes later.
//!
//! Each command has a struct of its own with the options that do something there; `parse` knows the order
//! of precedence. Where an option is repeated, or one contradicts another, the last wins.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Args, CommandFactory, Parser, Subcommand};
use fastcp_engine::Compression;

use crate::args::filters::FilterOptions;
use crate::args::options::{
    ChangeOptions, CopyOptions, LimitOptions, LinkOptions, LogOptions, OutputOptions, RetryOption, SandboxOptions,
    ShellOptions, SizeOptions, TrustOptions, parse_chunk_kb, parse_connections_max, parse_level, parse_port,
    parse_port_to_listen_on, parse_size,
};
use crate::from::{directory_to_verify, local_directory};

mod environment;
pub(crate) mod filters;
mod idle;
mod mistaken;
mod negations;
pub(crate) mod options;
mod parse;
mod rsync;
#[cfg(test)]
mod tests;

pub(crate) use parse::parse;

/// Copy directory trees between Linux machines over parallel TCP connections.
///
/// A copy can be interrupted and run again at any time: it fetches what is missing or changed, and a file gets
/// its name only when it is complete and verified. Without a command, fastcp-client copies all that a
/// server serves.
#[derive(Debug, Parser)]
#[command(name = "fastcp-client", version, args_override_self = true)]
#[command(subcommand_negates_reqs = true, args_conflicts_with_subcommands = true)]
// Errors show this; the help shows the usage of all commands.
#[command(override_usage = "fastcp-client pull [OPTIONS] <FROM>... <DST_DIR>\n       \
    fastcp-client [OPTIONS] <DST_DIR> <HOST> <PORT>")]
#[command(help_template = HELP_TEMPLATE, after_help = AFTER_HELP)]
pub(crate) struct ClientArgs {
    #[command(subcommand)]
    pub(crate) command: Option<ClientCommand>,
    /// Directory to copy to; it is created if it does not exist
    #[arg(required = true)]
    #[arg(value_parser = PathBufValueParser::new().try_map(local_directory))]
    pub(crate) dst_dir: Option<PathBuf>,
    /// Name or address of the server
    #[arg(required = true)]
    pub(crate) host: Option<String>,
    /// Port of the server
    #[arg(required = true, value_parser = parse_port)]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) options: PullOptions,
}

const HELP_TEMPLATE: &str = "\
{before-help}{about-with-newline}
{usage-heading} fastcp-client [OPTIONS] <DST_DIR> <HOST> <PORT>
       fastcp-client pull [OPTIONS] <FROM>... <DST_DIR>
       fastcp-client push [OPTIONS] <SRC>... <TO>
       fastcp-client verify [OPTIONS] <DIR> <FROM>
       fastcp-client verify [OPTIONS] --manifest <FILE> <DIR>
       fastcp-client ls [OPTIONS] <FROM>
       fastcp-client get [OPTIONS] <HOST> <PORT> <PATH> [OUT]
       fastcp-client get [OPTIONS] <fcp://HOST[:PORT]/PATH> [OUT]
       fastcp-client drop [OPTIONS] <FILE>... <HOST> <PORT>

{all-args}{after-help}";

const AFTER_HELP: &str = "\
Every option but -v, those that delete (--delete, --delete-excluded, --max-delete, --force-empty) and those with filter rules can also be set by an environment variable: \
FASTCP_CONNS=8 is --conns 8, FASTCP_DRY_RUN=1 is --dry-run. The command line has precedence. \
--no-NAME turns the option --NAME off again.

Exit codes are those of rsync; 0 is success, 23 means that some files could not be copied.";

/// The commands of the client.
#[derive(Debug, Subcommand)]
pub(crate) enum ClientCommand {
    /// Copy a tree from a server or a local directory: FROM/ copies the contents, FROM the directory itself
    #[command(visible_aliases = ["download", "down"])]
    Pull(Box<PullArgs>),
    /// Copy a tree or a file to a server that was started with --allow-write: SRC/ copies the contents, SRC the
    /// directory itself
    #[command(visible_aliases = ["upload", "up"])]
    Push(Box<PushArgs>),
    /// Compare a directory with a source or a manifest; list the differences and change nothing
    Verify(VerifyArgs),
    /// List what is in a directory of a server, or here
    Ls(LsArgs),
    /// Hand files to any server that takes header-batched drops, such as fastcp-server --inbox
    Drop(DropArgs),
    /// Copy one file from any server that speaks FTQ1
    Get(GetArgs),
}

/// `pull`.
#[derive(Debug, Args)]
#[command(override_usage = "fastcp-client pull [OPTIONS] <FROM>... <DST_DIR>")]
pub(crate) struct PullArgs {
    /// fcp://HOST[:PORT][/PATH], [USER@]HOST:PATH, or local files and directories; of what several have, the first counts
    #[arg(required = true, num_args = 1..)]
    pub(crate) from: Vec<OsString>,
    /// Directory to copy to; it is created if it does not exist
    #[arg(value_parser = PathBufValueParser::new().try_map(local_directory))]
    pub(crate) dst_dir: PathBuf,
    #[command(flatten)]
    pub(crate) options: PullOptions,
}

/// Options of a copy.
#[derive(Debug, Args)]
pub(crate) struct PullOptions {
    /// Another server of the same tree, to fetch from as well; may be repeated
    #[arg(long, value_name = "HOST[:PORT]", help_heading = "Connection")]
    pub(crate) also: Vec<String>,
    #[command(flatten)]
    pub(crate) trust: TrustOptions,
    #[command(flatten)]
    pub(crate) sandbox: SandboxOptions,
    #[command(flatten)]
    pub(crate) shell: ShellOptions,
    #[command(flatten)]
    pub(crate) filters: FilterOptions,
    #[command(flatten)]
    pub(crate) sizes: SizeOptions,
    #[command(flatten)]
    pub(crate) changes: ChangeOptions,
    #[command(flatten)]
    pub(crate) copy: CopyOptions,
    #[command(flatten)]
    pub(crate) link: LinkOptions,
    #[command(flatten)]
    pub(crate) output: OutputOptions,
}

/// `push`.
#[derive(Debug, Args)]
#[command(override_usage = "fastcp-client push [OPTIONS] <SRC>... <TO>")]
pub(crate) struct PushArgs {
    /// Directories and files to copy; of what several have, the first counts
    #[arg(required = true, num_args = 1..)]
    pub(crate) src: Vec<OsString>,
    /// Where to copy it: fcp://HOST[:PORT][/PATH], below the root of the server, [USER@]HOST:PATH, or a local directory
    pub(crate) to: OsString,
    #[command(flatten)]
    pub(crate) options: PullOptions,
}

/// `verify`.
#[derive(Debug, Args)]
#[command(override_usage = "fastcp-client verify [OPTIONS] <DIR> <FROM>\n       \
    fastcp-client verify [OPTIONS] --manifest <FILE> <DIR>")]
pub(crate) struct VerifyArgs {
    /// Directory to verify
    #[arg(value_name = "DIR", value_parser = PathBufValueParser::new().try_map(directory_to_verify))]
    pub(crate) dir: PathBuf,
    /// What to compare it with, as for pull
    #[arg(required_unless_present = "manifest")]
    pub(crate) from: Option<OsString>,
    /// Compare with the records of this manifest instead of a source
    #[arg(long, value_name = "FILE", conflicts_with_all = ["from", "conns", "retry"])]
    pub(crate) manifest: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) trust: TrustOptions,
    #[command(flatten)]
    pub(crate) shell: ShellOptions,
    #[command(flatten)]
    pub(crate) filters: FilterOptions,
    #[command(flatten)]
    pub(crate) link: LinkOptions,
    #[command(flatten)]
    pub(crate) output: OutputOptions,
}

/// `ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// fcp://HOST[:PORT][/PATH], [USER@]HOST:PATH, or a local path. The last component may be a pattern with *, ? and [...]
    pub(crate) from: OsString,
    /// Print permissions, size and modification time as well
    #[arg(short = 'l', long)]
    pub(crate) long: bool,
    /// List all that is below
    #[arg(short = 'R', long)]
    pub(crate) recursive: bool,
    #[command(flatten)]
    pub(crate) filters: FilterOptions,
    #[command(flatten)]
    pub(crate) trust: TrustOptions,
    #[command(flatten)]
    pub(crate) shell: ShellOptions,
    #[command(flatten)]
    pub(crate) retry: RetryOption,
    #[command(flatten)]
    pub(crate) output: OutputOptions,
}

/// `drop`.
#[derive(Debug, Args)]
#[command(override_usage = "fastcp-client drop [OPTIONS] <FILE>... <HOST> <PORT>")]
pub(crate) struct DropArgs {
    /// Files to hand over, then name or address of the server and its port
    #[arg(required = true, num_args = 3.., value_names = ["FILE", "HOST", "PORT"])]
    pub(crate) words: Vec<OsString>,
    /// Files that are handed over at a time, 1-64
    #[arg(long, value_name = "N", default_value = "4", value_parser = parse_connections_max)]
    pub(crate) conns: u16,
    #[command(flatten)]
    pub(crate) trust: TrustOptions,
    #[command(flatten)]
    pub(crate) output: OutputOptions,
}

/// `get`.
#[derive(Debug, Args)]
#[command(override_usage = "fastcp-client get [OPTIONS] <HOST> <PORT> <PATH> [OUT]\n       \
    fastcp-client get [OPTIONS] <fcp://HOST[:PORT]/PATH> [OUT]")]
pub(crate) struct GetArgs {
    /// Name or address of the server, its port and the path of the file below its root, or
    /// fcp://HOST[:PORT]/PATH; then the file or directory to copy to, or - for standard output [default: the
    /// file's own name, in the current directory]
    #[arg(required = true, num_args = 1..=4, value_names = ["HOST", "PORT", "PATH", "OUT"])]
    pub(crate) words: Vec<OsString>,
    /// Fail if the server does not give a CRC-32
    #[arg(long)]
    pub(crate) require_crc: bool,
    #[command(flatten)]
    pub(crate) trust: TrustOptions,
    #[command(flatten)]
    pub(crate) sandbox: SandboxOptions,
    #[command(flatten)]
    pub(crate) retry: RetryOption,
    #[command(flatten)]
    pub(crate) output: OutputOptions,
}

/// Serve a directory to fastcp clients and to any program that speaks FTQ1
#[derive(Debug, Parser)]
#[command(name = "fastcp-server", version, args_override_self = true, after_help = SERVER_AFTER_HELP)]
#[command(override_usage = "fastcp-server [OPTIONS] <SRC_DIR> [ADDRESS] [PORT]")]
pub(crate) struct ServerArgs {
    /// Directory to serve
    #[arg(required_unless_present = "session")]
    pub(crate) src_dir: Option<PathBuf>,
    /// Serve one client over standard input and output; for remote shells
    #[arg(long, hide = true)]
    pub(crate) session: bool,
    /// Where to listen: HOST, HOST:PORT, :PORT or PORT; without HOST, on 127.0.0.1
    #[arg(value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) host: String,
    /// Port to listen on; 0 chooses a free one [default: 9999]
    #[arg(value_parser = parse_port_to_listen_on)]
    pub(crate) port: Option<u16>,
    /// Data connections that one client may open, 1-64
    #[arg(long, value_name = "N", default_value = "64", value_parser = parse_connections_max)]
    pub(crate) conns: u16,
    /// Chunk size in KiB for clients that do not choose one, 4-65536
    #[arg(long, value_name = "N", value_parser = parse_chunk_kb)]
    pub(crate) chunk_kb: Option<u32>,
    /// Never compress
    #[arg(long, overrides_with = "compress_level")]
    pub(crate) no_compress: bool,
    /// Compress with this zstd level, 1-19 [default: adapted to the connection]
    #[arg(long, value_name = "N", value_parser = parse_level)]
    #[arg(overrides_with = "no_compress")]
    pub(crate) compress_level: Option<i32>,
    /// File with tokens, one on each line: clients have to prove that they know one. FASTCP_TOKEN may have a token itself
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) token_file: Option<PathBuf>,
    /// Private key in PEM; it is made if the file does not exist [default: server.key in the configuration directory]
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Certificates of that key in PEM, for clients with --tls-ca, instead of the bare key
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Take only clients that show a certificate from an authority in this PEM file
    #[arg(long, value_name = "FILE", help_heading = "Security")]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Listen on an address other than loopback without asking who connects: on a trusted network
    #[arg(long, help_heading = "Security")]
    pub(crate) insecure: bool,
    /// Do not have the kernel refuse what lies outside the directories that are served and written to
    #[arg(long, help_heading = "Security")]
    pub(crate) no_sandbox: bool,
    /// Take files from clients that push. Nothing is deleted for them, but files and links are replaced
    #[arg(long)]
    pub(crate) allow_write: bool,
    /// Let clients that push delete what their source does not have
    #[arg(long)]
    pub(crate) allow_delete: bool,
    /// Let clients that push bring files that run with the rights of their owner (setuid, setgid)
    #[arg(long)]
    pub(crate) allow_setuid: bool,
    /// Take files that scripts hand over as header-batched drops, and keep them in this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) inbox: Option<PathBuf>,
    /// Size of the largest file that is taken, in bytes or with K, M, G or T [default: 1T]
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    pub(crate) inbox_max: Option<u64>,
    /// Answer plain FTQ1 requests with a CRC of 0, for programs that compute theirs wrongly
    #[arg(long)]
    pub(crate) ftq1_no_crc: bool,
    #[command(flatten)]
    pub(crate) limits: LimitOptions,
    #[command(flatten)]
    pub(crate) log: LogOptions,
}

const SERVER_AFTER_HELP: &str = "\
Every option but -v can also be set by an environment variable: FASTCP_CHUNK_KB=256 is --chunk-kb 256, \
FASTCP_INSECURE=1 is --insecure. The command line has precedence.";

/// The client's commands and options.
pub(crate) fn client() -> clap::Command {
    let command = rsync::with_always_on(ClientArgs::command()).mut_subcommand("pull", rsync::with_always_on);
    // What is sent comes from here alone.
    let command =
        command.mut_subcommand("push", |push| rsync::with_always_on(push).mut_arg("also", |also| also.hide(true)));
    let command = command.mut_subcommand("verify", |verify| log_only(rsync::with_always_compared(verify)));
    negations::with_negations(
        command.mut_subcommand("get", log_only).mut_subcommand("ls", log_only).mut_subcommand("drop", log_only),
    )
}

/// The server's options.
pub(crate) fn server() -> clap::Command {
    negations::with_negations(log_only(ServerArgs::command()))
}

/// Says what `-v` does where no copied files are listed.
fn log_only(command: clap::Command) -> clap::Command {
    command.mut_arg("verbose", |arg| arg.help("Log more to stderr; repeat for more"))
}

/// A warning for each variable that looks like one of fastcp and is none. Both programs know the variables of each
/// other: they may share an environment.
pub(crate) fn mistaken_variables(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let named = variables.filter(|(_, value)| !value.is_empty()).filter_map(|(name, _)| name.into_string().ok());
    #[cfg(feature = "counts")]
    let named = named.filter(|name| name != crate::counts::VARIABLE);
    let named = named.filter(|name| name != crate::secrets::VARIABLE);
    let named: Vec<String> = named.filter(|name| name.starts_with("FASTCP_")).collect();
    if named.is_empty() {
        return Vec::new();
    }
    let client = client();
    let commands: Vec<_> = client.get_subcommands().cloned().chain([client.clone(), server()]).collect();
    named.iter().filter_map(|name| environment::mistake(&commands, name)).collect()
}

/// What the two options about compression mean together.
pub(crate) fn compression(off: bool, level: Option<i32>) -> Compression {
    match (off, level) {
        (true, _) => Compression::Off,
        (false, Some(level)) => Compression::Level(level),
        (false, None) => Compression::Adaptive,
    }
}
