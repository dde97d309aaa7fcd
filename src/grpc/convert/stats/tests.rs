//! Statistics: what is kept, and what follows from what was measured.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    queue::{Counts, Overrides, Rate, Settings},
    task::{TaskId, Timestamp, WorkerId},
};

fn flow(arrival_rate: f64, service: u64) -> Flow {
    Flow {
        arrival_rate,
        completion_rate: arrival_rate,
        mean_service: Some(Duration::from_millis(service)),
        mean_wait: None,
        mean_running: arrival_rate * Duration::from_millis(service).as_secs_f64(),
        completions: 60.0 * arrival_rate,
        service_variation: Some(1.0),
        arrival_dispersion: Some(1.0),
    }
}

fn queue(name: &str, queued: u64, running: u64) -> QueueStatus {
    QueueStatus {
        name: Arc::from(name),
        settings: Settings::default(),
        overrides: Overrides::default(),
        paused: false,
        block: None,
        counts: Counts { queued, running, ..Default::default() },
        waiting_bytes: 0,
        waiting_callers: 0,
        oldest_due: None,
        flow: flow(1.0, 100),
    }
}

fn overview(queues: Vec<QueueStatus>, flow: Flow) -> Overview {
    let counts = Counts::default();
    // Of each queue that has tasks waiting, 64 executions of 100 ms were seen.
    let class = |queue: &QueueStatus| ClassStatus {
        queue: Arc::clone(&queue.name),
        usual: queue.counts.queued,
        lower: 0,
        seconds: vec![0.1; 64],
        running: vec![0.05; usize::try_from(queue.counts.running).expect("few")],
    };
    let classes = queues.iter().map(class).collect();
    Overview { queues, classes, flow, counts, since: Timestamp(1), now: Timestamp(2) }
}

fn worker(number: u32, running_for: Option<u64>) -> pool::WorkerStatus {
    let running = running_for.map(|seconds| pool::Running {
        task: TaskId::new(1, 2),
        queue: "q".into(),
        kind: "noop".into(),
        attempt: 1,
        started: Timestamp(0),
        running_for: Duration::from_secs(seconds),
    });
    pool::WorkerStatus {
        id: WorkerId(number),
        leaving: false,
        running,
        finished: 0,
        busy_share: 0.0,
    }
}

fn pool(running_for: &[Option<u64>]) -> pool::Status {
    let workers: Vec<_> = (1..).zip(running_for).map(|(n, ran)| worker(n, *ran)).collect();
    pool::Status { size: u32::try_from(workers.len()).unwrap(), workers }
}

fn told(queues: Vec<QueueStatus>, flow: Flow, pool: &pool::Status) -> v1::GetStatsResponse {
    stats(overview(queues, flow), pool, DEFAULT_TARGET)
}

#[test]
fn the_target_has_bounds_and_a_default() {
    let given = |millis| target_wait(Duration::from_millis(millis).try_into().ok()).ok();
    assert_eq!(target_wait(None), Ok(DEFAULT_TARGET));
    assert_eq!(
        [0, 1, 86_400_000, 86_400_001].map(|m| given(m).is_some()),
        [false, true, true, false]
    );
    assert_eq!(
        target_wait(Some(prost_types::Duration::default())).unwrap_err()[0].field,
        "target_wait"
    );
}

#[test]
fn a_load_has_advice_that_holds_the_wait() {
    // Eight workers' load for four.
    let stats = told(vec![], flow(8.0, 1_000), &pool(&[Some(0); 4]));
    let advice = stats.advice.expect("always set");
    assert!((advice.offered_load - 8.0).abs() < 1e-9);
    assert!(advice.workers > 8, "{advice:?}");
    assert!(advice.expected_wait.expect("they keep up").seconds < 1);
    assert_eq!((advice.current_expected_wait, advice.wait_probability), (None, 1.0));
    assert!(advice.summary.contains("cannot keep up"), "{}", advice.summary);
    let pool = stats.pool.expect("always set");
    assert_eq!((pool.workers, pool.busy_workers), (4, 4));
    assert!((pool.busy_share - 1.0).abs() < 1e-9);
}

#[test]
fn nothing_is_advised_before_something_was_measured() {
    let unmeasured = Flow { arrival_rate: 5.0, ..Flow::default() };
    let advice = told(vec![], unmeasured, &pool(&[None])).advice.expect("always set");
    assert_eq!((advice.workers, advice.expected_wait), (0, None));
    assert!(advice.summary.contains("too few executions"), "{}", advice.summary);
    let hopeless = told(vec![], flow(1e9, 1_000), &pool(&[None])).advice.expect("always set");
    assert_eq!(hopeless.workers, 0);
    assert!(hopeless.summary.contains("more than 10000"), "{}", hopeless.summary);
}

#[test]
fn executions_that_have_not_ended_count_as_busy_and_as_long() {
    // Four of four workers run, and hardly anything has ended.
    let full = Flow { mean_running: 4.0, completions: 20.0, ..flow(0.1, 1_000) };
    let stats = told(vec![], full, &pool(&[None; 4]));
    assert!((stats.pool.expect("always set").busy_share - 1.0).abs() < 1e-9);
    // Four at a time of one every ten seconds: they take forty seconds.
    let load = stats.advice.expect("always set").offered_load;
    assert!((load - 4.0).abs() < 1e-6, "{load}");
}

#[test]
fn the_queues_with_the_most_work_are_kept_in_the_order_of_names() {
    let mut queues: Vec<_> = (0..=MAX_QUEUES).map(|n| queue(&format!("q{n:05}"), 1, 0)).collect();
    queues[7] = queue("q00007", 0, 0);
    queues[9] = queue("q00009", 0, 5);
    let told = told(queues, flow(1.0, 100), &pool(&[Some(1)])).queues;
    let names: Vec<_> = told.iter().map(|queue| queue.queue.as_str()).collect();
    assert_eq!(names.len(), MAX_QUEUES);
    assert!(names.is_sorted());
    assert!(!names.contains(&"q00007") && names.contains(&"q00009"));
}

#[test]
fn each_queue_is_told_the_wait_that_is_forecast() {
    let all = [queue("a", 40, 1), queue("b", 20, 0), queue("c", 90, 1)];
    let pool = pool(&[Some(0), Some(0)]);
    let told = told(all.to_vec(), flow(1.0, 100), &pool).queues;
    let forecast = forecast::waits(&situation(&overview(all.to_vec(), flow(1.0, 100)), 2));
    for (told, forecast) in told.into_iter().zip(forecast) {
        let wait = told.wait_now.map(|wait| Duration::try_from(wait).unwrap());
        assert!(wait.is_some(), "{}", told.queue);
        assert_eq!(wait, forecast, "{}", told.queue);
    }
}

#[test]
fn tasks_of_too_many_kinds_to_count_wait_too() {
    let all = vec![queue("a", 40, 0)];
    let mut overview = overview(all, flow(1.0, 100));
    overview.classes[0].usual = 10;
    let situation = situation(&overview, 2);
    assert_eq!(situation.queues[0].ahead, [(0, 10), (1, 30)]);
    assert!(situation.classes[1].seconds.is_empty(), "nothing is known of them");
}

#[test]
fn a_stuck_pool_does_not_look_healthy() {
    // Four tasks of an hour; what ended before them took a millisecond.
    let stuck = Flow { completions: 0.02, mean_running: 4.0, ..flow(0.01, 1) };
    let mut all = vec![queue("q", 3, 4)];
    all[0].flow = stuck;
    let pool = pool(&[Some(3_000); 4]);
    let mut overview = overview(all, stuck);
    overview.classes[0].seconds = Vec::new();
    overview.classes[0].running = vec![3_000.0; 4];
    let told = stats(overview, &pool, DEFAULT_TARGET);
    assert_eq!(told.queues[0].wait_now, None, "nothing tells when one of them ends");
    let advice = told.advice.expect("always set");
    assert_eq!((advice.workers, advice.current_expected_wait), (0, None));
    let says = "3 tasks wait now; all 4 workers are busy, the longest for 50 min; \
                too few executions have ended lately for advice";
    assert_eq!(advice.summary, says);
}

#[test]
fn bursts_get_no_advice_from_averages() {
    let bursts = Flow { arrival_dispersion: Some(2_000.0), ..flow(33.0, 2) };
    let advice = told(vec![], bursts, &pool(&[None; 4])).advice.expect("always set");
    assert_eq!(advice.workers, 0);
    assert!(advice.summary.contains("bursts"), "{}", advice.summary);
}

#[test]
fn of_ten_thousand_queues_the_first_are_told_each_with_its_wait() {
    // Each has a limit of its own, so that none can be passed over.
    let limited = |n: u32| {
        let rate = Rate { per_second: f64::from(n % 97 + 1) / 100.0, burst: 1 };
        let settings = Settings { rate: Some(rate), ..Settings::default() };
        QueueStatus { settings, ..queue(&format!("q{n:05}"), 1 + u64::from(n % 7), 0) }
    };
    let all: Vec<_> = (0..10_000).map(limited).collect();
    let told = told(all, flow(1.0, 100), &pool(&[Some(0)]));
    assert_eq!(told.queues.len(), MAX_QUEUES);
    assert!(told.queues.iter().all(|queue| queue.wait_now.is_some()));
}

#[test]
fn a_paused_queue_tells_no_wait() {
    let paused = QueueStatus { block: Some(Block::Paused), ..queue("q", 0, 0) };
    let told = told(vec![paused], flow(1.0, 100), &pool(&[None])).queues.remove(0);
    assert_eq!((told.wait_now, told.block()), (None, v1::QueueBlock::Paused));
}

#[test]
fn advice_tells_of_what_waits_already() {
    // As after a crash: nothing comes, and much waits.
    let idle = Flow { arrival_rate: 0.0, ..flow(1.0, 1_000) };
    let all = vec![queue("q", 280, 2)];
    let advice = told(all.clone(), idle, &pool(&[Some(0), Some(0)])).advice.unwrap();
    let begins = "280 tasks wait now, the last of which starts in about 14 s; beside them, the";
    assert!(advice.summary.starts_with(begins), "{}", advice.summary);
    // Nobody waits for a worker in a queue that is paused.
    let paused = all.into_iter().map(|queue| QueueStatus { block: Some(Block::Paused), ..queue });
    let advice = told(paused.collect(), idle, &pool(&[None, None])).advice.unwrap();
    assert!(advice.summary.starts_with("the load is"), "{}", advice.summary);
}
