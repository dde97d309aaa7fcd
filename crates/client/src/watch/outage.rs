//! How long there has been no stream, and when it is tried again.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Status;

use super::super::{
    retry::backoff,
    status::{Pushback, is_lost, pushback, reason},
};

/// The shortest backoff between two tries, whatever the server asks for.
const MIN_BACKOFF: Duration = Duration::from_millis(10);

/// What every try gets to be answered in, also the last one of an outage.
const LEAST_TRY: Duration = Duration::from_millis(100);

/// A stream that has stood for so long ends the outage before it.
const STEADY: Duration = Duration::from_secs(1);

/// The outages of a watch.
pub struct Outages {
    max_outage: Duration,
    current: Option<Outage>,
    /// Some stream has told something.
    has_stood: bool,
    backoff_until: Option<Instant>,
}

struct Outage {
    failures: u32,
    /// Until when it is waited for; `None` is for longer than there is time.
    ends: Option<Instant>,
    is_told: bool,
    /// A stream tells something again, since then.
    stands_since: Option<Instant>,
}

impl Outages {
    /// None yet. One that is longer than `max_outage` is to end the watch.
    pub fn new(max_outage: Duration) -> Self {
        Self { max_outage, current: None, has_stood: false, backoff_until: None }
    }

    /// The stream is not opened before.
    pub fn backoff_until(&self) -> Option<Instant> {
        self.backoff_until
    }

    /// For how long a try that begins then is waited for, beside what holds for all: not
    /// beyond the outage.
    pub fn try_until(&self) -> Option<Instant> {
        let ends = self.current.as_ref()?.ends?;
        Some(ends.max(self.backoff_until? + LEAST_TRY))
    }

    /// The stream tells something; whether that is news after an outage that was told.
    pub fn stands(&mut self) -> bool {
        self.has_stood = true;
        let Some(outage) = &mut self.current else { return false };
        outage.stands_since.get_or_insert_with(Instant::now);
        std::mem::take(&mut outage.is_told)
    }

    /// There is no stream; whether that is to be told.
    ///
    /// # Errors
    /// The status, if it is of no use to try again.
    pub fn lose(&mut self, status: &Status) -> Result<bool, Status> {
        let now = Instant::now();
        let stood = self.current.as_mut().and_then(|outage| outage.stands_since.take());
        if stood.is_some_and(|since| now.duration_since(since) >= STEADY) {
            self.current = None;
        }
        let reason = reason(status);
        if matches!(reason.as_deref(), Some("WATCH_LIFETIME" | "WATCH_STALLED")) {
            let delay = asked_backoff(status)?.unwrap_or_default().max(MIN_BACKOFF);
            self.backoff_until = now.checked_add(delay);
            return Ok(false);
        }
        let is_crowded = reason.as_deref() == Some("TOO_MANY_WATCHERS") && self.has_stood;
        if !is_lost(status) && !is_crowded {
            return Err(status.clone());
        }
        let ends = now.checked_add(self.max_outage);
        let new = Outage { failures: 0, ends, is_told: false, stands_since: None };
        let outage = self.current.get_or_insert(new);
        outage.failures = outage.failures.saturating_add(1);
        let delay = asked_backoff(status)?.unwrap_or_else(|| backoff(outage.failures));
        let next_try = now.checked_add(delay.max(MIN_BACKOFF));
        let in_time = next_try.filter(|next| outage.ends.is_none_or(|ends| *next <= ends));
        self.backoff_until = Some(in_time.ok_or_else(|| status.clone())?);
        Ok(!std::mem::replace(&mut outage.is_told, true))
    }
}

/// The backoff that the server asks for before another try, if it does.
///
/// # Errors
/// It asks for no other try.
fn asked_backoff(status: &Status) -> Result<Option<Duration>, Status> {
    match pushback(status) {
        Pushback::Unsaid => Ok(None),
        Pushback::After(delay) => Ok(Some(delay)),
        Pushback::Never => Err(status.clone()),
    }
}
