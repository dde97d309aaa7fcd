//! Situations whose outcome can be told by hand. That forecasts come true is tested where
//! the counting is, against pools that are played through.

use proptest::{collection::vec, option, prelude::*};

use super::*;

/// Tasks that take a second, exactly.
fn seconds() -> Class {
    Class { seconds: vec![1.0; 64] }
}

/// A queue of so many tasks of class 0.
fn queue(waiting: u64) -> Queue {
    Queue { ahead: vec![(0, waiting)], classes: vec![0], ..Queue::default() }
}

/// All workers are half way through a task of a second, of the first queue.
fn busy(workers: u32, queues: Vec<Queue>) -> Situation {
    let running = (0..workers).map(|_| Running { queue: 0, class: 0, seconds: 0.5 }).collect();
    Situation { workers, classes: vec![seconds()], queues, running }
}

fn told(situation: &Situation) -> Vec<Option<f64>> {
    waits(situation).into_iter().map(|wait| wait.map(|wait| wait.as_secs_f64())).collect()
}

/// What is told of the first queue.
#[track_caller]
fn assert_told(situation: &Situation, expected: f64) {
    let told = told(situation)[0].expect("it is sure");
    assert!((told - expected).abs() <= 0.1 * expected + 1e-6, "{told}, not {expected}");
}

#[test]
fn an_idle_worker_takes_it_at_once() {
    let mut situation = busy(4, vec![queue(0)]);
    situation.running.pop();
    assert_eq!(told(&situation), [Some(0.0)]);
    let limited = Queue { max_running: Some(4), rate_per_second: Some(0.1), ..queue(0) };
    situation.queues = vec![limited];
    assert_eq!(told(&situation), [Some(0.0)]);
}

#[test]
fn what_cannot_start_has_no_wait() {
    let idle = |queue: Queue| Situation { running: vec![], ..busy(4, vec![queue]) };
    assert_eq!(told(&idle(Queue { blocked: true, ..queue(1) })), [None]);
    assert_eq!(told(&idle(Queue { max_running: Some(0), ..queue(0) })), [None]);
    for rate in [0.0, -1.0, f64::NAN] {
        assert_eq!(told(&idle(Queue { rate_per_second: Some(rate), ..queue(1) })), [None]);
    }
    assert_eq!(told(&Situation { workers: 0, ..idle(queue(0)) }), [None]);
}

#[test]
fn a_busy_pool_works_off_what_is_ahead() {
    assert_told(&busy(4, vec![queue(0)]), 0.5);
    assert_told(&busy(4, vec![queue(400)]), 100.5);
    assert_told(&busy(1, vec![queue(100_000)]), 100_000.5);
}

#[test]
fn queues_share_the_pool_by_weight() {
    let own = Queue { weight: 3, ..queue(300) };
    let other = Queue { weight: 1, ..queue(100_000) };
    // Of eight starts a second, six are its own.
    assert_told(&busy(8, vec![own.clone(), other.clone()]), 50.5);
    let paused = Queue { blocked: true, ..other };
    assert_told(&busy(8, vec![own, paused]), 38.0);
}

#[test]
fn tasks_of_others_that_arrive_take_their_share() {
    let own = queue(300);
    let other = Queue { arrival_rate: 4.0, ..queue(0) };
    assert_told(&busy(8, vec![own, other]), 75.0);
}

#[test]
fn its_own_limits_bound_it() {
    let narrow = Queue { max_running: Some(2), ..queue(40) };
    let mut situation = busy(2, vec![narrow]);
    situation.workers = 8;
    assert_told(&situation, 20.5);
    let rated = Queue { rate_per_second: Some(0.5), ..queue(40) };
    assert_told(&Situation { running: vec![], ..busy(8, vec![rated]) }, 82.0);
}

#[test]
fn each_class_takes_its_own_time() {
    let mut situation = busy(2, vec![Queue { ahead: vec![(1, 2_000)], ..queue(0) }]);
    situation.classes.push(Class { seconds: vec![0.001; 64] });
    // Not 1,000 s, as for tasks like those that run.
    assert_told(&situation, 1.5);
}

#[test]
fn how_long_a_task_has_run_counts() {
    let mut situation = busy(1, vec![queue(0)]);
    situation.running[0].seconds = 0.9;
    assert_told(&situation, 0.1);
}

#[test]
fn nothing_is_told_where_nothing_is_known() {
    let mut new = busy(4, vec![queue(5)]);
    new.classes[0].seconds.clear();
    assert_eq!(told(&new), [None], "nothing has ended yet");
    let mut stuck = busy(4, vec![queue(0)]);
    stuck.running.iter_mut().for_each(|running| running.seconds = 3_000.0);
    assert_eq!(told(&stuck), [None], "all have run for longer than any");
    let mut beside = busy(4, vec![queue(0), Queue { ahead: vec![(1, 50)], ..queue(0) }]);
    beside.classes.push(Class::default());
    assert!(told(&beside)[0].is_some(), "its turn comes first all the same");
    assert_eq!(told(&beside)[1], None);
}

#[test]
fn a_stuck_worker_leaves_the_work_to_the_others() {
    let mut situation = busy(4, vec![queue(300)]);
    situation.running[0] = Running { queue: 0, class: 1, seconds: 5_000.0 };
    situation.classes.push(Class::default());
    assert_told(&situation, 100.5);
}

#[test]
fn no_wait_is_told_beyond_a_year() {
    let mut situation = busy(1, vec![queue(u64::from(u32::MAX))]);
    situation.classes[0].seconds = vec![1e6; 64];
    assert_eq!(waits(&situation), [Some(LONGEST_WAIT)]);
}

fn any_situation() -> impl Strategy<Value = Situation> {
    let class = vec(0.0..100.0_f32, 0..10).prop_map(|seconds| Class { seconds });
    let queue = (
        (0..300_u64, 0..3_u64, 0..=1_000_u32, any::<bool>()),
        (option::of(0..10_u32), option::of(proptest::num::f64::ANY), 0.0..100.0_f64),
    );
    let queue = queue.prop_map(|((ahead, behind, weight, blocked), (max, rate, arrivals))| Queue {
        ahead: vec![(0, ahead), (1, ahead / 3)],
        behind: vec![(1, behind)],
        weight,
        max_running: max,
        rate_per_second: rate,
        arrival_rate: arrivals,
        classes: vec![0, 1],
        blocked,
    });
    (vec(class, 2..3), vec(queue, 1..5), 0..20_u32, 0..20_u32).prop_map(
        |(classes, queues, workers, busy)| {
            let running = |n: u32| Running {
                queue: n as usize % queues.len(),
                class: n as usize % 2,
                seconds: f64::from(n) * 7.0,
            };
            let running = (0..busy.min(workers)).map(running).collect();
            Situation { workers, classes, queues, running }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn any_situation_has_an_end(situation in any_situation()) {
        let waits = waits(&situation);
        prop_assert_eq!(waits.len(), situation.queues.len());
        prop_assert!(waits.iter().flatten().all(|wait| *wait <= LONGEST_WAIT));
    }
}
