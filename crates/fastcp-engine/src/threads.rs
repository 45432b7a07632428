//! Threads that the system may refuse.
//!
//! Every thread is started through [`spawn`], which says so where there is none left; whoever asks decides whether
//! he gets on without. The common pool, which scans, plans and hashes, is made once, at the start of a program,
//! with as many threads as there are to be had.

use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{Builder, Scope, ScopedJoinHandle};

use rayon::{ThreadBuilder, ThreadPoolBuilder};

use crate::budget::Limits;

/// The stack of a thread that waits for a peer or a disk most of the time. What needs much room is on the heap: of
/// a connection that compresses 44 KiB were seen in use, of others 12.
pub const STACK_BYTES: usize = 512 << 10;

/// What threads end with.
pub(crate) type Threads<'scope, 'env> = Scope<'scope, 'env>;

/// Starts a thread that ends with its scope.
///
/// # Errors
/// `EAGAIN` where the system has no more threads, or no room for a stack.
pub(crate) fn spawn<'scope, T: Send + 'scope>(
    threads: &'scope Threads<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> T + Send + 'scope,
) -> io::Result<ScopedJoinHandle<'scope, T>> {
    Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn_scoped(threads, work)
}

/// Makes the pool that all runs of this process share. To be called once, by a program, before the first run.
///
/// # Errors
/// `EAGAIN` where not even one thread is to be had.
pub fn start_pool(limits: &Limits) -> io::Result<()> {
    // Rayon takes as many threads as it was told or none, and asks once. So they are there before it asks.
    let mut waiting = Vec::new();
    while waiting.len() < limits.pool_threads() {
        match pool_thread(waiting.len()) {
            Ok(thread) => waiting.push(thread),
            Err(error) if waiting.is_empty() => return Err(error),
            Err(error) => {
                tracing::debug!(%error, threads = waiting.len(), "the pool has fewer threads than intended");
                break;
            }
        }
    }
    let pool = ThreadPoolBuilder::new().num_threads(waiting.len()).spawn_handler(|work| {
        let thread = waiting.pop().ok_or(io::ErrorKind::OutOfMemory)?;
        thread.send(work).map_err(|_| io::ErrorKind::BrokenPipe.into())
    });
    // It may be there already where a program within a program has made it.
    pool.build_global().or_else(|error| {
        tracing::debug!(%error, "cannot set up the thread pool");
        Ok(())
    })
}

/// A thread that waits for what it is to do in a pool.
fn pool_thread(number: usize) -> io::Result<SyncSender<ThreadBuilder>> {
    let (sender, receiver) = sync_channel::<ThreadBuilder>(1);
    Builder::new().name(format!("pool {number}")).spawn(move || receiver.recv().map(ThreadBuilder::run))?;
    Ok(sender)
}
