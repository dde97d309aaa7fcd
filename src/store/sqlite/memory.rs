//! Turns off SQLite's count of the memory that it uses: nobody asks for it, and it costs a lock
//! at each allocation, some 5 % of the engine's thread.
//!
//! Owns the only unsafe code of `sqlite`.

#![expect(unsafe_code, reason = "settings of the whole library have no safe interface")]

use std::sync::Once;

use rusqlite::ffi;

/// To be called before the first connection is opened; later it does nothing.
pub fn leave_uncounted() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the setting takes one `int`. SQLite must not be in use by other threads while
        // its settings change; it refuses once it has been initialised, and until then nobody
        // has a connection. Only this function changes any.
        let code = unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0) };
        if code != ffi::SQLITE_OK {
            tracing::debug!(code, "SQLite counts its memory");
        }
    });
}
