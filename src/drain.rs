//! The switch that begins a drain from within, and the report that it ends with.
//!
//! Owns neither the drain, which is the server's, nor who asks for it.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::supervisor::Failure;

/// What a drain left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Executions that ended by themselves during the drain.
    pub finished: u64,
    /// Executions that were interrupted; their tasks run again at the next start.
    pub interrupted: u64,
    /// Tasks that wait for the next start, the interrupted ones included; `None` if the store
    /// could not be closed, and so cannot tell.
    pub remaining: Option<u64>,
    /// Every execution ended, or was recorded as interrupted, within the bound.
    /// Not so if a handler blocked its thread, or the store has failed.
    pub complete: bool,
    /// Some clients kept their connections open to the end, and were cut off.
    pub clients_cut: bool,
}

/// Asks for a drain, and waits for its report. Clones are the same switch.
#[derive(Clone, Debug)]
pub struct Switch {
    requested: CancellationToken,
    report: watch::Sender<Option<Result<Report, Failure>>>,
    end_by: Arc<OnceLock<Instant>>,
}

impl Default for Switch {
    fn default() -> Self {
        Self {
            requested: CancellationToken::new(),
            report: watch::channel(None).0,
            end_by: Arc::default(),
        }
    }
}

impl Switch {
    /// Asks for the drain, and returns with its report once the store is closed.
    /// Whether clients were cut off is not known then.
    ///
    /// # Errors
    /// If the server has failed, and did not end by the drain.
    pub async fn drain(&self) -> Result<Report, Failure> {
        let mut report = self.report.subscribe();
        self.requested.cancel();
        loop {
            if let Some(told) = &*report.borrow_and_update() {
                return told.clone();
            }
            // This switch can tell: its sender lives.
            let _ = report.changed().await;
        }
    }

    /// Returns once someone has asked for the drain.
    pub async fn requested(&self) {
        self.requested.cancelled().await;
    }

    /// The drain has begun, and ends by then. Only the first time counts.
    pub fn begun(&self, end_by: Instant) {
        let _ = self.end_by.set(end_by);
    }

    /// How long the drain may still take; `None` before it has begun.
    pub fn time_left(&self) -> Option<Duration> {
        self.end_by.get().map(|end_by| end_by.saturating_duration_since(Instant::now()))
    }

    /// Tells everybody who waits.
    pub fn tell(&self, report: Result<Report, Failure>) {
        self.report.send_replace(Some(report));
    }
}
