//! `fastcp-client drop`: files, one by one, to a server that takes header-batched drops.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use fastcp_engine::{Dialer, DropError, Dropped, drop_file};
use fastcp_net::{Live, NetError};
use serde_json::json;

use crate::args::DropArgs;
use crate::events::with_name;
use crate::exit_code::{self, Failure};
use crate::output::{Format, Output};
use crate::reach::{Reached, Unprotected};
use crate::screen::Screen;
use crate::setup::{format, server_at};
use crate::wording::{counted, shown, size};

/// What came of all files.
#[derive(Default)]
struct Tally {
    taken: u64,
    bytes: u64,
    failed: u64,
    /// Of those, how many never reached the server.
    unreached: u64,
}

pub(crate) fn drop_files(args: &DropArgs, screen: &Arc<Screen>) -> Result<u8, Failure> {
    let usage = |message: &str| Failure::new(exit_code::USAGE, message);
    let [files @ .., host, port] = args.words.as_slice() else { return Err(usage("expected <FILE>... <HOST> <PORT>")) };
    let port = port.to_str().and_then(|port| port.parse().ok()).filter(|&port| port > 0);
    let port = port.ok_or_else(|| usage("PORT must be a number from 1 to 65535"))?;
    let reached = Reached::server(&server_at(host.as_bytes(), port)?, &args.trust, Unprotected::Usual)?;
    let dialer = reached.dialer(Arc::default());
    let output = Output::new(format(&args.output), screen);
    let tally = drop_all(&dialer, files, args.conns, &output)
        .map_err(|error| Failure::new(exit_code::RESOURCES, format!("cannot start a thread: {error}")))?;
    reached.remember();
    let code = match (tally.failed, tally.taken) {
        (0, _) => exit_code::DONE,
        (failed, 0) if failed == tally.unreached => exit_code::SOCKET,
        _ => exit_code::SOME_FAILED,
    };
    let code = output.stdout.exit_code(code);
    match output.format {
        Format::Json => output.stdout.json(&json!({
            "event": "summary", "files_taken": tally.taken, "bytes_sent": tally.bytes, "files_failed": tally.failed,
            "exit": code,
        })),
        Format::Text => {
            let failed =
                if tally.failed > 0 { format!("; {} FAILED", counted(tally.failed, "file")) } else { String::new() };
            output.stdout.line(&format!("{} taken, {}{failed}", counted(tally.taken, "file"), size(tally.bytes)));
        }
        Format::Quiet => {}
    }
    Ok(output.stdout.exit_code(code))
}

fn drop_all(dialer: &Dialer, files: &[OsString], conns: u16, output: &Output) -> std::io::Result<Tally> {
    let (next, tally, live) = (AtomicUsize::new(0), Mutex::new(Tally::default()), Live::default());
    let work = || {
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let file = PathBuf::from(file);
            let result = drop_file(dialer, &file, &live);
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            match result {
                Ok(dropped) => {
                    (tally.taken, tally.bytes) = (tally.taken + 1, tally.bytes + dropped.bytes);
                    say_taken(output, &file, dropped);
                }
                Err(error) => {
                    tally.failed += 1;
                    tally.unreached +=
                        u64::from(matches!(error, DropError::Net(NetError::Connect { .. } | NetError::Lookup { .. })));
                    say_failed(output, &file, &error);
                }
            }
        }
    };
    std::thread::scope(|threads| {
        for number in 0..usize::from(conns).min(files.len()) {
            match Builder::new().name("drop".to_owned()).spawn_scoped(threads, work) {
                Err(error) if number == 0 => return Err(error),
                // Those that were started do it all.
                Err(_) => break,
                Ok(_) => {}
            }
        }
        Ok(())
    })?;
    Ok(tally.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn say_taken(output: &Output, file: &std::path::Path, Dropped { bytes, crc32 }: Dropped) {
    if output.format == Format::Json {
        let event = json!({"event": "taken", "bytes": bytes, "crc32": format!("{crc32:08x}")});
        output.stdout.json(&with_name(event, "path", file.as_os_str().as_bytes()));
    } else {
        tracing::info!("\"{}\": {} taken, CRC-32 {crc32:08x}", shown(file), size(bytes));
    }
}

fn say_failed(output: &Output, file: &std::path::Path, error: &DropError) {
    if output.format == Format::Json {
        let event = json!({"event": "failed", "error": error.to_string()});
        output.stdout.json(&with_name(event, "path", file.as_os_str().as_bytes()));
    }
    output.message(&format!("\"{}\": {error}", shown(file)));
}
