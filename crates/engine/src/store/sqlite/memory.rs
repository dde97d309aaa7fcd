//! How SQLite is given memory, for all connections of the process.
//!
//! Owns the only unsafe code of `sqlite`. It does not count what it uses, as nobody asks for
//! that, and it costs a lock at each allocation. Each connection has a store of small pieces:
//! that of the default is used up by the statements that the writing connection keeps.

#![expect(unsafe_code, reason = "settings of the whole library have no safe interface")]

use std::{ffi::c_int, sync::Once};

use rusqlite::ffi;

/// Bytes of a piece, and pieces of a connection.
const LOOKASIDE: (c_int, c_int) = (1_200, 256);

/// To be called before the first connection is opened; later it does nothing.
pub fn configure() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let (bytes, pieces) = LOOKASIDE;
        // SAFETY: the settings take one `int`, and two. SQLite refuses them once it has been
        // initialised. Nobody may initialise it at this very moment: all connections of this
        // crate come after this, and a program that opens the first one of its own while it opens
        // its first store has to see to that.
        let codes = unsafe {
            [
                ffi::sqlite3_config(ffi::SQLITE_CONFIG_MEMSTATUS, 0 as c_int),
                ffi::sqlite3_config(ffi::SQLITE_CONFIG_LOOKASIDE, bytes, pieces),
            ]
        };
        if codes != [ffi::SQLITE_OK; 2] {
            tracing::debug!(?codes, "SQLite keeps its settings of memory");
        }
    });
}
