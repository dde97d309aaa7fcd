//! What the fuzz targets share: a bound on memory, and files.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Counts the memory of each thread.
struct Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    /// Bytes that are allocated, and the most that were.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
}

fn count(change: isize) {
    // A thread that ends has none any more.
    let _ = HELD.try_with(|held| {
        let (now, most) = held.get();
        held.set((now + change, most.max(now + change)));
    });
}

// SAFETY: all is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        unsafe { System.dealloc(at, layout) }
    }
}

/// Does this, which must not take more than so many bytes of memory at a time.
///
/// # Panics
/// If it does.
pub fn within<T>(bytes: usize, act: impl FnOnce() -> T) -> T {
    let (before, _) = HELD.get();
    HELD.set((before, before));
    let done = act();
    let taken = HELD.get().1 - before;
    assert!(taken <= bytes.cast_signed(), "it took {taken} bytes of memory, and may take {bytes}");
    done
}

/// A path for this process's files.
pub fn path() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        // Whoever runs the targets removes it.
        let dir = std::env::var_os("TASKYARD_FUZZ_DIR").map(PathBuf::from);
        dir.unwrap_or_else(std::env::temp_dir).join(format!("taskyard-fuzz-{}", std::process::id()))
    })
}
