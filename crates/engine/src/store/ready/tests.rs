use super::*;

const NOW: fn() -> Instant = Instant::now;

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

fn plain(ready: &mut ReadyQueues) -> QueueId {
    ready.add(&Settings::default())
}

fn fill(ready: &mut ReadyQueues, id: QueueId, numbers: std::ops::Range<u64>) {
    for number in numbers {
        ready.push(id, ReadyKey::new(0, Timestamp(0), number));
    }
}

fn drain(ready: &mut ReadyQueues) -> Vec<u64> {
    std::iter::from_fn(|| ready.pop(NOW())).collect()
}

#[test]
fn starts_go_by_priority_then_due_time_then_submission() {
    let mut ready = ReadyQueues::default();
    let queue = plain(&mut ready);
    for (priority, due, number) in [(0, 5, 1), (0, 4, 2), (9, 9, 3), (0, 4, 4), (-1, 0, 5)] {
        ready.push(queue, ReadyKey::new(priority, Timestamp(due), number));
    }
    assert_eq!(ready.next_of(queue), Some(3));
    assert_eq!(drain(&mut ready), [3, 2, 4, 1, 5]);
    assert_eq!(ready.pop(NOW()), None);
}

#[test]
fn queues_take_turns() {
    let mut ready = ReadyQueues::default();
    let (flood, other) = (plain(&mut ready), plain(&mut ready));
    fill(&mut ready, flood, 0..4);
    fill(&mut ready, other, 10..11);
    assert_eq!(drain(&mut ready), [0, 10, 1, 2, 3]);
}

#[test]
fn queues_share_by_their_weights() {
    let mut ready = ReadyQueues::default();
    let heavy = ready.add(&settings(|s| s.weight = 3));
    let light = plain(&mut ready);
    fill(&mut ready, heavy, 0..1_000);
    fill(&mut ready, light, 1_000..2_000);
    let starts: Vec<u64> = (0..400).filter_map(|_| ready.pop(NOW())).collect();
    for window in starts.chunks(4) {
        let of_heavy = window.iter().filter(|number| **number < 1_000).count();
        assert_eq!(of_heavy, 3, "{starts:?}");
    }
}

#[test]
fn a_rest_is_neither_paid_nor_charged() {
    let mut ready = ReadyQueues::default();
    let (busy, resting) = (plain(&mut ready), plain(&mut ready));
    fill(&mut ready, busy, 0..100);
    for number in 0..50 {
        assert_eq!(ready.pop(NOW()), Some(number));
    }
    // It had no work for fifty starts, and gets every other one from now on.
    fill(&mut ready, resting, 100..200);
    let starts: Vec<u64> = (0..40).filter_map(|_| ready.pop(NOW())).collect();
    assert_eq!(starts.iter().filter(|number| **number < 100).count(), 20, "{starts:?}");
}

#[test]
fn a_paused_queue_stands_aside() {
    let mut ready = ReadyQueues::default();
    let (paused, other) = (plain(&mut ready), plain(&mut ready));
    fill(&mut ready, paused, 0..2);
    ready.pause(paused, true);
    fill(&mut ready, paused, 2..3);
    fill(&mut ready, other, 10..12);
    assert_eq!(ready.block(paused, NOW()), Some(Block::Paused));
    assert_eq!(drain(&mut ready), [10, 11]);
    ready.pause(paused, false);
    assert_eq!(drain(&mut ready), [0, 1, 2]);
}

#[test]
fn no_more_run_than_may() {
    let mut ready = ReadyQueues::default();
    let limited = ready.add(&settings(|s| s.max_running = Some(2)));
    let other = plain(&mut ready);
    fill(&mut ready, limited, 0..4);
    fill(&mut ready, other, 10..12);
    assert_eq!(drain(&mut ready), [0, 10, 1, 11]);
    assert_eq!(
        (ready.block(limited, NOW()), ready.load(limited)),
        (Some(Block::MaxRunning), (2, 2))
    );
    ready.ended(limited);
    assert_eq!(drain(&mut ready), [2]);
    ready.configure(limited, &settings(|s| s.max_running = Some(3)));
    assert_eq!(drain(&mut ready), [3]);
}

#[test]
fn a_rate_lets_a_burst_through_and_then_holds_back() {
    let mut ready = ReadyQueues::default();
    let hourly = |burst| settings(|s| s.rate = Some(Rate { per_second: 1.0 / 3600.0, burst }));
    let limited = ready.add(&hourly(2));
    let other = plain(&mut ready);
    fill(&mut ready, limited, 0..5);
    fill(&mut ready, other, 10..13);
    assert_eq!(drain(&mut ready), [0, 10, 1, 11, 12]);
    assert_eq!(ready.block(limited, NOW()), Some(Block::RateLimit));
    let release = ready.next_release().expect("it is held");
    assert!(release > NOW() + Duration::from_mins(50), "an hour a start");
    // Naming the same rate again does not fill the bucket.
    ready.configure(limited, &hourly(2));
    assert_eq!(drain(&mut ready), [] as [u64; 0]);
    ready.configure(limited, &hourly(1));
    assert_eq!(drain(&mut ready), [2], "another rate is another bucket");
    ready.configure(limited, &Settings::default());
    assert_eq!(drain(&mut ready), [3, 4]);
    assert_eq!(ready.next_release(), None);
}

/// Starts of a second in which somebody looks every so often, which is how the
/// engine does it.
fn starts_in_a_second(rate: f64, look_every: Duration) -> f64 {
    let mut ready = ReadyQueues::default();
    let limited = ready.add(&settings(|s| s.rate = Some(Rate { per_second: rate, burst: 1 })));
    fill(&mut ready, limited, 0..100_000);
    let began = NOW();
    let (mut now, mut starts) = (began, 0.0);
    while now < began + Duration::from_secs(1) {
        while ready.pop(now).is_some() {
            starts += 1.0;
        }
        now += look_every;
    }
    starts
}

#[test]
fn a_rate_is_reached_although_it_is_looked_at_late() {
    for rate in [10.0, 300.0, 1_000.0, 10_000.0] {
        for late in [1, 3, 7] {
            let starts = starts_in_a_second(rate, Duration::from_millis(late));
            let share = starts / rate;
            assert!((0.95..=1.15).contains(&share), "{starts} at {rate}/s, {late} ms late");
        }
    }
}

#[test]
fn shares_are_kept_for_as_long_as_anybody_runs_it() {
    // After as many starts as 64 bits of passes would hold.
    let mut ready = ReadyQueues { pass: u128::from(u64::MAX) - STRIDE, ..ReadyQueues::default() };
    let (heavy, light) = (ready.add(&settings(|s| s.weight = 3)), plain(&mut ready));
    fill(&mut ready, heavy, 0..1_000);
    fill(&mut ready, light, 1_000..2_000);
    let starts: Vec<u64> = (0..400).filter_map(|_| ready.pop(NOW())).collect();
    assert_eq!(starts.iter().filter(|number| **number < 1_000).count(), 300);
}

#[test]
fn what_is_removed_does_not_start() {
    let mut ready = ReadyQueues::default();
    let queue = plain(&mut ready);
    let only = ReadyKey::new(0, Timestamp(0), 1);
    ready.push(queue, only);
    ready.remove(queue, only);
    ready.remove(queue, only);
    assert_eq!(ready.pop(NOW()), None);
    ready.push(queue, only);
    assert_eq!(drain(&mut ready), [1]);
}

#[test]
fn the_place_of_a_queue_that_went_is_taken_by_the_next() {
    let mut ready = ReadyQueues::default();
    let first = ready.add(&settings(|s| s.max_running = Some(1)));
    let _second = plain(&mut ready);
    ready.take_out(first);
    let third = plain(&mut ready);
    assert_eq!(third, first);
    fill(&mut ready, third, 0..3);
    assert_eq!(drain(&mut ready), [0, 1, 2], "without the limits of the one before");
}

fn at(wall: i64, steady: i64) -> EngineTime {
    EngineTime { wall: Timestamp(wall), steady: Timestamp(steady), instant: NOW() }
}

#[test]
fn later_tasks_become_due_in_the_order_of_their_times() {
    let mut ready = ReadyQueues::default();
    for (due, number) in [(30, 1), (10, 2), (20, 3)] {
        ready.push_later(DueTimer::Wall(Timestamp(due)), 0, number);
    }
    ready.remove_later(DueTimer::Wall(Timestamp(20)), 0, 3);
    let hour = Duration::from_hours(1);
    assert_eq!(ready.until_due(&at(4, 4), hour), Some(Duration::from_micros(6)));
    assert_eq!(ready.pop_due(&at(9, 9)), None);
    assert_eq!(ready.pop_due(&at(10, 10)), Some(2));
    assert_eq!(ready.pop_due(&at(10, 10)), None);
    assert_eq!(ready.pop_due(&at(99, 99)), Some(1));
    assert_eq!(ready.until_due(&at(99, 99), hour), None);
}

#[test]
fn a_step_of_the_wall_clock_moves_times_and_no_intervals() {
    let mut ready = ReadyQueues::default();
    ready.push_later(DueTimer::Wall(Timestamp(100)), 0, 1);
    ready.push_later(DueTimer::Steady(Timestamp(100)), 0, 2);
    // The wall clock went back by 80.
    assert_eq!(ready.pop_due(&at(20, 100)), Some(2));
    assert_eq!(ready.pop_due(&at(20, 100)), None);
    let until = ready.until_due(&at(20, 100), Duration::from_micros(5));
    assert_eq!(until, Some(Duration::from_micros(5)), "it may step again");
    assert_eq!(ready.pop_due(&at(100, 101)), Some(1));
}
