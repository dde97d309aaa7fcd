//! The store against a model: random commands, crashes and restarts.

mod crash_points;
mod driver;
mod model;

use std::time::Duration;

use driver::{Driver, PATIENCE, new_task};
use proptest::{collection::vec, option, prelude::*};
use taskyard::{
    config::Durability,
    store::Outcome,
    task::{Data, Due, Failure, NewTask, RetryPolicy, Timestamp},
};

const WORKERS: u32 = 3;

#[derive(Clone, Debug)]
enum Step {
    Submit { queue: usize, priority: i32, due: u8, attempts: u32, request: Option<(u8, u8)> },
    Cancel(prop::sample::Index),
    NextDispatch { worker: u32, outcome: u8 },
    Redrive(prop::sample::Index),
    Pause { queue: usize, paused: bool },
    Crash,
    Restart(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let request = option::weighted(0.4, (0..4u8, 0..8u8));
    let submit = (0..2usize, -1..=1i32, 0..6u8, 1..4u32, request).prop_map(
        |(queue, priority, due, attempts, request)| Step::Submit {
            queue,
            priority,
            due,
            attempts,
            // Mostly the same content under the same key.
            request: request.map(|(key, content)| (key, content / 7)),
        },
    );
    prop_oneof![
        8 => submit,
        3 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        3 => any::<prop::sample::Index>().prop_map(Step::Redrive),
        1 => (0..2usize, any::<bool>()).prop_map(|(queue, paused)| Step::Pause { queue, paused }),
        12 => (1..=WORKERS, any::<u8>()).prop_map(|(worker, outcome)| Step::NextDispatch { worker, outcome }),
        2 => Just(Step::Crash),
        1 => any::<u8>().prop_map(Step::Restart),
    ]
}

fn outcome(of: u8) -> Outcome {
    let failed = |permanent, retry_after| Outcome::Failed {
        failure: Failure::new("BROKEN", "it broke"),
        permanent,
        retry_after,
    };
    match of % 8 {
        0 => Outcome::Succeeded(Data::Empty),
        1 => Outcome::Succeeded(Data::Json(format!("[{of}]").into())),
        2 => Outcome::Succeeded(Data::Bytes(vec![of; 100].into())),
        3 => failed(true, PATIENCE),
        4 => failed(false, Duration::from_hours(1)),
        5 => Outcome::Interrupted,
        _ => failed(false, Duration::ZERO),
    }
}

fn due(of: u8) -> Due {
    match of {
        0 => Due::After(Duration::from_hours(1)),
        // The year 2100 and the year 1969.
        1 => Due::At(Timestamp(4_102_444_800_000_000)),
        2 => Due::At(Timestamp(-1_000_000)),
        _ => Due::Now,
    }
}

async fn run(durability: Durability, steps: Vec<Step>) {
    let mut driver = Driver::new(durability).await;
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Submit { queue, priority, due: when, attempts, request } => {
                let payload = match number % 3 {
                    0 => Data::Empty,
                    1 => Data::Json(format!("{{\"n\":{number}}}").into()),
                    _ => Data::Bytes(number.to_string().into()),
                };
                let task = new_task(model::QUEUES[queue], &payload);
                let retry = RetryPolicy { max_attempts: attempts, ..task.retry };
                let task = NewTask { priority, due: due(when), retry, ..task };
                let (key, content) = request.unzip();
                driver.submit(task, key, content.unwrap_or_default()).await;
            }
            Step::Cancel(_) | Step::Redrive(_) if driver.model.tasks.is_empty() => {}
            Step::Cancel(which) => driver.cancel(which.index(driver.model.tasks.len())).await,
            Step::Redrive(which) => driver.redrive(which.index(driver.model.tasks.len())).await,
            Step::Pause { queue, paused } => driver.pause(queue, paused).await,
            Step::NextDispatch { worker, outcome: of } => {
                driver.next_dispatch(worker, outcome(of)).await;
            }
            Step::Crash => driver = driver.crash().await,
            Step::Restart(reports) => driver = driver.restart(reports).await,
        }
        driver.check().await;
    }
    driver.finish().await;
}

fn block_on(future: impl Future<Output = ()>) {
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    runtime.worker_threads(1).enable_all().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 500, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn the_store_does_what_the_model_does(steps in vec(step(), 1..60)) {
        block_on(run(Durability::Os, steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 50, ..ProptestConfig::with_cases(4) })]

    #[test]
    fn with_fsync_too(steps in vec(step(), 1..40)) {
        block_on(run(Durability::Fsync, steps));
    }
}
