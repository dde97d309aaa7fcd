//! The order of what waits.
//!
//! Owns, for every queue, its due tasks in the order in which they start: by
//! priority, then due time, then submission; which queue the next start comes
//! from; and the tasks that become due later. Knows numbers only: no rows, no
//! names, no clock.
//!
//! Queues that have work share the pool by their weights. This is stride
//! scheduling (Waldspurger and Weihl, 1995): each queue has a *pass*, which goes
//! up by [`STRIDE`] / weight with each start, and the next start comes from the
//! queue with the lowest pass. A queue that comes back after a rest begins at the
//! present pass, so that it neither pays for its rest nor is paid for it. A
//! queue that may not start anything (it is paused, or has reached its limits)
//! stands aside, and costs the others nothing.

use std::{
    cell::Cell,
    cmp::Reverse,
    collections::BTreeSet,
    num::NonZeroU32,
    rc::Rc,
    time::{Duration, Instant},
};

use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};

use crate::{
    queue::{Block, Rate, Settings},
    task::Timestamp,
};

/// What a start costs a queue of weight 1. Divisible by every weight up to 10,
/// so that equal shares stay equal.
const STRIDE: u128 = 2_520_000_000;

/// How much of its rate a queue may catch up on, however small its burst: the
/// engine looks at it again only after the commit that it is in, so that without
/// this what came late would be lost, and the rate not be reached.
const CATCH_UP: Duration = Duration::from_millis(20);

/// A queue, by its place in the table of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u32);

/// A task's key in the order of its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ReadyKey {
    priority: Reverse<i32>,
    due: Timestamp,
    number: u64,
}

impl ReadyKey {
    /// The key of task `number`.
    pub fn new(priority: i32, due: Timestamp, number: u64) -> Self {
        Self { priority: Reverse(priority), due, number }
    }
}

/// When a task becomes due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DueTimer {
    /// At this time of the wall clock.
    Wall(Timestamp),
    /// At this time of the steady clock, which does not step: the end of an
    /// interval.
    Steady(Timestamp),
}

impl DueTimer {
    /// Of a task that is due since `due` by the wall clock: since when that is by the
    /// clock that does not step, as far as the wall clock can be believed. No task is
    /// due since a time that has not come.
    pub fn elapsed(due: Timestamp, now: &EngineTime) -> Self {
        Self::Steady(now.steady.before(now.wall.since(due)))
    }

    /// The time, by the clock that it is of.
    pub fn time(self) -> Timestamp {
        match self {
            Self::Wall(time) | Self::Steady(time) => time,
        }
    }
}

/// The time by both clocks, at which the engine decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineTime {
    /// The wall clock, which may step.
    pub wall: Timestamp,
    /// The wall clock of the process's start, plus what has passed since then.
    pub steady: Timestamp,
    /// The same, for limiters of rates.
    pub instant: Instant,
}

/// The queues of all that waits.
#[derive(Debug, Default)]
pub struct ReadyQueues {
    lanes: Vec<QueueLane>,
    free: Vec<QueueId>,
    /// The queues that may start a task, by pass. Equals always stand in the same
    /// order, so that the starts repeat in a pattern that keeps the shares.
    turns: BTreeSet<(u128, QueueId)>,
    /// The pass of the latest start. It goes up for ever, which 128 bits can hold.
    pass: u128,
    /// The queues whose rate holds them back, and until when.
    held: BTreeSet<(Instant, QueueId)>,
    wall: BTreeSet<Later>,
    steady: BTreeSet<Later>,
}

/// A task that becomes due: of those that do at one time, the one that starts first
/// comes first, however many they are.
type Later = (Timestamp, Reverse<i32>, u64);

/// One queue.
#[derive(Debug)]
struct QueueLane {
    waiting: BTreeSet<ReadyKey>,
    running: u32,
    paused: bool,
    max_running: u32,
    stride: u128,
    limiter: Option<Limiter>,
    pass: u128,
    state: LaneState,
}

/// Where a queue is to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LaneState {
    /// Nowhere: it has nothing to start, or may not.
    Aside,
    /// Among the turns.
    InTurn(u128),
    /// Among those that their rate holds back.
    Held(Instant),
}

impl QueueLane {
    fn new(settings: &Settings) -> Self {
        let mut lane = Self {
            waiting: BTreeSet::new(),
            running: 0,
            paused: false,
            max_running: u32::MAX,
            stride: STRIDE,
            limiter: None,
            pass: 0,
            state: LaneState::Aside,
        };
        lane.configure(settings);
        lane
    }

    fn configure(&mut self, settings: &Settings) {
        self.max_running = settings.max_running.unwrap_or(u32::MAX);
        self.stride = STRIDE / u128::from(settings.weight.max(1));
        // A bucket that was emptied is not filled by naming the same rate again.
        if self.limiter.as_ref().map(|limiter| limiter.rate) != settings.rate {
            self.limiter = settings.rate.and_then(Limiter::new);
        }
    }

    fn may_start(&self) -> bool {
        !self.paused && self.running < self.max_running && !self.waiting.is_empty()
    }
}

/// A bucket of starts.
#[derive(Debug)]
struct Limiter {
    rate: Rate,
    now: Now,
    bucket: RateLimiter<NotKeyed, InMemoryState, Now, NoOpMiddleware<Instant>>,
}

/// The moment at which the bucket is looked at: the group's.
#[derive(Clone, Debug)]
struct Now(Rc<Cell<Instant>>);

impl Clock for Now {
    type Instant = Instant;

    fn now(&self) -> Instant {
        self.0.get()
    }
}

impl Limiter {
    fn new(rate: Rate) -> Option<Self> {
        let period = Duration::try_from_secs_f64(1.0 / rate.per_second).ok()?;
        let caught_up = CATCH_UP.as_nanos() / period.as_nanos().max(1);
        let burst = rate.burst.max(u32::try_from(caught_up).unwrap_or(u32::MAX));
        let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(period)?.allow_burst(burst);
        let now = Now(Rc::new(Cell::new(Instant::now())));
        Some(Self { rate, bucket: RateLimiter::direct_with_clock(quota, now.clone()), now })
    }

    /// Takes a start, or tells when there is one.
    fn take(&self, now: Instant) -> Result<(), Instant> {
        self.now.0.set(now);
        self.bucket.check().map_err(|not_until| not_until.earliest_possible())
    }
}

impl ReadyQueues {
    /// Adds a queue.
    pub fn add(&mut self, settings: &Settings) -> QueueId {
        let lane = QueueLane::new(settings);
        if let Some(id) = self.free.pop() {
            self.lanes[id.0 as usize] = lane;
            return id;
        }
        self.lanes.push(lane);
        QueueId(u32::try_from(self.lanes.len() - 1).unwrap_or(u32::MAX))
    }

    /// Takes a queue out that has nothing waiting and nothing running.
    pub fn take_out(&mut self, id: QueueId) {
        self.stand_aside(id);
        self.free.push(id);
    }

    /// Gives a queue other settings.
    pub fn configure(&mut self, id: QueueId, settings: &Settings) {
        self.lane(id).configure(settings);
        // What held it back may be gone.
        self.stand_aside(id);
        self.settle(id);
    }

    /// Pauses a queue, or resumes it.
    pub fn pause(&mut self, id: QueueId, paused: bool) {
        self.lane(id).paused = paused;
        self.settle(id);
    }

    /// Adds a task that is due.
    pub fn push(&mut self, id: QueueId, key: ReadyKey) {
        self.lane(id).waiting.insert(key);
        self.settle(id);
    }

    /// Takes a task out that is due.
    pub fn remove(&mut self, id: QueueId, key: ReadyKey) {
        self.lane(id).waiting.remove(&key);
        self.settle(id);
    }

    /// Takes the task that starts next, which then counts as running.
    pub fn pop(&mut self, now: Instant) -> Option<u64> {
        self.release(now);
        loop {
            let &(_, id) = self.turns.first()?;
            let lane = &mut self.lanes[id.0 as usize];
            if let Some(Err(until)) = lane.limiter.as_ref().map(|limiter| limiter.take(now)) {
                self.stand_aside(id);
                self.lane(id).state = LaneState::Held(until);
                self.held.insert((until, id));
                continue;
            }
            let next = lane.waiting.pop_first()?;
            lane.running += 1;
            self.pass = lane.pass;
            lane.pass += lane.stride;
            // To its next turn.
            self.stand_aside(id);
            self.settle(id);
            return Some(next.number);
        }
    }

    /// An execution of the queue's has ended.
    pub fn ended(&mut self, id: QueueId) {
        let lane = self.lane(id);
        lane.running = lane.running.saturating_sub(1);
        self.settle(id);
    }

    /// An execution of the queue's is under way that was not taken from here.
    pub fn resumed(&mut self, id: QueueId) {
        self.lane(id).running += 1;
        self.settle(id);
    }

    /// How many tasks wait and are due, and how many run.
    pub fn load(&self, id: QueueId) -> (u64, u64) {
        let lane = &self.lanes[id.0 as usize];
        (lane.waiting.len() as u64, lane.running.into())
    }

    /// The next task of a queue.
    pub fn next_of(&self, id: QueueId) -> Option<u64> {
        self.lanes[id.0 as usize].waiting.first().map(|key| key.number)
    }

    /// What holds the due tasks of a queue back.
    pub fn block(&self, id: QueueId, now: Instant) -> Option<Block> {
        let lane = &self.lanes[id.0 as usize];
        if lane.paused {
            Some(Block::Paused)
        } else if lane.running >= lane.max_running {
            Some(Block::MaxRunning)
        } else if matches!(lane.state, LaneState::Held(until) if until > now) {
            Some(Block::RateLimit)
        } else {
            None
        }
    }

    /// When the rate of a queue next lets a task start.
    pub fn next_release(&self) -> Option<Instant> {
        self.held.first().map(|(until, _)| *until)
    }

    /// Lets the queues back in whose rate allows it.
    fn release(&mut self, now: Instant) {
        while let Some((until, id)) = self.held.first().copied()
            && until <= now
        {
            self.stand_aside(id);
            self.settle(id);
        }
    }

    fn lane(&mut self, id: QueueId) -> &mut QueueLane {
        &mut self.lanes[id.0 as usize]
    }

    fn stand_aside(&mut self, id: QueueId) {
        match std::mem::replace(&mut self.lane(id).state, LaneState::Aside) {
            LaneState::Aside => {}
            LaneState::InTurn(pass) => {
                self.turns.remove(&(pass, id));
            }
            LaneState::Held(until) => {
                self.held.remove(&(until, id));
            }
        }
    }

    /// Puts a queue where it belongs after a change.
    fn settle(&mut self, id: QueueId) {
        let present = self.pass;
        let lane = self.lane(id);
        match (lane.may_start(), lane.state) {
            (false, _) => self.stand_aside(id),
            (true, LaneState::Aside) => {
                lane.pass = lane.pass.max(present);
                lane.state = LaneState::InTurn(lane.pass);
                let place = (lane.pass, id);
                self.turns.insert(place);
            }
            (true, LaneState::InTurn(_) | LaneState::Held(_)) => {}
        }
    }

    /// Adds a task that becomes due later.
    pub fn push_later(&mut self, timer: DueTimer, priority: i32, number: u64) {
        let priority = Reverse(priority);
        match timer {
            DueTimer::Wall(due) => self.wall.insert((due, priority, number)),
            DueTimer::Steady(due) => self.steady.insert((due, priority, number)),
        };
    }

    /// Takes a task out that would have become due later.
    pub fn remove_later(&mut self, timer: DueTimer, priority: i32, number: u64) {
        let priority = Reverse(priority);
        match timer {
            DueTimer::Wall(due) => self.wall.remove(&(due, priority, number)),
            DueTimer::Steady(due) => self.steady.remove(&(due, priority, number)),
        };
    }

    /// Takes a task that has become due, the earliest first.
    pub fn pop_due(&mut self, now: &EngineTime) -> Option<u64> {
        let come = |set: &mut BTreeSet<Later>, now| {
            let (due, ..) = set.first()?;
            (*due <= now).then(|| set.pop_first())?.map(|(.., number)| number)
        };
        come(&mut self.steady, now.steady).or_else(|| come(&mut self.wall, now.wall))
    }

    /// How long until the next task becomes due, as far as the clocks can tell:
    /// the wall clock may step, and is to be looked at again after `look_again`.
    pub fn until_due(&self, now: &EngineTime, look_again: Duration) -> Option<Duration> {
        let steady = self.steady.first().map(|(due, ..)| due.since(now.steady));
        let wall = self.wall.first().map(|(due, ..)| due.since(now.wall).min(look_again));
        [steady, wall].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests;
