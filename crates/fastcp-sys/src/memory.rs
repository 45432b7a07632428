//! What happens when there is no memory left.
//!
//! Rust ends a process that runs out of memory by a signal, with a core dump and a code that no script knows. Here it
//! says so in one line and exits with the code for it. Nothing is lost by that which a kill would not lose: part
//! files and journals are made for it.

use std::alloc::{GlobalAlloc, Layout, System};

use crate::counts;

/// The exit code of a process that has run out of memory: rsync's, for the same.
pub const OUT_OF_MEMORY: u8 = 22;

/// With less, nothing can be done.
const LEFT_BYTES_MIN: usize = 2 << 20;

const MESSAGE: &[u8] = b"fastcp: out of memory; see ulimit -a\n";

/// The system's allocator, but for its end, and counted with the feature `counts`. To be a program's `#[global_allocator]`.
#[derive(Debug)]
pub struct ExitingAllocator;

// SAFETY: all that is answered is what the system's allocator answered for the same arguments.
unsafe impl GlobalAlloc for ExitingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        counts::allocated();
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        there(unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        counts::allocated();
        // SAFETY: as above.
        there(unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        counts::allocated();
        // SAFETY: as above.
        there(unsafe { System.realloc(memory, layout, bytes) })
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn there(memory: *mut u8) -> *mut u8 {
    if memory.is_null() {
        exit();
    }
    memory
}

#[cold]
fn exit() -> ! {
    // SAFETY: the message is static, and its length is its own.
    unsafe { libc::write(libc::STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len()) };
    // SAFETY: it takes a number and does not come back. What is registered for the end of the process is not run:
    // it might want memory.
    unsafe { libc::_exit(OUT_OF_MEMORY.into()) }
}

/// Ends the process where there is no memory left. For what panics: libraries do that for want of memory, too, and
/// so does a thread that finds no room for itself.
pub fn exit_if_none_is_left() {
    let Ok(layout) = Layout::from_size_align(LEFT_BYTES_MIN, 1) else { return };
    // SAFETY: the layout has a size.
    let memory = there(unsafe { System.alloc(layout) });
    // SAFETY: it was allocated with this layout and is not used.
    unsafe { System.dealloc(memory, layout) };
}

/// Has all threads share one heap where memory is limited: each would reserve 64 MiB for one of its own. To be called
/// before the first thread.
pub fn share_heap_where_limited() {
    #[cfg(target_env = "gnu")]
    if crate::process::address_space().is_some() {
        // SAFETY: it takes two numbers; it may be called at any time.
        unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
    }
}
