//! How much a program does that no tracer sees: allocations and locks taken.
//!
//! For `fastcp-bench counts`, and built with the feature `counts` only: without it the calls here do nothing and
//! nothing can be read. The numbers are the process's, as an allocator's can only be; they grow, are read once at its
//! end, and nothing is decided by them.

#[cfg(feature = "counts")]
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(feature = "counts")]
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
#[cfg(feature = "counts")]
static LOCKS: AtomicU64 = AtomicU64::new(0);

/// What the process has done since it started.
#[cfg(feature = "counts")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// How often memory was asked for, or resized. Libraries in C are not in it.
    pub allocations: u64,
    /// How often one of the program's own locks was taken.
    pub locks: u64,
    /// How often a thread, ended ones included, gave up its processor to wait. Preemptions are not in it.
    pub context_switches: u64,
}

/// What has been counted so far.
///
/// # Errors
/// As `getrusage(2)`.
#[cfg(feature = "counts")]
pub fn taken() -> std::io::Result<Counts> {
    use nix::sys::resource::{UsageWho, getrusage};

    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok(Counts {
        allocations: ALLOCATIONS.load(Ordering::Relaxed),
        locks: LOCKS.load(Ordering::Relaxed),
        context_switches: usage.voluntary_context_switches().unsigned_abs(),
    })
}

/// To be called whenever one of the program's own locks is taken.
#[inline]
pub fn lock_taken() {
    #[cfg(feature = "counts")]
    LOCKS.fetch_add(1, Ordering::Relaxed);
}

/// To be called by the allocator.
#[inline]
pub(crate) fn allocated() {
    #[cfg(feature = "counts")]
    ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
}
