//! One future, played through event by event.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
};

use rand::{Rng as _, rngs::StdRng};

use super::{LONGEST_WAIT, Queue, Running, Situation};

/// As many executions of a class tell how long it takes; with fewer, a run assumes that
/// they may all be off by a factor of its own.
const ENOUGH: usize = 8;
/// By how much that factor's logarithm spreads with hardly any.
const THIN: f64 = 1.0;
/// By how much the times of a class spread of which none was seen, around those of all.
const UNSEEN: f64 = 2.0;
/// Services of one step that are drawn one by one; the sum of more is drawn at once.
const MAX_DRAWN: u64 = 8;
/// The later something happens, the less it matters when exactly: tasks that take less, all
/// together, than this part of the time that has passed are started in one step, and arrive
/// in one. So the events of a run grow with the logarithm of what is told.
const STEP: f64 = 0.04;
/// Events after which a run is given up.
const MAX_EVENTS: u64 = 1_000_000;

/// A moment, in seconds from now, or a pass.
#[derive(Clone, Copy, Debug, PartialEq)]
struct At(f64);

impl Eq for At {}

impl Ord for At {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for At {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// How long tasks of a class take in this run.
#[derive(Debug)]
struct Service {
    seconds: Vec<f64>,
    mean: f64,
    deviation: f64,
}

/// A queue in this run.
#[derive(Debug)]
struct Lane {
    /// What it has been charged for its starts; the lowest starts next.
    pass: f64,
    state: LaneState,
    stride: f64,
    ahead: Vec<(usize, u64)>,
    behind: Vec<(usize, u64)>,
    /// When the task that is asked about starts.
    start: Option<f64>,
    running: u64,
    max_running: u64,
    /// Seconds between starts that its rate leaves, and when it lets the next one start.
    interval: f64,
    next_start: f64,
    /// Tasks that have arrived by now and not started, seconds between arrivals, and when
    /// the next one comes.
    arrived: u64,
    arrival_interval: f64,
    next_arrival: f64,
    blocked: bool,
    /// The classes of tasks that arrive.
    classes: Vec<usize>,
}

/// Where a queue is to be found.
#[derive(Clone, Copy, Debug)]
enum LaneState {
    /// Nowhere: it has nothing to start, or may not.
    Aside,
    /// Among those that can start something, by its pass.
    InTurn(At),
    /// Among those that can at some time.
    Later(At),
}

/// One future.
pub struct Play {
    random: StdRng,
    services: Vec<Service>,
    lanes: Vec<Lane>,
    in_turn: BTreeSet<(At, usize)>,
    later: BTreeSet<(At, usize)>,
    /// The pass of the latest start.
    pass: f64,
    idle: u32,
    now: f64,
    /// When workers are free, and of which queue.
    busy: BinaryHeap<Reverse<(At, usize)>>,
    undecided: usize,
}

impl Play {
    pub fn new(situation: &Situation, mut random: StdRng) -> Self {
        let services = services(situation, &mut random);
        let mut lanes: Vec<Lane> =
            situation.queues.iter().map(|queue| Lane::new(queue, &mut random)).collect();
        let mut busy = BinaryHeap::with_capacity(situation.running.len());
        for running in &situation.running {
            let left = rest(&services[running.class], running.seconds, &mut random);
            busy.push(Reverse((At(left), running.queue)));
            lanes[running.queue].running += 1;
        }
        let working = u32::try_from(busy.len()).unwrap_or(u32::MAX);
        let mut play = Self {
            random,
            services,
            undecided: lanes.iter().filter(|lane| lane.may_ever_start()).count(),
            lanes,
            in_turn: BTreeSet::new(),
            later: BTreeSet::new(),
            pass: 0.0,
            idle: situation.workers.saturating_sub(working),
            now: 0.0,
            busy,
        };
        (0..play.lanes.len()).for_each(|lane| play.settle(lane));
        play
    }

    /// When the task that is asked about starts, in each queue.
    pub fn waits(mut self) -> Vec<Option<f64>> {
        for _ in 0..MAX_EVENTS {
            self.start_what_can();
            if self.undecided == 0 || !self.go_on() {
                break;
            }
            if self.now > LONGEST_WAIT.as_secs_f64() {
                let late = self.lanes.iter_mut().filter(|lane| lane.may_ever_start());
                late.for_each(|lane| lane.start = lane.start.or(Some(self.now)));
                break;
            }
        }
        self.lanes.into_iter().map(|lane| lane.start).collect()
    }

    fn start_what_can(&mut self) {
        while self.idle > 0 && self.undecided > 0 {
            let Some(&(_, next)) = self.in_turn.first() else { return };
            self.start(next);
            self.settle(next);
        }
    }

    /// Puts a queue where it belongs after a change.
    fn settle(&mut self, queue: usize) {
        let lane = &mut self.lanes[queue];
        match lane.state {
            LaneState::Aside => {}
            LaneState::InTurn(pass) => drop(self.in_turn.remove(&(pass, queue))),
            LaneState::Later(at) => drop(self.later.remove(&(at, queue))),
        }
        lane.let_arrive(self.now);
        lane.state = match lane.next_change() {
            Some(at) if at <= self.now => {
                // A rest is neither paid for nor paid back.
                if !matches!(lane.state, LaneState::InTurn(_)) {
                    lane.pass = lane.pass.max(self.pass);
                }
                LaneState::InTurn(At(lane.pass))
            }
            Some(at) if at.is_finite() => LaneState::Later(At(at)),
            _ => LaneState::Aside,
        };
        match lane.state {
            LaneState::Aside => {}
            LaneState::InTurn(pass) => drop(self.in_turn.insert((pass, queue))),
            LaneState::Later(at) => drop(self.later.insert((at, queue))),
        }
    }

    /// Starts what a queue has next: a step of its tasks, which one worker does in turn.
    fn start(&mut self, queue: usize) {
        let lane = &mut self.lanes[queue];
        if lane.start.is_none() && total(&lane.ahead) == 0 {
            // It takes nothing from the others, as it is only asked about.
            lane.start = Some(self.now);
            self.undecided -= 1;
            return;
        }
        let at_once = (STEP * self.now, STEP * self.now / lane.interval);
        let list = if lane.start.is_none() { &mut lane.ahead } else { &mut lane.behind };
        let (seconds, started) = if total(list) > 0 {
            let mean = mean(list, &self.services);
            take(list, step(at_once, mean), &self.services, &mut self.random)
        } else {
            let class = lane.classes[self.random.random_range(0..lane.classes.len())];
            let service = &self.services[class];
            let step = step(at_once, service.mean).min(lane.arrived);
            lane.arrived -= step;
            (sum(service, step, &mut self.random), step)
        };
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let started = started as f64;
        self.pass = lane.pass;
        lane.pass += lane.stride * started;
        lane.next_start = lane.next_start.max(self.now) + lane.interval * started;
        lane.running += 1;
        self.idle -= 1;
        self.busy.push(Reverse((At(self.now + seconds), queue)));
    }

    /// Goes on to the next moment at which something can start; tells whether there is one.
    fn go_on(&mut self) -> bool {
        let ends = self.busy.peek().map(|Reverse((at, _))| *at);
        let changes = self.later.first().map(|(at, _)| *at).filter(|_| self.idle > 0);
        let Some(At(next)) = [ends, changes].into_iter().flatten().min() else { return false };
        self.now = self.now.max(next);
        while let Some(Reverse((At(at), queue))) = self.busy.peek().copied()
            && at <= self.now
        {
            self.busy.pop();
            self.idle += 1;
            self.lanes[queue].running -= 1;
            self.settle(queue);
        }
        while let Some((At(at), queue)) = self.later.first().copied()
            && at <= self.now
        {
            self.settle(queue);
        }
        true
    }
}

impl Lane {
    fn new(queue: &Queue, random: &mut StdRng) -> Self {
        let stride = 1.0 / f64::from(queue.weight.max(1));
        let rate = queue.rate_per_second.map(|rate| if rate > 0.0 { rate } else { 0.0 });
        let arrives = queue.arrival_rate > 0.0 && !queue.classes.is_empty();
        let arrival_interval = if arrives { 1.0 / queue.arrival_rate } else { f64::INFINITY };
        let interval = rate.map_or(0.0, |rate| 1.0 / rate);
        let waits = total(&queue.ahead) + total(&queue.behind) > 0;
        Self {
            // Which queue's turn it is, is not known.
            pass: stride * random.random::<f64>(),
            state: LaneState::Aside,
            stride,
            ahead: queue.ahead.clone(),
            behind: queue.behind.clone(),
            start: None,
            running: 0,
            max_running: queue.max_running.map_or(u64::MAX, u64::from),
            interval,
            // What waits behind a rate has emptied the bucket.
            next_start: if waits && interval.is_finite() { interval } else { 0.0 },
            arrived: 0,
            arrival_interval,
            next_arrival: arrival_interval * random.random::<f64>(),
            blocked: queue.blocked || interval.is_infinite(),
            classes: queue.classes.clone(),
        }
    }

    fn may_ever_start(&self) -> bool {
        !self.blocked && self.max_running > 0
    }

    fn has_work(&self) -> bool {
        self.start.is_none() || self.arrived > 0 || total(&self.behind) > 0
    }

    /// From when on it can start something, if no execution's end has to come first.
    fn next_change(&self) -> Option<f64> {
        if !self.may_ever_start() || self.running >= self.max_running {
            None
        } else if self.has_work() {
            Some(self.next_start)
        } else {
            Some(self.next_arrival.max(self.next_start))
        }
    }

    fn let_arrive(&mut self, now: f64) {
        if now < self.next_arrival || self.start.is_none() {
            return;
        }
        // All that come until then come now.
        let until = now + STEP * now;
        let more = ((until - self.next_arrival) / self.arrival_interval).floor() + 1.0;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
        let count = more as u64;
        self.arrived = self.arrived.saturating_add(count);
        self.next_arrival += more * self.arrival_interval;
    }
}

fn total(list: &[(usize, u64)]) -> u64 {
    list.iter().map(|(_, count)| count).sum()
}

/// How long one of these tasks takes on average.
#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn mean(list: &[(usize, u64)], services: &[Service]) -> f64 {
    let seconds = list.iter().map(|(class, count)| services[*class].mean * *count as f64);
    seconds.sum::<f64>() / total(list) as f64
}

/// How many tasks start in one step, if so many seconds of work may, and so many starts.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
fn step((seconds, starts): (f64, f64), mean: f64) -> u64 {
    ((seconds / mean).min(starts) as u64).max(1)
}

/// Takes about `step` tasks, at least one, of all classes by how many there are of each.
/// Returns how long they take one after the other, and how many they are.
fn take(
    list: &mut [(usize, u64)],
    step: u64,
    services: &[Service],
    random: &mut StdRng,
) -> (f64, u64) {
    let waiting = total(list);
    let step = step.min(waiting);
    let (mut seconds, mut taken) = (0.0, 0);
    if step > 1 {
        for (class, count) in list.iter_mut() {
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let part = *count as f64 * step as f64 / waiting as f64 + random.random::<f64>();
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "floor")]
            let part = (part as u64).min(*count);
            *count -= part;
            taken += part;
            seconds += sum(&services[*class], part, random);
        }
    }
    if taken == 0 {
        let mut which = random.random_range(0..waiting.max(1));
        for (class, count) in list.iter_mut() {
            if which < *count {
                *count -= 1;
                return (sum(&services[*class], 1, random), 1);
            }
            which -= *count;
        }
    }
    (seconds, taken.max(1))
}

/// How long `count` tasks take one after the other.
fn sum(service: &Service, count: u64, random: &mut StdRng) -> f64 {
    if count <= MAX_DRAWN {
        return (0..count)
            .map(|_| service.seconds[random.random_range(0..service.seconds.len())])
            .sum();
    }
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    let count = count as f64;
    let spread = service.deviation * count.sqrt() * normal(random);
    (service.mean * count + spread).max(0.0)
}

/// How much longer an execution takes that has taken `seconds`.
fn rest(service: &Service, seconds: f64, random: &mut StdRng) -> f64 {
    let longer = service.seconds.iter().filter(|seen| **seen > seconds).count();
    if longer == 0 {
        return as_long_again(seconds, random) - seconds;
    }
    let which = random.random_range(0..longer);
    let seen = service.seconds.iter().filter(|seen| **seen > seconds).nth(which);
    seen.map_or(0.0, |seen| seen - seconds)
}

/// How long an execution takes in all that has lasted for longer than any that was seen:
/// with even chances less or more than twice as long, and so on (a Pareto distribution with
/// the exponent 1).
fn as_long_again(seconds: f64, random: &mut StdRng) -> f64 {
    const LEAST: f64 = 1e-6;
    seconds.max(1e-3) / (1.0 - random.random::<f64>()).max(LEAST)
}

/// A standard normal value, by the method of Box and Muller.
fn normal(random: &mut StdRng) -> f64 {
    let radius = (-2.0 * (1.0 - random.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * random.random::<f64>()).cos()
}

/// How long each class takes in this run: what was seen, drawn with replacement.
fn services(situation: &Situation, random: &mut StdRng) -> Vec<Service> {
    let pool: Vec<f64> = situation
        .classes
        .iter()
        .flat_map(|class| class.seconds.iter().copied().map(f64::from))
        .collect();
    let mut classes: Vec<Vec<f64>> = Vec::with_capacity(situation.classes.len());
    for class in &situation.classes {
        let seen: Vec<f64> = class.seconds.iter().copied().map(f64::from).collect();
        let factor = match seen.len() {
            0 => (UNSEEN * normal(random)).exp(),
            few if few < ENOUGH => {
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let missing = (ENOUGH - few) as f64 / ENOUGH as f64;
                (THIN * missing * normal(random)).exp()
            }
            _ => 1.0,
        };
        let (seconds, count) = match (seen.len(), pool.is_empty()) {
            (0, true) => (&pool, 0),
            (0, false) => (&pool, ENOUGH),
            (count, _) => (&seen, count),
        };
        let drawn = (0..count).map(|_| seconds[random.random_range(0..seconds.len())] * factor);
        classes.push(drawn.collect());
    }
    // Those that run for longer than any that was seen tell that there are such.
    for Running { class, seconds, .. } in &situation.running {
        let seen = &situation.classes[*class].seconds;
        if seen.iter().all(|seen| f64::from(*seen) < *seconds) {
            classes[*class].push(as_long_again(*seconds, random));
        }
    }
    classes.into_iter().map(|seconds| Service::of(seconds, random)).collect()
}

impl Service {
    /// With nothing seen of anything, anything is possible.
    fn of(mut seconds: Vec<f64>, random: &mut StdRng) -> Self {
        if seconds.is_empty() {
            seconds.push((2.0 * UNSEEN * normal(random)).exp());
        }
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let count = seconds.len() as f64;
        let mean = seconds.iter().sum::<f64>() / count;
        let variance = seconds.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / count;
        Self { seconds, mean, deviation: variance.sqrt() }
    }
}
