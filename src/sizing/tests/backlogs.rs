//! `wait_now` case by case, and at its edges.

use proptest::{collection::vec, option, prelude::*};

use super::*;

const SECOND: Option<Duration> = Some(Duration::from_secs(1));

/// A crew that is busy with tasks of a second.
fn busy(workers: u32) -> CrewView {
    CrewView { workers, idle: 0, mean_service: SECOND }
}

fn queue(queued: u64) -> QueueView {
    QueueView { queued, weight: 1, ..QueueView::default() }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

#[test]
fn an_idle_worker_takes_it_at_once() {
    let crew = CrewView { workers: 4, idle: 1, mean_service: None };
    assert_eq!(wait_now(&queue(0), &[], &crew), Some(Duration::ZERO));
    let below = QueueView { running: 1, max_running: Some(2), ..queue(0) };
    assert_eq!(wait_now(&below, &[queue(3)], &crew), Some(Duration::ZERO));
    let rated = QueueView { rate_per_second: Some(0.1), ..queue(0) };
    assert_eq!(wait_now(&rated, &[], &crew), Some(Duration::ZERO));
}

#[test]
fn what_is_blocked_or_has_no_crew_waits_for_who_knows_how_long() {
    let idle = CrewView { idle: 4, ..busy(4) };
    assert_eq!(wait_now(&QueueView { blocked: true, ..queue(0) }, &[], &idle), None);
    assert_eq!(wait_now(&queue(0), &[], &busy(0)), None);
    let none = QueueView { max_running: Some(0), ..queue(0) };
    assert_eq!(wait_now(&none, &[], &busy(4)), None);
    for rate in [0.0, -1.0, f64::NAN] {
        let stuck = QueueView { rate_per_second: Some(rate), ..queue(1) };
        assert_eq!(wait_now(&stuck, &[], &busy(4)), None, "{rate}");
    }
}

#[test]
fn nothing_is_told_before_anything_was_measured_unless_a_rate_tells_it() {
    let new = CrewView { mean_service: None, ..busy(4) };
    assert_eq!(wait_now(&queue(5), &[], &new), None);
    let rated = QueueView { rate_per_second: Some(2.0), ..queue(5) };
    assert_eq!(wait_now(&rated, &[], &new), None, "the crew may be slower");
    let idle = CrewView { idle: 1, ..new };
    assert_eq!(wait_now(&rated, &[], &idle), Some(seconds(3.0)));
    let full = QueueView { running: 2, max_running: Some(2), ..rated };
    assert_eq!(wait_now(&full, &[], &idle), None, "the queue's tasks may be slower");
    let measured = QueueView { mean_service: SECOND, ..queue(3) };
    assert_eq!(wait_now(&measured, &[], &new), Some(seconds(1.0)), "its own tasks tell it");
}

#[test]
fn a_busy_crew_works_off_what_is_ahead() {
    assert_eq!(wait_now(&queue(0), &[], &busy(4)), Some(seconds(0.25)));
    assert_eq!(wait_now(&queue(399), &[], &busy(4)), Some(seconds(100.0)));
}

#[test]
fn a_queue_shares_the_crew_by_weight_with_those_that_wait() {
    let own = QueueView { weight: 3, ..queue(29) };
    // Of 8 starts a second, 6 are its own.
    assert_eq!(wait_now(&own, &[queue(100)], &busy(8)), Some(seconds(5.0)));
    let empty = QueueView { running: 5, weight: 100, ..queue(0) };
    let paused = QueueView { blocked: true, weight: 100, ..queue(50) };
    assert_eq!(wait_now(&own, &[empty, paused, queue(1)], &busy(8)), Some(seconds(5.0)));
    let unweighted = QueueView { weight: 0, ..queue(7) };
    assert_eq!(wait_now(&unweighted, &[queue(1)], &busy(8)), Some(seconds(2.0)), "counts as 1");
}

#[test]
fn its_own_limits_bound_it() {
    let one = QueueView {
        max_running: Some(1),
        running: 1,
        mean_service: Some(seconds(2.0)),
        ..queue(4)
    };
    assert_eq!(wait_now(&one, &[], &busy(8)), Some(seconds(10.0)));
    let idle = CrewView { idle: 7, ..busy(8) };
    assert_eq!(wait_now(&QueueView { queued: 0, ..one }, &[], &idle), Some(seconds(2.0)));
    let unmeasured = QueueView { mean_service: None, ..one };
    assert_eq!(wait_now(&unmeasured, &[], &busy(8)), Some(seconds(5.0)), "as long as others");
    let rated = QueueView { rate_per_second: Some(0.5), ..queue(4) };
    assert_eq!(wait_now(&rated, &[], &idle), Some(seconds(10.0)));
    let loose = QueueView { rate_per_second: Some(1e6), max_running: Some(1_000), ..queue(4) };
    assert_eq!(wait_now(&loose, &[], &busy(5)), Some(seconds(1.0)), "the crew is the limit");
}

#[test]
fn what_limited_queues_cannot_use_goes_to_the_others() {
    // Of 10 starts a second, one queue may have 1 and one 2; three share 7.
    let rated = QueueView { rate_per_second: Some(1.0), weight: 5, ..queue(1_000) };
    let narrow = QueueView { max_running: Some(2), running: 2, weight: 5, ..queue(1_000) };
    let own = QueueView { weight: 5, ..queue(34) };
    let others = [queue(1), rated, narrow, queue(1)];
    assert_eq!(wait_now(&own, &others, &busy(10)), Some(seconds(7.0)));
    // Limits above the share change nothing.
    let wide = QueueView { rate_per_second: Some(9.0), max_running: Some(9), ..queue(1) };
    assert_eq!(wait_now(&queue(4), &[wide], &busy(10)), Some(seconds(1.0)));
}

#[test]
fn no_wait_is_told_beyond_a_year() {
    let slow = CrewView { mean_service: Some(Duration::MAX), ..busy(1) };
    assert_eq!(wait_now(&queue(0), &[], &slow), Some(LONGEST_WAIT));
    assert_eq!(wait_now(&queue(u64::MAX), &[], &busy(1)), Some(LONGEST_WAIT));
    let instant = CrewView { mean_service: Some(Duration::ZERO), ..busy(1) };
    assert_eq!(wait_now(&queue(1_000), &[queue(1)], &instant), Some(Duration::ZERO));
}

#[test]
fn many_queues_are_told_of_with_one_look_at_all() {
    let rated = QueueView { rate_per_second: Some(1.0), weight: 5, ..queue(1_000) };
    let narrow = QueueView { max_running: Some(2), running: 2, weight: 5, ..queue(1_000) };
    let own = QueueView { weight: 5, ..queue(34) };
    let backlog = Backlog::of(&[queue(1), rated, own, queue(0), narrow, queue(1)], busy(10));
    assert_eq!(backlog.wait_now(&own), Some(seconds(7.0)));
    assert_eq!(backlog.wait_now(&rated), Some(seconds(1_001.0)));
    assert_eq!(backlog.wait_now(&narrow), Some(seconds(500.5)));
    // One that has nothing yet takes its share from all.
    assert_eq!(backlog.wait_now(&queue(0)), Some(seconds(8.0 / 7.0)));
    let alone = Backlog::of(&[rated], busy(10));
    assert_eq!(alone.wait_now(&rated), Some(seconds(1_001.0)), "the crew is not the limit");
}

fn any_queue() -> impl Strategy<Value = QueueView> {
    let service = option::of((0..10_000_000_u64).prop_map(Duration::from_micros));
    let numbers = (0..10_000_u64, 0..100_u64, 0..=1_000_u32);
    let limits = (option::of(0..100_u32), option::of(proptest::num::f64::ANY));
    (numbers, limits, service, any::<bool>()).prop_map(
        |(numbers, limits, mean_service, blocked)| {
            let ((queued, running, weight), (max_running, rate_per_second)) = (numbers, limits);
            QueueView {
                queued,
                running,
                weight,
                max_running,
                rate_per_second,
                mean_service,
                blocked,
            }
        },
    )
}

proptest! {
    #[test]
    fn more_ahead_never_starts_sooner_and_more_weight_never_later(
        own in any_queue(),
        others in vec(any_queue(), 0..6),
        workers in 0..100_u32,
        idle in 0..3_u32,
        micros in option::of(0..10_000_000_u64),
    ) {
        let mean_service = micros.map(Duration::from_micros);
        let crew = CrewView { workers, idle, mean_service };
        let wait = wait_now(&own, &others, &crew);
        prop_assert!(wait.is_none_or(|wait| wait <= LONGEST_WAIT), "{wait:?}");
        let more = wait_now(&QueueView { queued: own.queued + 7, ..own }, &others, &crew);
        if let (Some(wait), Some(more)) = (wait, more) {
            prop_assert!(more >= wait, "{wait:?}, then {more:?}");
        }
        let heavy = QueueView { weight: own.weight + 10, ..own };
        let sooner = wait_now(&heavy, &others, &crew);
        prop_assert_eq!(sooner.is_some(), wait.is_some());
        if let (Some(wait), Some(sooner)) = (wait, sooner) {
            prop_assert!(sooner <= wait + Duration::from_micros(1), "{wait:?}, then {sooner:?}");
        }
    }

    #[test]
    fn one_look_at_all_tells_of_each_what_a_look_at_the_others_does(
        queues in vec(any_queue(), 1..8),
        workers in 0..100_u32,
        idle in 0..3_u32,
        micros in 1..10_000_000_u64,
    ) {
        let crew = CrewView { workers, idle, mean_service: Some(Duration::from_micros(micros)) };
        let backlog = Backlog::of(&queues, crew);
        for (at, queue) in queues.iter().enumerate() {
            let mut others = queues.clone();
            others.remove(at);
            let (alone, at_once) = (wait_now(queue, &others, &crew), backlog.wait_now(queue));
            prop_assert_eq!(alone.is_some(), at_once.is_some());
            if let (Some(alone), Some(at_once)) = (alone, at_once) {
                let rounding = alone / 1_000_000 + Duration::from_nanos(10);
                prop_assert!(alone.abs_diff(at_once) <= rounding, "{alone:?}, {at_once:?}");
            }
        }
    }
}
