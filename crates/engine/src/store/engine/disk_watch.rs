//! Tells of a disk that does not answer.
//!
//! A call that neither fails nor returns cannot be ended from within the process: everything
//! waits for it. Owns when that is told, by another thread. Must not know what the call does.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How long a call may take before it is told.
const SLOW: Duration = Duration::from_secs(5);

/// How often a call that lasts is told.
const REMINDER: Duration = Duration::from_secs(30);

/// How often it is looked at.
const TICK: Duration = Duration::from_secs(1);

/// The call on the disk that is under way, if there is one.
#[derive(Debug)]
pub struct DiskWatch {
    created: Instant,
    /// When it began, in milliseconds since `created`, and one more; 0 if there is none.
    began: AtomicU64,
}

/// A call that is under way until this is dropped.
#[derive(Debug)]
pub struct DiskCall(Arc<DiskWatch>);

impl Drop for DiskCall {
    fn drop(&mut self) {
        self.0.began.store(0, Ordering::Release);
    }
}

impl DiskWatch {
    /// No call is under way.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { created: Instant::now(), began: AtomicU64::new(0) })
    }

    /// A call begins. There is one at a time.
    pub fn begin(self: &Arc<Self>) -> DiskCall {
        let now = u64::try_from(self.created.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
        self.began.store(now + 1, Ordering::Release);
        DiskCall(Arc::clone(self))
    }

    /// For how long the present call has lasted.
    fn lasts(&self) -> Option<Duration> {
        let began = self.began.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.created.elapsed().saturating_sub(Duration::from_millis(began)))
    }
}

/// Looks until the engine is gone, and tells of calls that last.
pub async fn watch(calls: Weak<DiskWatch>) {
    let mut told = None;
    loop {
        tokio::time::sleep(TICK).await;
        crate::failpoint::hit("disk-watch");
        let Some(calls) = calls.upgrade() else { return };
        told = match (calls.lasts().filter(|lasts| *lasts >= SLOW), told) {
            (Some(lasts), Some(before)) if lasts < before + REMINDER => Some(before),
            (Some(lasts), _) => {
                tracing::error!(
                    since = ?lasts,
                    "the disk does not answer, and everything waits for it: see what is wrong with it; \
                     what was acknowledged is safe"
                );
                Some(lasts)
            }
            (None, Some(_)) => {
                tracing::info!("the disk answers again: all goes on");
                None
            }
            (None, None) => None,
        };
    }
}
