//! Comparing a destination with a source, changing nothing at either end.
//!
//! One thread reads listings and compares what a stat call tells; files of the right size go on to the
//! threads of the data connections, which compare BLAKE3 hashes of their contents. Equal sizes and times
//! prove nothing here: to find what is wrong behind them is the point. Nothing is written, made or locked,
//! and the offer is not remembered, so that a look at a destination leaves no trace in it.
//!
//! May import: plan, link, target, content, filter.
//! Never makes, changes or locks anything.

use std::path::Path;
use std::sync::Arc;

use fastcp_net::{Ahead, Connection, ConnectionSource};
use fastcp_sys::Root;
use fastcp_wire::offer::OfferRequest;

use crate::budget::Limits;
use crate::error::RunError;
use crate::link::connections::Spare;
use crate::link::first_error::FirstError;
use crate::link::line::{Line, Nth};
use crate::link::offers::{Offered, Offers};
use crate::report::Report;
use crate::settings::{Connections, LinkSettings};
use crate::target::destination_path::DestinationPath;
use crate::target::owners::Owners;
use crate::target::protection::Protections;
use crate::threads::spawn;

mod answer;
mod contents;
mod listing;
mod queue;

use answer::Hashing;
use contents::Verification;
use listing::Comparer;
use queue::CheckQueue;

/// With `auto`: hashing is done by the processors and disks of both ends, of which throughput on the wire
/// tells nothing.
const AUTO_CONNECTIONS: u16 = 8;

/// Compares the directory `against` with what a request asks of the sender's tree. What its rules exclude is not looked at
/// at either end. Differences are events and counts of the report.
///
/// # Errors
/// What ended the run. What could not be read is in the report instead.
pub fn verify(
    source: &dyn ConnectionSource,
    request: &OfferRequest,
    against: &Path,
    settings: &LinkSettings,
    limits: &Limits,
    report: &Report,
) -> Result<(), RunError> {
    verify_in_ranges(source, request, against, settings, limits, report, u64::MAX)
}

/// As [`verify`], but with ranges of this length at most.
fn verify_in_ranges(
    source: &dyn ConnectionSource,
    request: &OfferRequest,
    against: &Path,
    settings: &LinkSettings,
    limits: &Limits,
    report: &Report,
    range_bytes_max: u64,
) -> Result<(), RunError> {
    let above = DestinationPath::Typed(against.to_path_buf()).below_system_root();
    let protections = Protections::new(&request.rules, &above);
    let root = Root::open(against).map_err(RunError::not_verifiable(against))?;
    let frames = Offers::question(request, None)?;
    let ahead = Ahead { frames: &frames, connections: begin_with(settings.connections) };
    let line = Line::open(source, settings, limits, report, Arc::default(), ahead)?;
    let hashing = Hashing::agreed(line.agreed.capabilities);
    let connections = line.agreed.connections.min(begin_with(settings.connections));
    let queue = CheckQueue::new(range_bytes_max.min(hashing.range_bytes_max()));
    let verification =
        Verification { line: &line, base: request.place.base(), root: &root, queue: &queue, report, hashing };
    let stop = || queue.stop();
    let first_error = FirstError::new(&line, &stop);
    std::thread::scope(|threads| {
        let _guard = first_error.stop_on_panic();
        for number in 0..connections {
            let spare = Spare::of(number.into());
            let verification = &verification;
            let first_error = &first_error;
            let started = spawn(threads, "verify", move || {
                let _guard = first_error.stop_on_panic();
                first_error.keep(verification.line.keep_working(verification, spare));
            });
            match started {
                Ok(_) => {}
                Err(error) if number == 0 => return first_error.keep(Err(RunError::no_thread(error))),
                Err(error) => {
                    tracing::warn!("cannot start more threads ({error}): using {number} connections");
                    break;
                }
            }
        }
        first_error.keep(compare_offer(request, protections, &verification));
    });
    first_error.result()
}

fn begin_with(connections: Connections) -> u16 {
    match connections {
        Connections::Fixed(connections) => connections,
        Connections::Auto => AUTO_CONNECTIONS,
    }
}

/// Compares all that is offered. An offer that is broken off is asked for again, on a new session.
fn compare_offer(
    request: &OfferRequest,
    protections: Protections,
    verification: &Verification<'_>,
) -> Result<(), RunError> {
    let owners = Owners::new();
    let mut comparer = Comparer::new(verification.root, &owners, verification.report, verification.queue, protections);
    let line = verification.line;
    line.on_session(&mut line.patience(), |session, nth| {
        if nth == Nth::Again {
            comparer.replay();
        }
        take_offer(&session.control, nth, request, &mut comparer, verification)
    })
}

fn take_offer(
    control: &Connection,
    nth: Nth,
    request: &OfferRequest,
    comparer: &mut Comparer<'_>,
    verification: &Verification<'_>,
) -> Result<(), RunError> {
    let mut offers = Offers::asked_ahead(nth, control, request, verification.line.silence_max(), None)?;
    while !verification.queue.is_stopped() {
        match offers.next()? {
            Offered::Batch(batch) => comparer.compare(batch)?,
            Offered::End(end) => {
                comparer.finish(&end)?;
                verification.report.set_scan_done();
                verification.queue.close();
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::mpsc::sync_channel;
    use std::time::Duration;

    use fastcp_model::RelPath;
    use fastcp_net::{Dialer, Endpoint};
    use fastcp_wire::offer::{Place, Scope};

    use super::verify_in_ranges;
    use crate::budget::Limits;
    use crate::difference::Difference;
    use crate::report::Report;
    use crate::run::server::Server;
    use crate::sender::source::Source;
    use crate::settings::{Connections, LinkSettings, ServerSettings};

    fn served(root: &Path) -> Endpoint {
        Arc::new(Server::new(Source::open(root).expect("open"), ServerSettings::default())).embedded()
    }

    fn verify(source: &Path, copy: &Path, connections: u16, range_bytes_max: u64) -> Report {
        let settings = LinkSettings {
            connections: Connections::Fixed(connections),
            retry: Duration::ZERO,
            ..LinkSettings::default()
        };
        let report = Report::new(sync_channel(1).0);
        let dialer = Dialer::new(served(source), Arc::clone(&report.wire));
        let request = Place { path: RelPath::root(), scope: Scope::Contents }.into();
        verify_in_ranges(&dialer, &request, copy, &settings, &Limits::NONE, &report, range_bytes_max)
            .expect("a run to its end");
        report
    }

    /// A file that is longer than a range is compared range by range, on as many connections as there are.
    #[test]
    fn files_of_many_ranges_are_compared_to_their_end() {
        let top = tempfile::tempdir().expect("temporary directory");
        let (source, copy) = (top.path().join("source"), top.path().join("copy"));
        let bytes: Vec<u8> = (0..100_003u32).map(|at| (at % 251) as u8).collect();
        fs::create_dir(&source).expect("create");
        fs::write(source.join("file"), &bytes).expect("write");
        let sparse = fs::File::create(source.join("sparse")).expect("create");
        sparse.set_len(1_000_000).expect("grow");
        sparse.write_all_at(b"island", 500_000).expect("write");
        let copied = std::process::Command::new("cp").arg("-a").arg(&source).arg(&copy).status().expect("cp");
        assert!(copied.success());
        for (connections, range_bytes_max) in [(1, 1000), (4, 1000), (4, 99_999), (2, 1 << 30), (8, 100_003)] {
            let report = verify(&source, &copy, connections, range_bytes_max);
            assert_eq!(report.counters.differences.now(), 0);
            assert_eq!(report.counters.files_verified.now(), 2);
            assert_eq!(report.counters.bytes_verified.now(), 1_100_003);
        }
        let time = fs::metadata(copy.join("file")).expect("examine").modified().expect("a time");
        for at in [0, 999, 1000, 99_999, 100_002] {
            let file = fs::File::options().write(true).open(copy.join("file")).expect("open");
            file.write_all_at(&[bytes[at] ^ 1], at as u64).expect("write");
            file.set_modified(time).expect("set the time");
            let report = verify(&source, &copy, 4, 1000);
            assert_eq!(report.differences().into_iter().collect::<Vec<_>>(), [(Difference::Contents, 1)], "byte {at}");
            assert_eq!(report.counters.files_verified.now(), 1);
            assert!(report.counters.bytes_verified.now() < 1_100_003);
            file.write_all_at(&[bytes[at]], at as u64).expect("write");
            file.set_modified(time).expect("set the time");
        }
    }
}
