//! What is decided without a wait. The waits themselves are in `tests/programs/retry.rs`.

use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use fastcp_model::Status;
use fastcp_net::{Live, NetError};

use super::{ATTEMPT_FIRST, Patience, SILENCE_MAX, SILENCE_MIN, absence_max, silence_max, waited_in_all};
use crate::report::Report;

/// How often it is tried within `retry`, where each attempt fails with `error`.
fn attempts(live: &Live, retry: Duration, error: fn() -> NetError) -> u32 {
    let (events, heard) = sync_channel(10);
    let report = Report::new(events);
    let mut patience = Patience::new(live, &report, "address".to_owned(), retry);
    let mut attempts = 0;
    let result: Result<(), _> = patience.persist(|_| {
        attempts += 1;
        Err(error())
    });
    assert_eq!(result.expect_err("it fails").to_string(), error().to_string());
    assert_eq!(heard.try_iter().count(), 0, "nobody is told of an attempt that is not made");
    attempts
}

#[test]
fn what_no_wait_helps_is_tried_once() {
    let retry = Duration::from_secs(1);
    assert_eq!(attempts(&Live::default(), retry, || NetError::Refused(Status::BadVersion)), 1);
    assert_eq!(attempts(&Live::default(), retry, || NetError::Offer("invalid")), 1);
    assert_eq!(attempts(&Live::default(), Duration::ZERO, || NetError::Closed), 1, "nothing is to be tried again");
    let ended = Live::default();
    ended.end_all_but(None);
    assert_eq!(attempts(&ended, retry, || NetError::Closed), 1, "the run has ended");
}

#[test]
fn what_succeeds_needs_no_patience() {
    let (live, report) = (Live::default(), Report::new(sync_channel(1).0));
    let mut patience = Patience::new(&live, &report, "address".to_owned(), Duration::ZERO);
    assert_eq!(patience.persist(|_| Ok(7)).expect("succeeds"), 7);
}

#[test]
fn a_first_attempt_may_take_a_while_however_little_is_left_for_others() {
    for (retry_secs, attempt) in
        [(0, SILENCE_MIN), (1, SILENCE_MIN), (3, SILENCE_MIN), (4, ATTEMPT_FIRST), (600, ATTEMPT_FIRST)]
    {
        let (live, report) = (Live::default(), Report::new(sync_channel(1).0));
        let mut patience = Patience::new(&live, &report, "address".to_owned(), Duration::from_secs(retry_secs));
        for _ in 0..2 {
            let before = Instant::now();
            let deadline = patience.attempt(Ok).expect("the deadline");
            let after = Instant::now();
            assert!(before + attempt <= deadline && deadline <= after + attempt, "{retry_secs} s");
        }
    }
}

#[test]
fn a_peer_may_be_silent_for_half_of_the_time_within_limits() {
    let secs = Duration::from_secs;
    for (retry, silence, absence) in [
        (secs(0), SILENCE_MIN, SILENCE_MIN),
        (secs(5), SILENCE_MIN, secs(5)),
        (secs(20), secs(10), secs(20)),
        (secs(3600), SILENCE_MAX, secs(3600)),
    ] {
        assert_eq!((silence_max(retry), absence_max(retry)), (silence, absence), "{retry:?}");
    }
}

#[test]
fn a_silence_is_told_with_all_of_its_length() {
    let secs = Duration::from_secs;
    for (last, failing, told) in [(1, 30, "30 seconds"), (15, 2, "15 seconds"), (0, 1, "1 second")] {
        let error = waited_in_all(NetError::TimedOut(secs(last)), secs(failing));
        assert_eq!(error.to_string(), format!("nothing received for {told}"));
    }
    assert!(matches!(waited_in_all(NetError::Closed, secs(9)), NetError::Closed));
}
