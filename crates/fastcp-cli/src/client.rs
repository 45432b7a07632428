//! `fastcp-client`: from arguments to an exit code.

use std::process::ExitCode;
use std::sync::Arc;

use fastcp_engine::Interrupt;
use fastcp_model::RelPath;
use fastcp_wire::offer::{Place, Scope};

use crate::args::options::OutputOptions;
use crate::args::{self, ClientArgs, ClientCommand};
use crate::drop::drop_files;
use crate::exit_code::Failure;
use crate::get::get;
use crate::ls::ls;
use crate::output::Output;
use crate::pull::pull;
use crate::push::push;
use crate::screen::{AboveScreen, Screen};
use crate::session::SESSION;
use crate::setup::{format, raise_descriptor_limit, server_at};
use crate::signals::Heard;
use crate::sources::Sources;
use crate::stderr::complain;
use crate::verify::verify;
use crate::{exit_code, logging, secrets, server, signals, usage};

/// Parses the process's arguments, runs, and answers how it ended.
pub fn main() -> ExitCode {
    // Of the two programs either can be the far end of a session, so that it is enough to send one.
    if std::env::args_os().nth(1).is_some_and(|word| word == SESSION) {
        return server::main();
    }
    exit_code::exit_when_out_of_memory();
    fastcp_engine::ask_built_in_services();
    secrets::take_from_environment();
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
    raise_descriptor_limit();
    let output = Output::new(format(args.output()), &screen);
    exit_code::exit(match run(args, &interrupt, &screen) {
        Ok(code) => code,
        Err(failure) => {
            output.error(&failure.message, failure.code);
            failure.code
        }
    })
}

impl ClientArgs {
    /// The options that every command has.
    fn output(&self) -> &OutputOptions {
        match &self.command {
            None => &self.options.output,
            Some(ClientCommand::Pull(args)) => &args.options.output,
            Some(ClientCommand::Push(args)) => &args.options.output,
            Some(ClientCommand::Ls(args)) => &args.output,
            Some(ClientCommand::Drop(args)) => &args.output,
            Some(ClientCommand::Verify(args)) => &args.output,
            Some(ClientCommand::Get(args)) => &args.output,
        }
    }
}

fn run(args: ClientArgs, interrupt: &Interrupt, screen: &Arc<Screen>) -> Result<u8, Failure> {
    match (args.command, args.dst_dir, args.host, args.port) {
        (Some(ClientCommand::Pull(pulled)), ..) => {
            pull(Sources::parse(&pulled.from)?, &pulled.dst_dir, &pulled.options, interrupt, screen)
        }
        (Some(ClientCommand::Push(pushed)), ..) => push(&pushed, interrupt, screen),
        (Some(ClientCommand::Ls(args)), ..) => ls(&args, screen),
        (Some(ClientCommand::Drop(args)), ..) => drop_files(&args, screen),
        (Some(ClientCommand::Get(args)), ..) => get(args, screen),
        (Some(ClientCommand::Verify(args)), ..) => verify(&args, screen),
        (None, Some(dst_dir), Some(host), Some(port)) => {
            let server = server_at(host.as_bytes(), port)?;
            let offer = Place { path: RelPath::root(), scope: Scope::Contents };
            let from = Sources::Server { server, places: vec![offer] };
            pull(from, &dst_dir, &args.options, interrupt, screen)
        }
        _ => Err(Failure::new(exit_code::USAGE, "expected <DST_DIR> <HOST> <PORT>, or a command; see --help")),
    }
}
