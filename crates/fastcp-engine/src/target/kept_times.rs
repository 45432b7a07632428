//! What the destination's file systems keep of a time of modification.
//!
//! Not all keep nanoseconds (ext4 with inodes of 128 bytes: seconds, FAT: two seconds), nor all years. A time that
//! was set there never reads back as it was offered, so every run would copy the file again. What is found on disk
//! is therefore compared with what would be kept of the time that is wanted. A file system is asked once, at the
//! first time that differs: by a file without a name, and else by our own lock. No entry of the tree is touched.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use fastcp_model::{Metadata, Name, STATE_DIR, STATE_LOCK, Timestamp};
use fastcp_sys::{Dir, FileSystem, Stat, metadata};

use crate::lock::Lock;

/// The steps, in nanoseconds, in which file systems keep times, beyond the first.
const STEPS_NS: [u64; 7] = [10, 100, 1_000, 1_000_000, 10_000_000, 1_000_000_000, FAT_STEP_NS];
const FAT_STEP_NS: u64 = 2_000_000_000;
const EXFAT_STEP_NS: u64 = 10_000_000;
/// An odd second and all nines: each step makes something else of it.
const PROBE: (i64, u32) = (1_000_000_001, 999_999_999);
/// Before and after what any file system keeps that has limits: 6,000 years from 1970.
const PROBED_SECS_MAX: i64 = 1 << 38;

/// What one file system keeps of a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    step_ns: u64,
    /// The first and the last second.
    secs: (i64, i64),
}

impl Kept {
    const ALL: Self = Self { step_ns: 1, secs: (i64::MIN, i64::MAX) };

    /// `set` sets a time and answers what it reads as then.
    fn probe(mut set: impl FnMut(Timestamp) -> io::Result<Timestamp>) -> io::Result<Self> {
        let probe = Timestamp::new(PROBE.0, PROBE.1).unwrap_or_default();
        let read = set(probe)?;
        let step_ns = STEPS_NS.into_iter().find(|&step_ns| read == floor(probe, step_ns)).unwrap_or(1);
        // An error says nothing of what is kept.
        let mut limit = |secs: i64| set(Timestamp::new(secs, 0).unwrap_or_default()).map(Timestamp::secs);
        let first = limit(-PROBED_SECS_MAX).ok().filter(|&first| first > -PROBED_SECS_MAX && first < PROBE.0);
        let last = limit(PROBED_SECS_MAX).ok().filter(|&last| last < PROBED_SECS_MAX && last > PROBE.0);
        Ok(Self { step_ns, secs: (first.unwrap_or(i64::MIN), last.unwrap_or(i64::MAX)) })
    }

    /// With what is known of file systems that tell only after they have been mounted again.
    fn on(self, file_system: FileSystem) -> Self {
        let step_ns = match file_system {
            FileSystem::Fat => FAT_STEP_NS,
            FileSystem::ExFat => EXFAT_STEP_NS,
            _ => 1,
        };
        Self { step_ns: self.step_ns.max(step_ns), ..self }
    }

    /// As Linux does it (`timestamp_truncate`): the nearest second that is kept, without nanoseconds at both ends,
    /// and rounded down between them.
    fn of(&self, time: Timestamp) -> Timestamp {
        let (first, last) = self.secs;
        let secs = time.secs().clamp(first, last);
        if secs == first || secs == last {
            return Timestamp::new(secs, 0).unwrap_or_default();
        }
        floor(time, self.step_ns)
    }
}

fn floor(time: Timestamp, step_ns: u64) -> Timestamp {
    let step_secs = (step_ns / 1_000_000_000).cast_signed();
    let (secs, nanos) = match step_secs {
        0 => (time.secs(), time.nanos() - time.nanos() % step_ns as u32),
        _ => (time.secs() - time.secs().rem_euclid(step_secs), 0),
    };
    Timestamp::new(secs, nanos).unwrap_or(time)
}

/// What is known of the destination's file systems, by device.
#[derive(Debug, Default)]
pub(crate) struct KeptTimes {
    devices: Lock<HashMap<u64, Known>>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    kept: Kept,
    is_told: bool,
}

impl KeptTimes {
    /// What is there, with the wanted time in place of what its file system keeps of that. It is in `dir`, or `dir`
    /// itself.
    pub(crate) fn as_wanted(&self, dir: &Dir, there: Stat, wanted: Timestamp) -> Stat {
        if there.metadata.mtime == wanted || !self.is_kept_of(dir, &there, wanted) {
            return there;
        }
        Stat { metadata: Metadata { mtime: wanted, ..there.metadata }, ..there }
    }

    fn is_kept_of(&self, dir: &Dir, there: &Stat, wanted: Timestamp) -> bool {
        let device = there.identity.device;
        let mut devices = self.devices.lock();
        let known = devices.entry(device).or_insert_with(|| Known { kept: ask(dir, device), is_told: false });
        let is_kept = known.kept.of(wanted) == there.metadata.mtime;
        if is_kept && !std::mem::replace(&mut known.is_told, true) {
            let Kept { step_ns, secs: (first, last) } = known.kept;
            tracing::info!(
                step_ns,
                first,
                last,
                "the destination's file system rounds or limits times; they are compared as it stores them"
            );
        }
        is_kept
    }
}

fn ask(dir: &Dir, device: u64) -> Kept {
    let file_system = FileSystem::of(dir).unwrap_or(FileSystem::Other);
    let asked = dir.create_unnamed(0o600).and_then(probe).or_else(|_| ask_lock(dir, device));
    let kept = asked.unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot find out how the file system stores times");
        Kept::ALL
    });
    kept.on(file_system)
}

fn probe(file: File) -> io::Result<Kept> {
    if Stat::of_fd(&file)?.file_type != fastcp_sys::FileType::File {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    Kept::probe(|time| {
        metadata::set_mtime(&file, time)?;
        Ok(Stat::of_fd(file.as_fd())?.metadata.mtime)
    })
}

/// Where files need names, the lock of a directory that has one lends its own time.
fn ask_lock(dir: &Dir, device: u64) -> io::Result<Kept> {
    let name = |bytes| Name::new(bytes).map_err(io::Error::other);
    let lock = dir.own_dir(&name(STATE_DIR)?)?.open_own_file(&name(STATE_LOCK)?)?;
    let before = Stat::of_fd(&lock)?;
    if before.identity.device != device {
        return Err(io::ErrorKind::CrossesDevices.into());
    }
    let kept = lock.try_clone().and_then(probe);
    metadata::set_mtime(&lock, before.metadata.mtime)?;
    kept
}

#[cfg(test)]
mod tests {
    use std::io;

    use fastcp_model::Timestamp;
    use fastcp_sys::FileSystem;

    use super::{Kept, floor};

    fn time(secs: i64, nanos: u32) -> Timestamp {
        Timestamp::new(secs, nanos).expect("lawful")
    }

    /// A file system that keeps these steps and seconds.
    fn asked(step_ns: u64, first: i64, last: i64) -> Kept {
        let keeper = Kept { step_ns, secs: (first, last) };
        Kept::probe(|time| Ok(keeper.of(time))).expect("nothing fails")
    }

    #[test]
    fn what_is_kept_is_found_out() {
        let ext4_small = (1_000_000_000, -(1 << 31), (1 << 31) - 1);
        let fat = (2_000_000_000, 315_532_800, 4_354_819_198);
        for (step_ns, first, last) in [ext4_small, fat, (100, -11_644_473_600, 1 << 37), (1, i64::MIN, i64::MAX)] {
            assert_eq!(asked(step_ns, first, last), Kept { step_ns, secs: (first, last) });
        }
        assert_eq!(Kept::probe(Ok).expect("kept"), Kept::ALL);
        // One that rounds in a way of its own is taken at its word.
        assert_eq!(Kept::probe(|time_| Ok(time(time_.secs() + 7, 3))).expect("kept").step_ns, 1);
        assert!(Kept::probe(|_| Err(io::ErrorKind::PermissionDenied.into())).is_err());
    }

    #[test]
    fn times_are_rounded_and_clamped_as_the_kernel_does() {
        let small = asked(1_000_000_000, -(1 << 31), (1 << 31) - 1);
        assert_eq!(small.of(time(5, 999_999_999)), time(5, 0));
        assert_eq!(small.of(time(-5, 1)), time(-5, 0));
        assert_eq!(small.of(time(4_102_444_800, 7)), time((1 << 31) - 1, 0));
        assert_eq!(small.of(time(-9_000_000_000, 7)), time(-(1 << 31), 0));
        let fat = Kept::ALL.on(FileSystem::Fat);
        assert_eq!([fat.of(time(7, 9)), fat.of(time(-7, 9))], [time(6, 0), time(-8, 0)]);
        assert_eq!(Kept::ALL.on(FileSystem::ExFat).of(time(7, 19_999_999)), time(7, 10_000_000));
        assert_eq!(floor(time(3, 1_234_567), 1_000_000), time(3, 1_000_000));
        assert_eq!(Kept::ALL.of(time(i64::MAX - 1, 999_999_999)), time(i64::MAX - 1, 999_999_999));
    }
}
