//! One queue: its settings, what is used of its limits, and its line.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    Limit, MAX_WAITING_BYTES, MAX_WAITING_CALLERS, Permits, Refused, WhenFull,
    drain_rate::DrainRate, lock,
};
use crate::queue::Settings;

/// One queue's settings, what is used of its limits, and its line.
#[derive(Debug)]
pub struct QueueGate {
    pub queue: Arc<str>,
    pub state: Mutex<QueueGateState>,
}

#[derive(Debug)]
pub struct QueueGateState {
    pub settings: Settings,
    /// What is used of the limits.
    pub used: Used,
    /// By ticket, so in the order of arrival.
    pub line: BTreeMap<u64, Waiting>,
    /// What stands in line.
    in_line: Used,
    next_ticket: u64,
    /// A caller from the line has its permit, and its task is not on its way to the store yet.
    /// Nobody else is let in meanwhile: tasks reach the store in the order of the line.
    handoff_pending: bool,
    drain: DrainRate,
}

/// Tasks and their bytes, counted. Neither end is passed: a count that went below nothing
/// and came out at the top would make a queue full for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    tasks: u64,
    bytes: u64,
}

impl Used {
    /// Tasks.
    #[cfg(test)]
    pub fn tasks(self) -> u64 {
        self.tasks
    }

    /// Their bytes.
    pub fn bytes(self) -> u64 {
        self.bytes
    }

    /// Counts more.
    pub fn add(&mut self, tasks: u64, bytes: u64) {
        *self = self.and(tasks, bytes);
    }

    fn and(self, tasks: u64, bytes: u64) -> Self {
        Self { tasks: self.tasks.saturating_add(tasks), bytes: self.bytes.saturating_add(bytes) }
    }

    fn is_within(self, settings: &Settings) -> bool {
        self.tasks <= settings.max_tasks && self.bytes <= settings.max_bytes
    }

    /// Counts as many less. More than there are is a mistake of this program, after which
    /// nothing is used.
    pub fn remove(&mut self, tasks: u64, bytes: u64) {
        debug_assert!(tasks <= self.tasks && bytes <= self.bytes, "{self:?} - {tasks}, {bytes}");
        self.tasks = self.tasks.saturating_sub(tasks);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

#[derive(Debug)]
pub struct Waiting {
    tasks: u64,
    bytes: u64,
    grant: oneshot::Sender<Result<Permits, Refused>>,
}

/// Somebody who leaves the line, and with what.
type Served = (Waiting, Result<Permits, Refused>);

pub enum Entry {
    Inside(Permits),
    InLine(PendingPermit),
}

impl QueueGateState {
    fn fits(&self, tasks: u64, bytes: u64) -> bool {
        self.used.and(tasks, bytes).is_within(&self.settings)
    }

    /// What would be used if all in line were in, and this one behind them.
    fn behind_line(&self, tasks: u64, bytes: u64) -> Used {
        self.used.and(self.in_line.tasks, self.in_line.bytes).and(tasks, bytes)
    }

    /// Takes out of the line, wherever they stand, those that ask for more than the limits
    /// are now: they would wait for nothing.
    fn send_away_who_never_fits(&mut self) -> Vec<Served> {
        let mut sent_away = Vec::new();
        for (ticket, waiting) in std::mem::take(&mut self.line) {
            match never_fits(&self.settings, waiting.tasks, waiting.bytes) {
                None => drop(self.line.insert(ticket, waiting)),
                Some(never) => {
                    self.in_line.remove(waiting.tasks, waiting.bytes);
                    sent_away.push((waiting, Err(never)));
                }
            }
        }
        sent_away
    }

    /// Whether somebody with so much is let in now.
    fn lets_in(&self, tasks: u64, bytes: u64, when_full: WhenFull) -> bool {
        match when_full {
            WhenFull::Wait => {
                self.line.is_empty() && !self.handoff_pending && self.fits(tasks, bytes)
            }
            // Who stands in line may do so only until the one before has entered: that takes
            // no room from whoever fits beside all of them.
            WhenFull::Reject => self.behind_line(tasks, bytes).is_within(&self.settings),
        }
    }

    /// Why somebody with so much is not let in.
    fn refusal(&self, tasks: u64, bytes: u64) -> Refused {
        let Settings { max_tasks, max_bytes, .. } = self.settings;
        let limit = if self.behind_line(tasks, bytes).tasks > max_tasks {
            Limit::Tasks(max_tasks)
        } else {
            Limit::Bytes(max_bytes)
        };
        Refused::Full { limit, retry_after: self.retry_after() }
    }

    fn retry_after(&self) -> Duration {
        self.drain.time_for(self.line.len() as u64 + 1, Instant::now())
    }
}

impl QueueGate {
    pub fn new(queue: Arc<str>, settings: Settings) -> Arc<Self> {
        let state = QueueGateState {
            settings,
            used: Used::default(),
            line: BTreeMap::new(),
            in_line: Used::default(),
            next_ticket: 0,
            handoff_pending: false,
            drain: DrainRate::new(Instant::now()),
        };
        Arc::new(Self { queue, state: Mutex::new(state) })
    }

    pub fn enter(
        self: &Arc<Self>,
        tasks: u64,
        bytes: u64,
        when_full: WhenFull,
    ) -> Result<Entry, Refused> {
        let mut state = lock(&self.state);
        if let Some(never) = never_fits(&state.settings, tasks, bytes) {
            return Err(never);
        }
        if state.lets_in(tasks, bytes, when_full) {
            return Ok(Entry::Inside(self.reserve(&mut state, tasks, bytes)));
        }
        if when_full == WhenFull::Reject {
            return Err(state.refusal(tasks, bytes));
        }
        let line_full = state.line.len() >= MAX_WAITING_CALLERS
            || state.in_line.bytes.saturating_add(bytes) > MAX_WAITING_BYTES;
        if line_full {
            return Err(Refused::Full { limit: Limit::Line, retry_after: state.retry_after() });
        }
        let (grant, granted) = oneshot::channel();
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        state.in_line.add(tasks, bytes);
        state.line.insert(ticket, Waiting { tasks, bytes, grant });
        Ok(Entry::InLine(PendingPermit { gate: Arc::clone(self), ticket, tasks, bytes, granted }))
    }

    /// Lets somebody in at once, or not at all. Who would wait overtakes nobody in line.
    pub fn try_enter(
        self: &Arc<Self>,
        tasks: u64,
        bytes: u64,
        when_full: WhenFull,
    ) -> Result<Permits, Refused> {
        let mut state = lock(&self.state);
        match never_fits(&state.settings, tasks, bytes) {
            Some(never) => Err(never),
            None if state.lets_in(tasks, bytes, when_full) => {
                Ok(self.reserve(&mut state, tasks, bytes))
            }
            None => Err(state.refusal(tasks, bytes)),
        }
    }

    /// Lets one more task in behind somebody from the line who is on its way into the store, if
    /// there is room: before anybody else in line.
    pub fn try_enter_behind(self: &Arc<Self>, bytes: u64) -> Option<Permits> {
        let mut state = lock(&self.state);
        state.fits(1, bytes).then(|| self.reserve(&mut state, 1, bytes))
    }

    pub fn configure(self: &Arc<Self>, settings: Settings) {
        let served = {
            let mut state = lock(&self.state);
            state.settings = settings;
            let mut served = state.send_away_who_never_fits();
            served.extend(self.serve_line(&mut state));
            served
        };
        hand_over(served);
    }

    /// Empties the line, and tells everyone in it why.
    pub fn send_away(&self, cause: Refused) {
        let line = {
            let mut state = lock(&self.state);
            state.in_line = Used::default();
            std::mem::take(&mut state.line)
        };
        hand_over(line.into_values().map(|waiting| (waiting, Err(cause))).collect());
    }

    pub fn leave(self: &Arc<Self>, tasks: u64, bytes: u64) {
        let granted = {
            let mut state = lock(&self.state);
            state.used.remove(tasks, bytes);
            state.drain.left(tasks, Instant::now());
            self.serve_line(&mut state)
        };
        hand_over(granted);
    }

    /// Takes the front of the line if it fits. The next one is served once this one has
    /// entered.
    fn serve_line(self: &Arc<Self>, state: &mut QueueGateState) -> Vec<Served> {
        let mut served = Vec::new();
        while !state.handoff_pending
            && let Some((_, first)) = state.line.first_key_value()
        {
            let (tasks, bytes) = (first.tasks, first.bytes);
            if !state.fits(tasks, bytes) {
                break;
            }
            let Some((_, waiting)) = state.line.pop_first() else { break };
            state.in_line.remove(tasks, bytes);
            state.handoff_pending = true;
            let mut permits = self.reserve(state, tasks, bytes);
            permits.handoff = Some(Handoff { gate: Arc::clone(self) });
            served.push((waiting, Ok(permits)));
        }
        served
    }

    fn reserve(self: &Arc<Self>, state: &mut QueueGateState, tasks: u64, bytes: u64) -> Permits {
        state.used.add(tasks, bytes);
        Permits { gate: Arc::clone(self), tasks, bytes, handoff: None }
    }

    /// What a caller is told that has waited for room for as long as it does.
    pub fn full(&self, tasks: u64, bytes: u64) -> Refused {
        lock(&self.state).refusal(tasks, bytes)
    }
}

/// A caller from the line is on its way into the store; dropping it lets the next one in.
#[derive(Debug)]
pub struct Handoff {
    gate: Arc<QueueGate>,
}

impl Drop for Handoff {
    fn drop(&mut self) {
        let granted = {
            let mut state = lock(&self.gate.state);
            state.handoff_pending = false;
            self.gate.serve_line(&mut state)
        };
        hand_over(granted);
    }
}

/// Hands permits over once the gate's lock is free: permits whose caller has
/// gone are dropped here, which takes the lock again to pass them on.
fn hand_over(served: Vec<Served>) {
    for (waiting, answer) in served {
        drop(waiting.grant.send(answer));
    }
}

fn never_fits(settings: &Settings, tasks: u64, bytes: u64) -> Option<Refused> {
    if bytes > settings.max_bytes {
        Some(Refused::LargerThanQueue { bytes, limit: settings.max_bytes })
    } else if tasks > settings.max_tasks {
        Some(Refused::MoreThanQueue { tasks, limit: settings.max_tasks })
    } else {
        None
    }
}

/// A permit that a caller waits for in the line; dropping it leaves the line.
pub struct PendingPermit {
    gate: Arc<QueueGate>,
    ticket: u64,
    tasks: u64,
    bytes: u64,
    granted: oneshot::Receiver<Result<Permits, Refused>>,
}

impl PendingPermit {
    /// `None` if the line is emptied without an answer.
    pub async fn granted(mut self) -> Option<Result<Permits, Refused>> {
        (&mut self.granted).await.ok()
    }
}

impl Drop for PendingPermit {
    fn drop(&mut self) {
        let granted = {
            let mut state = lock(&self.gate.state);
            if state.line.remove(&self.ticket).is_none() {
                return;
            }
            state.in_line.remove(self.tasks, self.bytes);
            // If this caller stood in front, the next one may fit.
            self.gate.serve_line(&mut state)
        };
        hand_over(granted);
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn a_count_passes_neither_end() {
        let mut used = Used::default();
        used.add(1, u64::MAX);
        used.add(0, 1);
        assert_eq!((used.tasks(), used.bytes()), (1, u64::MAX));
        // A debug build finds the mistake; a release build goes on without a queue that is
        // full for ever.
        let removed = catch_unwind(AssertUnwindSafe(|| used.remove(2, 1)));
        assert_eq!(removed.is_err(), cfg!(debug_assertions));
        assert!(used.tasks() <= 1, "{used:?}");
    }
}
