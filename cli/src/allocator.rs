//! The allocator: memory that nobody uses goes back to the system within a second.
//!
//! ```text
//!  a burst ──▶ buffers are freed ──▶ kept for 50 ms,  in case they are needed again
//!                   │                     └─ a thread of the allocator ──▶ the system
//!                   └─ 8 MiB or more ───────────────────────────────────────▶ at once
//! ```
//!
//! The allocator of glibc gives back only what lies at the end of its heap, where there is nearly
//! always something in use: after 4000 half requests of 60 KB, 250 MiB stayed for ever. jemalloc
//! keeps track of every page. To give every page back at once would cost four times the processor
//! time of a message of 200 KB, so they are kept for a moment. A buffer of many megabytes is not:
//! another one may grow meanwhile, and both together would take more than the memory budget.

use tikv_jemalloc_ctl::{Access, AsName, background_thread};

/// How long pages that nobody uses are kept, in milliseconds.
const KEPT_MS: isize = 50;

/// From this size on, in bytes, memory comes from an arena of its own. It is jemalloc's default.
const HUGE: usize = 8 << 20;

/// Has unused memory given back. Where that cannot be set up, memory stays, and nothing else is
/// different.
pub(crate) fn set_up() {
    // Without a thread nobody gives pages back later, so that is done at once.
    let kept = if background_thread::write(true).is_ok() { KEPT_MS } else { 0 };
    // The arenas that are made later, and the one that this thread has.
    keep("arenas", kept);
    keep("arena.0", kept);
    // The arena for large buffers comes behind all others, and is made when it is used first.
    let arenas: Result<u32, _> = "opt.narenas\0".name().read();
    drop(std::hint::black_box(Vec::<u8>::with_capacity(HUGE)));
    if let Ok(arenas) = arenas {
        keep(&format!("arena.{arenas}"), 0);
    }
}

/// How many milliseconds an arena keeps pages. None are kept half: what the kernel may take while
/// it need not counts as ours.
fn keep(arena: &str, milliseconds: isize) {
    // It fails only where there is no such arena.
    let _ = format!("{arena}.dirty_decay_ms\0").name().write(milliseconds);
    let _ = format!("{arena}.muzzy_decay_ms\0").name().write(0_isize);
}
