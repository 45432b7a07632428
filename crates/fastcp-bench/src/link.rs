//! A long-distance link on one machine: two hosts with a round trip, a rate and loss between them.
//!
//! [`Link::up`] makes two network namespaces, joins them by a pair of packet devices and carries every
//! packet between the two in this process, as a [`schedule`] says. Programs run unchanged at either end
//! by [`Namespace::command`]. It stands in for `tc netem`, which many kernels are built without.
//! Dropping the link takes everything down, and so does a failure half-way up.
//!
//! Both ends are as the kernel makes them. The limits of TCP's buffers are the machine's `tcp_rmem` and
//! `tcp_wmem`, as built 6 MiB (of late 32 MiB) to receive and 4 MiB to send; the latter holds a single
//! connection to some 430 Mbit/s over 50 ms. Only the congestion control that connections start with is
//! set, to cubic. Where the machine forbids that as a namespace's default it is put on the route; there
//! a program that wants another one must say so after it has connected or accepted, not before.

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use fastcp_sys::{process, tun};

mod carry;
mod namespace;
mod ring;
mod settings;

pub mod schedule;

pub use namespace::Namespace;
pub use settings::{LinkSettings, QUEUE_USUAL, SettingsError};

use carry::Carriers;

const NEAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// Where the losses of [`Link::up`] start. A first loss ends the steepest growth of a connection, so that
/// a short transfer is decided by where it falls. With these it falls within a factor of three of the median
/// for every loss from 0.01 % to 1 %, in both directions.
const SEEDS: [u64; 2] = [7, 18];

/// Numbers the links of this process.
static LINKS: AtomicU32 = AtomicU32::new(0);

/// A link that is up.
#[derive(Debug)]
pub struct Link {
    // Before the namespaces: fields are dropped in this order, and a carrier holds the devices.
    carriers: Carriers,
    near: Namespace,
    far: Namespace,
}

impl Link {
    /// Brings a link up. It loses the same packets every time, counted from the first of each direction.
    ///
    /// # Errors
    /// [`LinkError::NotRoot`] and [`LinkError::NoTun`] where links cannot be had, otherwise what failed.
    pub fn up(settings: &LinkSettings) -> Result<Self, LinkError> {
        Self::up_with_seeds(settings, SEEDS)
    }

    /// Brings a link up that loses other packets: from near to far by the first seed, back by the second.
    ///
    /// # Errors
    /// As [`up`](Self::up).
    pub fn up_with_seeds(settings: &LinkSettings, seeds: [u64; 2]) -> Result<Self, LinkError> {
        if !process::is_root() {
            return Err(LinkError::NotRoot);
        }
        if !Path::new(tun::TUN_PATH).exists() {
            return Err(LinkError::NoTun);
        }
        namespace::remove_abandoned();
        Self::up_numbered(LINKS.fetch_add(1, Ordering::Relaxed), settings, seeds)
    }

    fn up_numbered(link: u32, settings: &LinkSettings, seeds: [u64; 2]) -> Result<Self, LinkError> {
        let near = Namespace::add(link, "near", NEAR)?;
        let far = Namespace::add(link, "far", FAR)?;
        let devices = [near.attach()?, far.attach()?];
        let carriers = Carriers::start(settings, seeds, &devices).map_err(LinkError::Carry)?;
        Ok(Self { carriers, near, far })
    }

    /// One end.
    pub fn near(&self) -> &Namespace {
        &self.near
    }

    /// The other end.
    pub fn far(&self) -> &Namespace {
        &self.far
    }

    /// Lets no connection choose another congestion control than the usual one.
    ///
    /// # Errors
    /// As `ip route` says.
    pub fn lock_congestion_control(&self) -> Result<(), LinkError> {
        self.near.lock_congestion_control()?;
        self.far.lock_congestion_control()
    }

    /// What went from near to far, and from far to near, up to about now.
    pub fn counters(&self) -> [DirectionCounters; 2] {
        self.carriers.counters()
    }
}

/// What happened to the packets of one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DirectionCounters {
    /// Packets sent into the link.
    pub packets: u64,
    /// Their bytes, IP headers included.
    pub bytes: u64,
    /// Those lost by chance.
    pub lost: u64,
    /// Those dropped because the queue was full.
    pub overflowed: u64,
    /// Those that the receiving host had no memory for.
    pub refused: u64,
    /// Those that arrived more than a millisecond late, because the machine was busy. If they are many,
    /// it was the machine and not the link that was measured.
    pub late: u64,
    /// How late the latest was.
    pub late_max: Duration,
}

impl fmt::Display for DirectionCounters {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { packets, bytes, lost, overflowed, refused, late, late_max } = self;
        write!(to, "{packets} packets, {bytes} bytes; {lost} lost, {overflowed} overflowed, {refused} refused; ")?;
        write!(to, "{late} late, at most by {:.1} ms", late_max.as_secs_f64() * 1e3)
    }
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Namespaces and devices are root's.
    #[error("an emulated link needs root")]
    NotRoot,
    /// The kernel was built without packet devices, or a container hides them.
    #[error("an emulated link needs {}", tun::TUN_PATH)]
    NoTun,
    /// The program that makes namespaces did not start.
    #[error("cannot run \"ip {arguments}\": {source}")]
    IpMissing {
        /// What it was to do.
        arguments: String,
        /// Why it did not.
        source: io::Error,
    },
    /// The program that makes namespaces failed.
    #[error("\"ip {arguments}\" failed: {said}")]
    IpFailed {
        /// What it was to do.
        arguments: String,
        /// What it had to say.
        said: String,
    },
    /// A namespace could not be furnished.
    #[error("cannot {operation} in namespace {name}: {source}")]
    Namespace {
        /// What was to be done there.
        operation: &'static str,
        /// The namespace.
        name: String,
        /// Why it was not.
        source: io::Error,
    },
    /// The threads that carry packets did not start.
    #[error("cannot start to carry packets: {0}")]
    Carry(#[source] io::Error),
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::path::Path;
    use std::thread;
    use std::time::{Duration, Instant};

    use nix::sys::socket::{getsockopt, sockopt::TcpCongestion};

    use super::{Link, LinkError, Namespace};

    /// `None`, with a message, where links cannot be had.
    fn link(settings: &str) -> Option<Link> {
        match Link::up(&settings.parse().expect(settings)) {
            Err(error @ (LinkError::NotRoot | LinkError::NoTun)) => {
                let _ = writeln!(io::stderr(), "skipped: {error}");
                None
            }
            link => Some(link.expect("the link comes up")),
        }
    }

    fn is_there(name: &str) -> bool {
        Path::new("/run/netns").join(name).exists()
    }

    fn connected(link: &Link) -> (TcpStream, TcpStream) {
        let listener = link.far().within(|| TcpListener::bind((link.far().address(), 0))).expect("bind");
        let address = listener.local_addr().expect("address");
        let near = link.near().within(|| TcpStream::connect(address)).expect("connect");
        let far = listener.accept().expect("accept").0;
        near.set_nodelay(true).expect("no delay");
        far.set_nodelay(true).expect("no delay");
        (near, far)
    }

    #[test]
    fn an_echo_takes_a_round_trip() {
        let round_trip = Duration::from_millis(40);
        let Some(link) = link("40ms,100mbit,0") else { return };
        let (mut near, mut far) = connected(&link);
        for end in [&near, &far] {
            assert_eq!(getsockopt(end, TcpCongestion).expect("ask"), "cubic");
        }
        let echo = thread::spawn(move || {
            let mut byte = [0];
            while far.read_exact(&mut byte).is_ok() {
                far.write_all(&byte).expect("echo");
            }
        });
        let quickest = (0..5)
            .map(|_| {
                let asked = Instant::now();
                near.write_all(&[7]).expect("ask");
                near.read_exact(&mut [0]).expect("hear");
                asked.elapsed()
            })
            .min();
        drop(near);
        echo.join().expect("join");
        assert!(quickest.is_some_and(|took| took >= round_trip && took < round_trip * 2), "{quickest:?}");
        let [to_far, to_near] = link.counters();
        assert!(to_far.packets >= 6 && to_near.packets >= 6, "{to_far}; {to_near}");
    }

    #[test]
    fn programs_run_at_either_end_and_nothing_stays_behind() {
        let Some(link) = link("0,0,0") else { return };
        let names = [link.near().name().to_owned(), link.far().name().to_owned()];
        for (end, address) in [(link.near(), "198.18.0.1"), (link.far(), "198.18.0.2")] {
            let output = end.command("ip").args(["-brief", "address"]).output().expect("run");
            let said = String::from_utf8(output.stdout).expect("text");
            assert!(output.status.success() && said.contains(address), "{said}");
        }
        let exit = link.near().command("sh").args(["-c", "exit 7"]).status().expect("run");
        assert_eq!(exit.code(), Some(7));
        drop(link);
        assert!(names.iter().all(|name| !is_there(name)));
    }

    #[test]
    fn a_link_that_fails_half_way_leaves_nothing_behind() {
        let number = u32::MAX;
        let Some(_able) = link("0,0,0") else { return };
        let far = Namespace::add(number, "far", super::FAR).expect("add");
        let error = Link::up_numbered(number, &"0,0,0".parse().expect("settings"), super::SEEDS);
        assert!(matches!(error, Err(LinkError::IpFailed { .. })), "{error:?}");
        assert!(is_there(far.name()) && !is_there(&far.name().replace("far", "near")));
    }

    #[test]
    fn two_links_at_once_do_not_hear_each_other() {
        let (Some(one), Some(two)) = (link("2ms,0,0"), link("2ms,0,0")) else { return };
        let mut streams = [connected(&one), connected(&two)];
        for (number, (near, _)) in streams.iter_mut().enumerate() {
            near.write_all(&[number as u8]).expect("write");
        }
        for (number, (_, far)) in streams.iter_mut().enumerate() {
            let mut heard = [0];
            far.read_exact(&mut heard).expect("read");
            assert_eq!(heard, [number as u8]);
        }
    }
}
