use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use std::time::{Duration, Instant};

use fastcp_model::Capabilities;
use socket2::Socket;

use super::{End, Tunnel, WINDOW_BYTES};
use crate::{
    Ahead, Attempt, Choice, Connection, ConnectionLimits, ConnectionSource, Dialer, Endpoint, Far, Gate, Greeting,
    Incoming, Live, NetError, Sessions, Terms, greet,
};

/// Both ends, and the lanes that the second takes.
fn pair() -> (Arc<Tunnel>, Arc<Tunnel>, Receiver<Socket>) {
    let (here, there) = UnixStream::pair().expect("a pair");
    let (taken, lanes) = channel();
    let clone = |stream: &UnixStream| stream.try_clone().expect("clone");
    let first = Tunnel::over(clone(&here), here, None).expect("threads");
    let take = move |lane| taken.send(lane).expect("heard");
    let second = Tunnel::over(clone(&there), there, Some(Box::new(take))).expect("threads");
    (first, second, lanes)
}

#[test]
fn lanes_carry_what_is_written_both_ways_and_end_each_way() {
    let (first, _second, lanes) = pair();
    std::thread::scope(|threads| {
        for nth in 0..8_u8 {
            let mut here = first.open().expect("a lane");
            let mut there = lanes.recv().expect("taken");
            threads.spawn(move || {
                let bytes = vec![nth; 3_000_000 + usize::from(nth)];
                here.write_all(&bytes).expect("written");
                here.shutdown(std::net::Shutdown::Write).expect("that is all");
                let mut back = Vec::new();
                here.read_to_end(&mut back).expect("read");
                assert!(back == bytes);
            });
            threads.spawn(move || {
                let mut bytes = Vec::new();
                there.read_to_end(&mut bytes).expect("read");
                there.write_all(&bytes).expect("written");
            });
        }
    });
}

/// Whoever uses a lane may go away at any moment, whatever is under way to him: what his end still takes off the way is
/// credited to one that has reset the lane.
#[test]
fn a_lane_whose_user_goes_away_ends_no_other() {
    let (first, _second, lanes) = pair();
    let mut kept = first.open().expect("a lane");
    let mut kept_there = lanes.recv().expect("taken");
    for _ in 0..100 {
        let mut here = first.open().expect("a lane");
        let mut there = lanes.recv().expect("taken");
        let writer = std::thread::spawn(move || here.write_all(&vec![0; 4 * WINDOW_BYTES]));
        there.read_exact(&mut [0; 1000]).expect("it comes");
        drop(there);
        assert!(writer.join().expect("no panic").is_err(), "nobody is there to read it all");
        kept.write_all(b"x").expect("written");
        kept_there.read_exact(&mut [0]).expect("it passes");
    }
    assert_eq!(first.end(), None);
}

#[test]
fn a_lane_that_nobody_reads_holds_up_no_other() {
    let (first, _second, lanes) = pair();
    let mut stuck = first.open().expect("a lane");
    let _unread = lanes.recv().expect("taken");
    stuck.set_nonblocking(true).expect("set");
    let mut written = 0;
    // Until the window is full and both pairs of sockets are.
    let mut idle = 0;
    while idle < 50 {
        match stuck.write(&[0; 65536]) {
            Ok(count) => (written, idle) = (written + count, 0),
            Err(_) => {
                idle += 1;
                std::thread::yield_now();
                let mut other = first.open().expect("another");
                let mut there = lanes.recv().expect("taken");
                other.write_all(b"x").expect("written");
                let mut byte = [0];
                there.read_exact(&mut byte).expect("it passes");
            }
        }
    }
    assert!((WINDOW_BYTES..2 * WINDOW_BYTES).contains(&written), "{written}");
}

#[test]
fn when_the_stream_ends_so_does_all_of_it() {
    let (first, second, lanes) = pair();
    let mut here = first.open().expect("a lane");
    let mut there = lanes.recv().expect("taken");
    second.hang_up();
    assert_eq!(second.wait_for_end(), End::HungUp);
    assert_eq!(there.read(&mut [0]).expect("the end"), 0);
    drop(second);
    first.hang_up();
    assert_eq!(here.read(&mut [0]).expect("the end"), 0);
    assert!(first.open().is_err());
}

#[test]
fn when_nothing_can_be_said_any_more_it_ends() {
    struct Lost;
    impl Write for Lost {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (here, _there) = UnixStream::pair().expect("a pair");
    let tunnel = Tunnel::over(here, Lost, None).expect("threads");
    // Whoever has a lane by then learns it by its end.
    if let Ok(mut lane) = tunnel.open() {
        assert!(matches!(lane.read(&mut [0]), Ok(0) | Err(_)));
    }
    assert_eq!(tunnel.wait_for_end(), End::Closed);
    assert!(tunnel.open().is_err());
}

/// As a program that was stopped does: whoever opens a lane has a deadline, and keeps it.
#[test]
fn a_stream_that_takes_nothing_holds_up_nobody_who_opens_a_lane() {
    struct Stuck(Receiver<()>);
    impl Write for Stuck {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            let _ = self.0.recv();
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (here, _there) = UnixStream::pair().expect("a pair");
    let (stuck, waiting) = channel();
    let tunnel = Tunnel::over(here, Stuck(waiting), None).expect("threads");
    let lanes = [tunnel.open().expect("a lane"), tunnel.open().expect("another one")];
    tunnel.hang_up();
    assert_eq!(tunnel.wait_for_end(), End::HungUp);
    drop((lanes, stuck));
}

#[test]
fn nonsense_ends_it() {
    for frame in [
        [&[0; 4][..], &[9, 0, 0, 0], &[0; 4]].concat(),
        [&[0; 4][..], &[1, 0, 0, 0], &[0xff; 4]].concat(),
        [&[0, 0, 0, 7][..], &[0, 0, 0, 0], &[0; 4]].concat(),
    ] {
        let (here, mut there) = UnixStream::pair().expect("a pair");
        let tunnel = Tunnel::over(here.try_clone().expect("clone"), here, None).expect("threads");
        there.write_all(&frame).expect("written");
        assert_eq!(tunnel.wait_for_end(), End::Broken, "{frame:?}");
    }
}

/// Whoever asks for data knows for how long there is no use in hearing an answer, as over TCP.
#[test]
fn the_greeting_tells_how_long_the_way_is() {
    const TERMS: Terms = Terms { capabilities: Capabilities::SUPPORTED, connections: 4, chunk_kb: None };
    let minute = Duration::from_secs(60);
    let (first, _second, lanes) = pair();
    let far = Arc::new(Far::new("far".to_owned(), first, Box::new(|| NetError::Closed)));
    let dialer = Dialer::new(Endpoint::Far(far), Arc::default());
    let live = Live::default();
    std::thread::scope(|threads| {
        threads.spawn(move || {
            let sessions = Sessions::new(TERMS, ConnectionLimits::NONE);
            let lane = lanes.recv().expect("taken");
            let mut control = Connection::accept(Incoming::through(lane, "near")).expect("connected");
            let Greeting::Hello(hello) = greet(&mut control, &Gate::open(), minute).expect("greeted") else {
                panic!("a session is asked for");
            };
            sessions.agree(&control, &hello).expect("agreed").reply(&control).expect("sent");
            lanes.recv().expect("a lane for data");
        });
        let attempt = Attempt { live: &live, deadline: Instant::now() + minute, absence_max: minute };
        let session = dialer.session(&TERMS, Ahead::NONE, attempt).expect("a session");
        assert!(session.control.round_trip() > Duration::ZERO);
        let data = dialer.data(&session, Choice::Any, attempt).expect("a connection");
        assert_eq!(data.connection.round_trip(), session.control.round_trip(), "it goes the same way");
        assert!(!data.is_answered() && data.connection.is_long(), "it is asked before it is answered");
    });
}
