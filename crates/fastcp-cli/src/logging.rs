//! Log lines on stderr.

use fastcp_engine::SERVER_LOG_TARGET;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use crate::args::options::{LogFormat, LogOptions};

/// Sets up logging for a server, whose log is read later: its lines have times.
pub(crate) fn start_for_server(options: &LogOptions) {
    let level = level(options);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_target(false);
    match options.log_format {
        LogFormat::Text => start(lines.with_ansi(false).with_filter(level)),
        LogFormat::Json => start(lines.json().with_filter(level)),
    }
}

/// Sets up logging for a client, whose lines are read at once. With `-v`, the server that it embeds for a local
/// source has nothing to say.
pub(crate) fn start_for_client<W>(options: &LogOptions, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let levels = Targets::new().with_default(level(options));
    let levels = if options.verbose == 1 { levels.with_target(SERVER_LOG_TARGET, LevelFilter::WARN) } else { levels };
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    match options.log_format {
        LogFormat::Text => start(lines.with_ansi(false).without_time().with_filter(levels)),
        LogFormat::Json => start(lines.json().with_filter(levels)),
    }
}

fn start(layer: impl Layer<Registry> + Send + Sync) {
    // A process that embeds this crate may log its own way already.
    drop(tracing_subscriber::registry().with(layer).try_init());
}

fn level(options: &LogOptions) -> LevelFilter {
    match (options.quiet, options.verbose) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    }
}
