//! The forecast of waits against pools that are played through, event by event, with the
//! scheduler's own order and what is counted of it here. Each has a fixed seed.
//!
//! A probe is a task like others: it is submitted at a random moment, its wait is forecast
//! just before, and then it is seen how long it waited.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use taskyard_domain::sizing::forecast::{self, Class as ForecastClass, Queue, Running, Situation};

use super::*;
use crate::{
    queue::Settings,
    store::ready::{ReadyKey, ReadyQueues},
    task::Timestamp,
};

/// How long tasks of a kind take.
#[derive(Clone, Copy)]
enum Takes {
    Exactly(f64),
    Exponential(f64),
    /// Most take the first time, one in ten the second.
    MostlyOr(f64, f64),
}

impl Takes {
    fn draw(self, random: &mut StdRng) -> f64 {
        match self {
            Self::Exactly(seconds) => seconds,
            Self::Exponential(mean) => exponential(random, mean),
            Self::MostlyOr(most, some) => {
                if random.random_bool(0.9) {
                    most
                } else {
                    some
                }
            }
        }
    }
}

fn exponential(random: &mut StdRng, mean: f64) -> f64 {
    -mean * (1.0 - random.random::<f64>()).ln()
}

/// A source of tasks of one kind for one queue.
#[derive(Clone, Copy)]
struct Source {
    queue: usize,
    kind: &'static str,
    takes: Takes,
    /// Seconds between arrivals in the mean, and how many come together.
    every: f64,
    burst: u32,
    /// When it begins and ends.
    from: f64,
    until: f64,
}

const SOURCE: Source = Source {
    queue: 0,
    kind: "a",
    takes: Takes::Exponential(1.0),
    every: 1.0,
    burst: 1,
    from: 0.0,
    until: f64::INFINITY,
};

struct World {
    workers: u32,
    weights: &'static [u32],
    sources: Vec<Source>,
    /// When it ends, in seconds, and the mean time between probes.
    lasts: f64,
    probe_every: f64,
}

/// What was told of the waits, and what came of it.
#[derive(Debug, Default)]
struct Score {
    told: u32,
    right: u32,
    untold: u32,
}

/// What was told of a task's wait.
#[derive(Clone, Copy)]
enum Probe {
    /// Nobody asked.
    No,
    Untold,
    Told(f64),
}

#[derive(Clone, Copy)]
struct Task {
    queue: usize,
    class: Option<ClassId>,
    takes: f64,
    submitted: f64,
    probe: Probe,
}

#[derive(Clone, Copy, PartialEq)]
enum What {
    Arrival(usize),
    End(u32, usize),
    Probe,
}

#[derive(Clone, Copy, PartialEq)]
struct Event(f64, u64, What);

impl Eq for Event {}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0).then(self.1.cmp(&other.1))
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

struct Played {
    world: World,
    random: StdRng,
    began: Instant,
    ready: ReadyQueues,
    queues: Vec<QueueId>,
    mix: Mix,
    tasks: Vec<Task>,
    idle: Vec<u32>,
    events: BinaryHeap<Reverse<Event>>,
    arrivals: Vec<u32>,
    score: Score,
}

impl Played {
    fn play(world: World, seed: u64) -> Score {
        let mut ready = ReadyQueues::default();
        let add = |weight: &u32| ready.add(&Settings { weight: *weight, ..Settings::default() });
        let queues = world.weights.iter().map(add).collect();
        let mut played = Self {
            random: StdRng::seed_from_u64(seed),
            began: Instant::now(),
            ready,
            queues,
            mix: Mix::default(),
            tasks: Vec::new(),
            idle: (1..=world.workers).collect(),
            events: BinaryHeap::new(),
            arrivals: vec![0; world.weights.len()],
            score: Score::default(),
            world,
        };
        for source in 0..played.world.sources.len() {
            let from = played.world.sources[source].from;
            played.after(from, What::Arrival(source));
        }
        let first = played.world.lasts / 20.0;
        played.after(first, What::Probe);
        while let Some(Reverse(Event(now, _, what))) = played.events.pop() {
            played.happen(now, what);
        }
        played.score
    }

    fn after(&mut self, at: f64, what: What) {
        let order = self.random.random();
        self.events.push(Reverse(Event(at, order, what)));
    }

    fn at(&self, now: f64) -> Instant {
        self.began + Duration::from_secs_f64(now)
    }

    fn happen(&mut self, now: f64, what: What) {
        match what {
            What::Arrival(at) => {
                let source = self.world.sources[at];
                if now > self.world.lasts || now > source.until {
                    return;
                }
                for _ in 0..source.burst {
                    self.submit(now, source, Probe::No);
                }
                let next = now + exponential(&mut self.random, source.every);
                self.after(next, What::Arrival(at));
            }
            What::End(worker, task) => {
                self.mix.ended(WorkerId(worker), true, self.at(now));
                self.ready.ended(self.queues[self.tasks[task].queue]);
                self.idle.push(worker);
            }
            What::Probe if now > self.world.lasts => return,
            What::Probe => {
                let which = self.random.random_range(0..self.world.sources.len());
                let source = self.world.sources[which];
                let told = forecast::waits(&self.situation(now))[source.queue];
                let probe = told.map_or(Probe::Untold, |told| Probe::Told(told.as_secs_f64()));
                self.submit(now, source, probe);
                let next = now + exponential(&mut self.random, self.world.probe_every);
                self.after(next, What::Probe);
            }
        }
        self.start(now);
    }

    fn submit(&mut self, now: f64, source: Source, probe: Probe) {
        let queue = self.queues[source.queue];
        let class = self.mix.class(queue, &source.kind.into());
        let takes = source.takes.draw(&mut self.random);
        self.arrivals[source.queue] += 1;
        let number = self.tasks.len() as u64;
        self.tasks.push(Task { queue: source.queue, class, takes, submitted: now, probe });
        #[expect(clippy::cast_possible_truncation, reason = "days at most")]
        let due = Timestamp((now * 1e6) as i64);
        self.ready.push(queue, ReadyKey::new(0, due, number));
        self.mix.waits(class, 0);
    }

    fn start(&mut self, now: f64) {
        while let Some(worker) = self.idle.last().copied()
            && let Some(number) = self.ready.pop(self.at(now))
        {
            self.idle.pop();
            let number = usize::try_from(number).unwrap();
            let task = self.tasks[number];
            self.mix.no_longer_waits(task.class, 0);
            self.mix.started(WorkerId(worker), task.class, self.at(now));
            self.after(now + task.takes, What::End(worker, number));
            match task.probe {
                Probe::No => {}
                Probe::Untold => self.score.untold += 1,
                Probe::Told(told) => {
                    let waited = now - task.submitted;
                    self.score.told += 1;
                    // Nobody minds 10 ms more or less.
                    let right = told / 2.0 - 0.01 <= waited && waited <= told * 2.0 + 0.01;
                    self.score.right += u32::from(right);
                }
            }
        }
    }

    /// As the server makes it of what it knows.
    fn situation(&self, now: f64) -> Situation {
        let name = |id: QueueId| Some(Arc::from(id.0.to_string()));
        let statuses = self.mix.statuses(name, self.at(now));
        let mut situation = Situation { workers: self.world.workers, ..Situation::default() };
        for (at, weight) in self.world.weights.iter().enumerate() {
            let arrival_rate = f64::from(self.arrivals[at]) / now.max(1.0);
            situation.queues.push(Queue { weight: *weight, arrival_rate, ..Queue::default() });
        }
        for (class, status) in statuses.into_iter().enumerate() {
            let queue =
                self.queues.iter().position(|id| *id.0.to_string() == *status.queue).unwrap();
            situation.queues[queue].classes.push(class);
            situation.queues[queue].ahead.push((class, status.usual));
            let running = status.running.iter();
            let running = running.map(|seconds| Running { queue, class, seconds: *seconds });
            situation.running.extend(running);
            situation.classes.push(ForecastClass { seconds: status.seconds });
        }
        situation
    }
}

/// Plays it with some seeds. Of what is told, nine in ten must be right within a factor of
/// two; and so much of all must be told.
fn holds(name: &str, told_at_least: f64, world: impl Fn() -> World) {
    let mut all = Score::default();
    for seed in 0..2 {
        let Score { told, right, untold } = Played::play(world(), seed);
        all.told += told;
        all.right += right;
        all.untold += untold;
    }
    let told = f64::from(all.told) / f64::from(all.told + all.untold);
    let right = f64::from(all.right) / f64::from(all.told.max(1));
    println!("{name}: {all:?}, told {told:.2}, right {right:.3}");
    assert!(all.told + all.untold >= 100, "{name}: {all:?}: few probes");
    assert!(told >= told_at_least, "{name}: {all:?}: told {told:.2}");
    assert!(all.told == 0 || right >= 0.9, "{name}: {all:?}: right {right:.3}");
}

#[test]
fn what_is_told_of_a_steady_load_comes_true() {
    for (load, told) in [(0.5, 0.7), (0.9, 0.3), (1.3, 0.5)] {
        holds(&format!("steady {load}"), told, || World {
            workers: 8,
            weights: &[1],
            sources: vec![Source { every: 1.0 / (8.0 * load), ..SOURCE }],
            lasts: 600.0,
            probe_every: 5.0,
        });
    }
}

#[test]
fn what_is_told_of_mixed_kinds_comes_true() {
    let quick = Source { takes: Takes::Exactly(0.001), every: 0.02, ..SOURCE };
    let slow = Source { kind: "b", takes: Takes::Exponential(20.0), every: 3.0, ..SOURCE };
    let mixed =
        Source { queue: 1, kind: "a", takes: Takes::MostlyOr(0.1, 5.0), every: 0.4, ..SOURCE };
    holds("mixed kinds", 0.3, || World {
        workers: 8,
        weights: &[1, 3],
        sources: vec![quick, slow, mixed],
        lasts: 900.0,
        probe_every: 5.0,
    });
}

#[test]
fn what_is_told_of_bursts_comes_true() {
    let burst = Source { takes: Takes::Exactly(0.002), every: 30.0, burst: 2_000, ..SOURCE };
    let steady = Source { queue: 1, takes: Takes::Exponential(0.5), every: 0.2, ..SOURCE };
    holds("bursts", 0.5, || World {
        workers: 4,
        weights: &[1, 1],
        sources: vec![burst, steady],
        lasts: 900.0,
        probe_every: 4.0,
    });
    let heavy = Source { takes: Takes::Exponential(0.5), every: 120.0, burst: 600, ..SOURCE };
    holds("heavy bursts", 0.5, || World {
        workers: 4,
        weights: &[1],
        sources: vec![heavy],
        lasts: 1_500.0,
        probe_every: 8.0,
    });
}

#[test]
fn what_is_told_of_a_pool_that_is_stuck_comes_true() {
    // After a while all workers have tasks of an hour.
    let quick = Source { takes: Takes::Exponential(0.2), every: 0.1, ..SOURCE };
    let hours = Source {
        kind: "hour",
        takes: Takes::Exactly(3_600.0),
        every: 10.0,
        from: 100.0,
        until: 160.0,
        ..SOURCE
    };
    holds("stuck", 0.0, || World {
        workers: 4,
        weights: &[1],
        sources: vec![quick, hours],
        lasts: 1_000.0,
        probe_every: 6.0,
    });
    // Of which it is known after the first ones that they take an hour.
    let always = Source { until: f64::INFINITY, every: 1_000.0, from: 0.0, ..hours };
    holds("hours", 0.2, || World {
        workers: 4,
        weights: &[1],
        sources: vec![always],
        lasts: 250_000.0,
        probe_every: 2_000.0,
    });
}

#[test]
fn what_is_told_beside_a_new_kind_comes_true() {
    // Nothing is known of the second kind when it comes.
    let known = Source { takes: Takes::Exactly(0.05), every: 0.05, ..SOURCE };
    let new = Source {
        queue: 1,
        kind: "new",
        takes: Takes::Exponential(8.0),
        every: 1.2,
        from: 100.0,
        ..SOURCE
    };
    holds("a new kind", 0.2, || World {
        workers: 6,
        weights: &[1, 1],
        sources: vec![known, new],
        lasts: 400.0,
        probe_every: 2.0,
    });
}
