//! `fastcp-client`: from arguments to an exit code.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use fastcp_engine::{
    Delta, Durability, GetError, GetOutput, GetSettings, Interrupt, Itemize, Limits, ManifestFile, ManifestHash,
    Placement, PlainCrc, ReceivePath, ReceiverSettings, Report, STACK_BYTES, Server, ServerSettings, Source,
    VerifyOver,
};
use fastcp_model::{Capabilities, Escaped, RelPath, Status};
use fastcp_net::{Dialer, Endpoint, HANDSHAKE_TIMEOUT};
use fastcp_wire::limits::CONNECTIONS_MAX;
use fastcp_wire::offer::Scope;

use crate::address::Address;
use crate::args::options::{DurabilityArg, LinkOptions, ManifestHashArg, OutputOptions, ReceivePathArg, VerifyArg};
use crate::args::{self, ClientArgs, ClientCommand, GetArgs, PullOptions, compression};
use crate::from::From;
use crate::output::{Format, Listing, Output, Summary, complain};
use crate::progress::Course;
use crate::progress::screen::{AboveScreen, Screen};
use crate::signals::Heard;
use crate::{exit_code, logging, overlap, progress, signals, usage, verify};

/// Events that may wait to be printed; then the run waits for whoever reads them.
pub(crate) const EVENTS_AHEAD: usize = 4096;

/// Parses the process's arguments, runs, and answers how it ended.
pub fn main() -> ExitCode {
    exit_code::exit_when_out_of_memory();
    let words = std::env::args_os().collect();
    let args: ClientArgs = match args::parse(args::client(), words, |name| std::env::var_os(name)) {
        Ok(args) => args,
        Err(error) => return exit_code::exit(usage::print("fastcp-client", &error)),
    };
    let screen = Arc::new(Screen::default());
    let log_lines = AboveScreen(Arc::clone(&screen));
    logging::start_for_client(&args.output().log, move || log_lines.clone());
    args::mistaken_variables(std::env::vars_os()).iter().for_each(|mistake| tracing::warn!("{mistake}"));
    // Before the first thread: signals are blocked in all of them.
    let interrupt = Arc::new(Interrupt::default());
    let (asked, drawn) = (Arc::clone(&interrupt), Arc::clone(&screen));
    let end = move || if asked.ask() { Heard::Yes } else { Heard::No };
    let at_once = move || {
        drawn.end_now();
        complain("fastcp-client: interrupted");
    };
    if let Err(error) = fastcp_engine::ignore_file_size_signal().and_then(|()| signals::on_signal(end, at_once)) {
        tracing::debug!(%error, "cannot handle signals");
    }
    let output = Output::new(format(args.output()), &screen);
    exit_code::exit(match run(args, &interrupt, &screen) {
        Ok(code) => code,
        Err(failure) => {
            output.error(&failure.message, failure.code);
            failure.code
        }
    })
}

/// Starts the threads that scan, plan and hash.
pub(crate) fn start_pool() -> Result<(), Failure> {
    let cannot_start = |error| Failure::new(exit_code::RESOURCES, format!("cannot start a thread: {error}"));
    fastcp_engine::start_pool(&Limits::of_process()).map_err(cannot_start)
}

/// A run that could not start.
pub(crate) struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    pub(crate) fn new(code: u8, message: impl ToString) -> Self {
        Self { code, message: message.to_string() }
    }
}

impl ClientArgs {
    /// The options that every command has.
    fn output(&self) -> &OutputOptions {
        match &self.command {
            None => &self.options.output,
            Some(ClientCommand::Pull(args)) => &args.options.output,
            Some(ClientCommand::Verify(args)) => &args.output,
            Some(ClientCommand::Get(args)) => &args.output,
        }
    }
}

fn run(args: ClientArgs, interrupt: &Interrupt, screen: &Arc<Screen>) -> Result<u8, Failure> {
    match (args.command, args.dst_dir, args.host, args.port) {
        (Some(ClientCommand::Pull(pulled)), ..) => {
            let from = From::parse(&pulled.from).map_err(|error| Failure::new(exit_code::USAGE, error))?;
            pull(from, &pulled.dst_dir, &pulled.options, interrupt, screen)
        }
        (Some(ClientCommand::Get(args)), ..) => get(args, screen),
        (Some(ClientCommand::Verify(args)), ..) => verify::verify(&args, screen),
        (None, Some(dst_dir), Some(host), Some(port)) => {
            let (host, port) = server_at(&host, port)?;
            let from = From::Server { host, port, path: RelPath::root(), scope: Scope::Contents };
            pull(from, &dst_dir, &args.options, interrupt, screen)
        }
        _ => Err(Failure::new(exit_code::USAGE, "expected <DST_DIR> <HOST> <PORT>, or a command; see --help")),
    }
}

/// The server at a host and a port that were typed apart.
fn server_at(host: &str, port: u16) -> Result<(String, u16), Failure> {
    let usage = |error: &dyn std::fmt::Display| {
        Failure::new(exit_code::USAGE, format!("\"{}\": {error}", Escaped(host.as_bytes())))
    };
    match Address::to_dial(host).map_err(|error| usage(&error))? {
        Address { port: Some(_), .. } => Err(usage(&"the port is given twice")),
        Address { host, port: None } => Ok((host, port)),
    }
}

fn pull(
    from: From,
    dst_dir: &Path,
    options: &PullOptions,
    interrupt: &Interrupt,
    screen: &Arc<Screen>,
) -> Result<u8, Failure> {
    options.changes.check().map_err(|message| Failure::new(exit_code::USAGE, message))?;
    let (endpoint, path, scope) = match from {
        From::Server { host, port, path, scope } => (Endpoint::Tcp { host, port }, path, scope),
        From::Local { root, path, scope } => {
            check_overlap(&root, &path, dst_dir)?;
            if options.copy.compress && options.copy.compress_level.is_none() {
                tracing::warn!("-z does nothing for a local source; --compress-level N compresses");
            }
            (embedded(&root, options.copy.compress_level)?, path, scope)
        }
    };
    let from = match endpoint {
        Endpoint::Embedded(_) => Nearness::Here,
        Endpoint::Tcp { .. } => Nearness::Elsewhere,
    };
    let manifest = if options.changes.dry_run { None } else { manifest_to_write(options, dst_dir)? };
    start_pool()?;
    let settings = receiver_settings(options, from, manifest);
    let course = match settings.verify {
        VerifyOver::Received if settings.manifest.is_none() => Course::Copy,
        VerifyOver::Received | VerifyOver::Written | VerifyOver::Disk => Course::CopyAndReadBack,
    };
    let output = Output { listing: listing(options), ..Output::new(format(&options.output), screen) };
    Ok(run_reported(endpoint, &output, course, |dialer, report| {
        let result = match options.changes.dry_run {
            true => fastcp_engine::preview(dialer, &path, scope, dst_dir, &settings, report),
            false => fastcp_engine::pull(dialer, &path, scope, dst_dir, &settings, interrupt, report),
        };
        match result {
            Ok(()) => (exit_code::of_report(report), None),
            Err(error) => (exit_code::of_run_error(&error), Some(with_advice(&error, dst_dir, report))),
        }
    }))
}

/// An error with advice on what to do next.
fn with_advice(error: &fastcp_engine::RunError, dst_dir: &Path, report: &Report) -> String {
    use fastcp_engine::RunError;
    let kept = format!("complete files are in place in \"{}\"", shown(dst_dir));
    match error {
        RunError::Source { .. }
        | RunError::TooLittle(_)
        | RunError::NoDestination { .. }
        | RunError::NotVerifiable { .. }
        | RunError::Backup { .. }
        | RunError::Locked { .. } => error.to_string(),
        // Nothing was done that could be resumed.
        RunError::Interrupted | RunError::NoAnswer { .. } | RunError::Net { .. } | RunError::Manifest(_)
            if report.counters.entries.now() == 0 =>
        {
            error.to_string()
        }
        RunError::Interrupted => format!("{error}; {kept}, run the command again to fetch the rest"),
        RunError::Manifest(_) => {
            format!("{error}; {kept}, but a rerun does not add those that are missing in the manifest")
        }
        RunError::NoAnswer { .. } => format!("{error}; run the command again to resume"),
        RunError::Exhausted { .. } | RunError::Net { .. } => {
            format!("{error}; {kept}, run the command again to fetch the rest")
        }
        RunError::Destination { .. } => {
            format!("{error}; {kept}, part files are kept; fix the problem and run the command again")
        }
    }
}

fn shown(path: &Path) -> String {
    Escaped(path.as_os_str().as_bytes()).to_string()
}

/// Runs with progress shown beside it, and says the summary.
fn run_reported(
    endpoint: Endpoint,
    output: &Output,
    course: Course,
    work: impl FnOnce(&Dialer, &Report) -> (u8, Option<String>),
) -> u8 {
    let start = Instant::now();
    let (sender, events) = sync_channel(EVENTS_AHEAD);
    let report = Report::new(sender);
    let dialer = Dialer::new(endpoint, Arc::clone(&report.wire));
    let (code, error) = std::thread::scope(|threads| {
        let shared = &report;
        let display = std::thread::Builder::new().name("progress".to_owned());
        let shown = display.spawn_scoped(threads, move || progress::show(shared, &events, output, course));
        let result = {
            let _closing = Closing(&report);
            match &shown {
                Ok(_) => work(&dialer, &report),
                Err(error) => (exit_code::RESOURCES, Some(format!("cannot start a thread: {error}"))),
            }
        };
        // A panic in the display has been printed; the copy itself is what counts.
        drop(shown.map(ScopedJoinHandle::join));
        result
    });
    match error {
        Some(error) if code != exit_code::DONE => output.error(&error, code),
        Some(warning) => output.warning(&warning),
        None => {}
    }
    let code = output.stdout.exit_code(code);
    output.summary(&Summary::new(&report, start.elapsed(), report.limited_by(), code));
    output.stdout.exit_code(code)
}

/// However the work ends, be it by a panic, the display comes to its end: nobody waits for it in vain.
pub(crate) struct Closing<'a>(pub(crate) &'a Report);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

pub(crate) fn format(options: &OutputOptions) -> Format {
    match (options.json, options.log.quiet) {
        (true, _) => Format::Json,
        (false, true) => Format::Quiet,
        (false, false) => Format::Text,
    }
}

fn listing(options: &PullOptions) -> Listing {
    match (options.changes.itemize_changes, options.output.log.verbose) {
        (true, _) => Listing::Changes,
        (false, 0) => Listing::None,
        (false, _) => Listing::Names,
    }
}

/// Settings of a receiver that is given no options but those of the connection.
pub(crate) fn settings_of_link(link: &LinkOptions) -> ReceiverSettings {
    ReceiverSettings {
        capabilities: Capabilities::SUPPORTED.difference(Capabilities::from_bits_truncate(link.without)),
        connections: link.conns,
        chunk_kb: None,
        retry: Duration::from_secs(link.retry.retry),
        receive_path: ReceivePath::Auto,
        durability: Durability::Batch,
        delta: Delta::Unused,
        placement: Placement::PartFile,
        verify: VerifyOver::Received,
        manifest: None,
        limits: Limits::of_process(),
        deletion: None,
        backup_dir: None,
        itemize: Itemize::No,
    }
}

fn receiver_settings(options: &PullOptions, from: Nearness, manifest: Option<ManifestFile>) -> ReceiverSettings {
    let PullOptions { copy, changes, link, output } = options;
    let settings = settings_of_link(link);
    let unwanted = if copy.no_compress { Capabilities::COMPRESS } else { Capabilities::empty() };
    ReceiverSettings {
        capabilities: settings.capabilities.difference(unwanted),
        chunk_kb: copy.chunk_kb,
        receive_path: match copy.receive_path {
            ReceivePathArg::Auto => ReceivePath::Auto,
            ReceivePathArg::Copy => ReceivePath::Copy,
            ReceivePathArg::Splice => ReceivePath::Splice,
        },
        durability: match copy.durability {
            DurabilityArg::None => Durability::None,
            DurabilityArg::Batch => Durability::Batch,
            DurabilityArg::File => Durability::File,
        },
        delta: match (copy.whole_file, copy.no_whole_file, from) {
            (true, ..) | (false, false, Nearness::Here) => Delta::Unused,
            (false, true, _) | (false, false, Nearness::Elsewhere) => Delta::Used,
        },
        placement: if copy.inplace { Placement::InPlace } else { Placement::PartFile },
        verify: match copy.verify {
            VerifyArg::Received => VerifyOver::Received,
            VerifyArg::Written => VerifyOver::Written,
            VerifyArg::Disk => VerifyOver::Disk,
        },
        manifest,
        deletion: changes.deletion(),
        backup_dir: changes.backup_dir.clone(),
        itemize: match listing(options) {
            // With --json, events are asked for by name.
            Listing::Names if output.json => Itemize::No,
            Listing::None => Itemize::No,
            Listing::Names | Listing::Changes => Itemize::Changes,
        },
        ..settings
    }
}

/// Where the source is.
#[derive(Clone, Copy)]
pub(crate) enum Nearness {
    /// On this machine: reading the old version costs as much as reading the new one.
    Here,
    Elsewhere,
}

/// The manifest to append to. It must not lie where the run itself writes.
fn manifest_to_write(options: &PullOptions, dst_dir: &Path) -> Result<Option<ManifestFile>, Failure> {
    let Some(path) = &options.copy.manifest else { return Ok(None) };
    if overlap::is_inside(path, dst_dir) {
        let message = format!("the manifest \"{}\" must not be inside the destination", shown(path));
        return Err(Failure::new(exit_code::USAGE, message));
    }
    let hash = match options.copy.manifest_hash {
        ManifestHashArg::Blake3 => ManifestHash::Blake3,
        ManifestHashArg::Xxh3 => ManifestHash::Xxh3,
        ManifestHashArg::Sha256 => ManifestHash::Sha256,
    };
    Ok(Some(ManifestFile { path: path.clone(), hash }))
}

/// Refuses to copy a local tree into itself. A source that cannot be read is told when it is opened.
fn check_overlap(root: &Path, path: &RelPath, dst_dir: &Path) -> Result<(), Failure> {
    let name = OsStr::from_bytes(path.as_bytes());
    let (source, target) = if path.is_root() {
        (root.to_path_buf(), dst_dir.to_path_buf())
    } else {
        (root.join(name), dst_dir.join(name))
    };
    match overlap::between(&source, &target) {
        Some(overlap) => Err(Failure::new(
            exit_code::USAGE,
            format!("cannot copy \"{}\" to \"{}\": {overlap}", shown(&source), shown(&target)),
        )),
        None => Ok(()),
    }
}

/// A server within this process, one thread for each connection.
pub(crate) fn embedded(root: &Path, compress_level: Option<i32>) -> Result<Endpoint, Failure> {
    let source = Source::open(root).map_err(|error| {
        Failure::new(
            exit_code::of_io_error(&error, exit_code::NOTHING_USABLE),
            format!("cannot open the source \"{}\": {error}", shown(root)),
        )
    })?;
    let settings = ServerSettings {
        capabilities: Capabilities::SUPPORTED,
        connections: CONNECTIONS_MAX,
        // The client knows what there is for both.
        connections_total: usize::MAX,
        chunk_kb: None,
        // Both ends are here: there is no link that fewer bytes could be faster on.
        compression: compression(compress_level.is_none(), compress_level),
        plain_crc: PlainCrc::Given,
        handshake_timeout: HANDSHAKE_TIMEOUT,
    };
    let server = Arc::new(Server::new(source, settings));
    Ok(Endpoint::Embedded(Arc::new(move |stream| {
        let server = Arc::clone(&server);
        let thread = std::thread::Builder::new().name("serve".to_owned()).stack_size(STACK_BYTES);
        thread.spawn(move || server.serve(stream)).map(drop)
    })))
}

/// What `get` is to fetch, from where, and where to.
struct Wanted {
    endpoint: Endpoint,
    path: OsString,
    out: Option<PathBuf>,
}

/// HOST PORT PATH [OUT], or fcp://HOST[:PORT]/PATH [OUT].
fn wanted(words: &[OsString]) -> Result<Wanted, Failure> {
    let usage = |message: String| Failure::new(exit_code::USAGE, message);
    let is_url = |word: &OsString| word.as_bytes().get(..6).is_some_and(|six| six.eq_ignore_ascii_case(b"fcp://"));
    match words {
        [url] | [url, _] if is_url(url) => {
            let out = words.get(1).map(PathBuf::from);
            match From::parse(url).map_err(|error| usage(error.to_string()))? {
                From::Server { host, port, path, .. } => {
                    let path = OsString::from_vec(path.as_bytes().to_vec());
                    Ok(Wanted { endpoint: Endpoint::Tcp { host, port }, path, out })
                }
                From::Local { .. } => Err(usage("get fetches from a server".to_owned())),
            }
        }
        [host, port, path, rest @ ..] if rest.len() <= 1 => {
            let port = port.to_str().and_then(|port| port.parse().ok()).filter(|&port| port > 0);
            let port = port.ok_or_else(|| usage("PORT must be a number from 1 to 65535".to_owned()))?;
            let (host, port) = server_at(&host.to_string_lossy(), port)?;
            let out = rest.first().map(PathBuf::from);
            Ok(Wanted { endpoint: Endpoint::Tcp { host, port }, path: path.clone(), out })
        }
        _ => Err(usage("expected <HOST> <PORT> <PATH> [OUT], or fcp://HOST[:PORT]/PATH [OUT]".to_owned())),
    }
}

fn get(args: GetArgs, screen: &Arc<Screen>) -> Result<u8, Failure> {
    let Wanted { endpoint, path, out } = wanted(&args.words)?;
    let out = Out::of(&path, out)?;
    let settings = GetSettings { retry: Duration::from_secs(args.retry.retry), require_crc: args.require_crc };
    let path = path.into_vec();
    let format = match (&out, format(&args.output)) {
        (Out::File(_), format) => format,
        (Out::Stdout, Format::Json) => {
            return Err(Failure::new(
                exit_code::USAGE,
                "--json needs standard output for its events: give a file as OUT",
            ));
        }
        (Out::Stdout, _) => Format::Quiet,
    };
    // Not the buffered one, which looks for the ends of lines.
    let stdout = std::io::stdout().as_fd().try_clone_to_owned().map(File::from);
    let mut stdout =
        stdout.map_err(|error| Failure::new(exit_code::FILE_IO, format!("cannot use standard output: {error}")))?;
    let output = Output::new(format, screen);
    Ok(run_reported(endpoint, &output, Course::Get, |dialer, report| {
        let out = match (&out, &mut stdout) {
            (Out::File(path), _) => GetOutput::File(path),
            (Out::Stdout, stdout) => GetOutput::Stream(stdout),
        };
        match fastcp_engine::get(dialer, &path, out, &settings, report) {
            Ok(got) => {
                let warning = "the server did not give a CRC-32; only the length was checked";
                (exit_code::DONE, (!got.proven).then(|| warning.to_owned()))
            }
            Err(error) => {
                let code = exit_code::of_get_error(&error);
                let advice = match error {
                    GetError::Refused(Status::IsADirectory) => {
                        format!("; to copy a directory: fastcp-client pull fcp://{}/PATH DIR", dialer.endpoint())
                    }
                    _ => String::new(),
                };
                (code, Some(format!("cannot get \"{}\": {error}{advice}", Escaped(&path))))
            }
        }
    }))
}

/// Where `get` puts the file.
enum Out {
    File(PathBuf),
    Stdout,
}

impl Out {
    /// A directory, or a path that ends in a slash, takes the file under its own name.
    fn of(path: &OsStr, out: Option<PathBuf>) -> Result<Self, Failure> {
        let name = path.as_bytes().rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        if matches!(name, b"" | b"." | b"..") {
            return Err(Failure::new(exit_code::USAGE, "PATH must be the path of a file"));
        }
        let name = OsStr::from_bytes(name);
        Ok(match out {
            None => Self::File(PathBuf::from(name)),
            Some(out) if out.as_os_str() == "-" => Self::Stdout,
            Some(dir) if dir.is_dir() => Self::File(dir.join(name)),
            Some(dir) if dir.as_os_str().as_bytes().ends_with(b"/") => {
                return Err(Failure::new(exit_code::FILE_IO, format!("no such directory: \"{}\"", shown(&dir))));
            }
            Some(file) => Self::File(file),
        })
    }
}
