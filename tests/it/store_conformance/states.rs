//! How tasks run: every way from a submission to an end, one case for each.

use std::{collections::BTreeMap, time::Duration};

use taskyard::{
    event::Seq,
    proto::v1::{
        self,
        EventType::{
            Cancelled, Failed, Interrupted, Redriven, RetryScheduled, Started, Submitted, Succeeded,
        },
    },
    store::Outcome,
    task::{Data, Due, NewTask, State, Timestamp},
};

use crate::store_conformance::{
    harness::{Setup, StoreHarness},
    provider::Provider,
    work::{LATER, broken, done, failed, task, tried},
};

pub async fn what_is_submitted_is_kept_and_waits(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let payloads =
        [Data::Empty, Data::Json(r#"{"n":[1,"é"]}"#.into()), Data::Bytes(vec![0, 255].into())];
    let dues = [Due::Now, Due::After(LATER), Due::At(Timestamp(-1))];
    let mut expected = Vec::new();
    for (payload, due) in payloads.into_iter().zip(dues) {
        let number = expected.len() as u64 + 1;
        let labels = [("number".to_owned(), number.to_string())].into();
        let (kind, priority) = ("another".into(), -7);
        let new = NewTask { kind, priority, body: payload.into(), due, labels, ..tried("a", 3) };
        let submitted = harness.try_submit(new.clone()).await.expect("accepted");
        let later = due == Due::After(LATER);
        let state = if later { State::Scheduled } else { State::Queued };
        assert_eq!((submitted.task.number(), submitted.seq), (number, Seq(number)));
        assert_eq!((submitted.state, submitted.existing), (state, false));
        expected.push((submitted.task, new, state));
    }
    for opened in 0..2 {
        for (id, new, state) in &expected {
            let stored = harness.get(*id).await;
            assert_eq!((stored.id, &*stored.queue, &*stored.kind), (*id, "a", "another"));
            assert_eq!((&stored.body, stored.priority), (&new.body, new.priority));
            assert_eq!((&stored.labels, &stored.request_id), (&new.labels, &None));
            assert_eq!((stored.body.timeout, stored.max_attempts), (new.body.timeout, 3));
            let span = if *state == State::Scheduled { LATER } else { Duration::ZERO };
            assert_eq!(stored.due, stored.created.after(span), "{opened}");
            let life = stored.lifecycle;
            assert_eq!((life.state, life.attempt, life.failures), (*state, 0, 0));
            assert_eq!((stored.execution, stored.finished), (None, None));
            assert_eq!((stored.result, stored.failure, stored.attempts.len()), (None, None, 0));
            let [event] = <[_; 1]>::try_from(harness.events_of(*id).await).expect("one event");
            assert_eq!((event.r#type(), &*event.queue, &*event.kind), (Submitted, "a", "another"));
            assert_eq!((event.attempt, &*event.worker), (0, ""));
            assert_eq!(event.next_due_time.is_some(), *state == State::Scheduled);
        }
        harness.check().await;
        harness = harness.restart().await;
    }
}

pub async fn a_result_ends_it(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let results = [Data::Empty, Data::Json("[1]".into()), Data::Bytes(vec![7; 100_000].into())];
    for result in results {
        let payload = Data::Json(r#""in""#.into());
        let new = NewTask { body: payload.into(), ..tried("a", 2) };
        let id = harness.submit(new.clone()).await;
        let run = harness.start().await;
        let given = &run.given;
        assert_eq!((given.task, &*given.queue, &*given.kind), (id, "a", "kind"));
        assert_eq!((&given.body, given.retry), (&new.body, new.retry));
        assert_eq!((given.attempt, given.failures, given.cancel.is_cancelled()), (1, 0, false));
        let running = harness.get(id).await;
        assert_eq!((running.lifecycle.state, running.lifecycle.attempt), (State::Running, 1));
        assert_eq!(running.execution, Some((run.worker, given.started)));
        let (worker, started) = (run.worker, run.given.started);
        harness.end(run, Outcome::Succeeded(result.clone())).await;
        let ended = harness.get(id).await;
        assert_eq!((ended.lifecycle.state, &ended.result), (State::Succeeded, &Some(result)));
        assert_eq!((&ended.failure, ended.execution), (&None, running.execution));
        assert!(ended.finished.is_some_and(|finished| finished >= ended.created));
        let events = harness.events_of(id).await;
        let told: Vec<_> = events.iter().map(v1::Event::r#type).collect();
        assert_eq!(told, [Submitted, Started, Succeeded]);
        for event in &events[1..] {
            assert_eq!((event.attempt, &event.worker), (1, &worker.to_string()));
            let waited = event.waited.map(|waited| Duration::try_from(waited).expect("a span"));
            assert_eq!(waited, Some(started.since(ended.due)), "since it was due");
        }
        let ran = events[2].ran.map(|ran| Duration::try_from(ran).expect("a span"));
        // As the task tells it, whatever the worker measured within that.
        let told = ended.finished.map(|finished| finished.since(started));
        assert_eq!((events[1].ran, ran), (None, told));
    }
    harness.check().await;
}

pub async fn a_failure_is_tried_again_until_the_budget_is_used(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let id = harness.submit(tried("a", 3)).await;
    for attempt in 1..=2 {
        let run = harness.start().await;
        assert_eq!((run.given.attempt, run.given.failures), (attempt, attempt - 1));
        let rest = if attempt == 1 { Duration::ZERO } else { Duration::from_millis(30) };
        harness.end(run, failed(rest)).await;
        let stored = harness.get(id).await;
        assert_eq!((stored.lifecycle.attempt, stored.lifecycle.failures), (attempt, attempt));
        assert_eq!(stored.failure.map(|failure| failure.reason), Some("BROKEN".to_owned()));
        assert_eq!((stored.finished, stored.result), (None, None));
        let events = harness.events_of(id).await;
        let told = events.last().expect("an event");
        assert_eq!((told.r#type(), told.attempt), (RetryScheduled, attempt));
        assert_eq!(told.error.as_ref().map(|error| &*error.reason), Some("BROKEN"));
        assert!(told.next_due_time.is_some() && told.ran.is_some());
    }
    let before = harness.get(id).await;
    let run = harness.start().await;
    assert!(run.given.started >= before.due, "not before it has rested");
    assert_eq!((run.given.attempt, run.given.failures), (3, 2));
    harness.end(run, failed(Duration::ZERO)).await;
    let stored = harness.get(id).await;
    assert_eq!((stored.lifecycle.state, stored.lifecycle.failures), (State::Failed, 3));
    assert!(stored.finished.is_some() && stored.failure.is_some());
    let (start, again) = (Started, RetryScheduled);
    assert_eq!(harness.told(id).await, [Submitted, start, again, start, again, start, Failed]);
    harness.check().await;
}

pub async fn a_permanent_failure_is_not_tried_again(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let id = harness.submit(tried("a", 5)).await;
    assert_eq!(harness.run(broken()).await, id);
    let stored = harness.get(id).await;
    assert_eq!((stored.lifecycle.state, stored.lifecycle.failures), (State::Failed, 1));
    assert_eq!(harness.told(id).await, [Submitted, Started, Failed]);
    // One that is to rest waits for it.
    let id = harness.submit(tried("a", 5)).await;
    assert_eq!(harness.run(failed(LATER)).await, id);
    assert_eq!(harness.state(id).await, State::Scheduled);
    let mut idle = harness.wait().await;
    assert!(idle.is_idle().await, "it has not rested yet");
    harness.check().await;
}

pub async fn a_drain_costs_no_attempt(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let id = harness.submit(task("a")).await;
    for attempt in 1..=3 {
        let run = harness.start().await;
        assert_eq!((run.given.task, run.given.attempt, run.given.failures), (id, attempt, 0));
        harness.end(run, Outcome::Interrupted).await;
        let life = harness.get(id).await.lifecycle;
        assert_eq!((life.state, life.failures, life.crashes), (State::Queued, 0, 0));
        let events = harness.events_of(id).await;
        let told = events.last().expect("an event");
        assert_eq!((told.r#type(), told.attempt), (Interrupted, attempt));
        assert!(told.error.is_some(), "why");
    }
    assert_eq!(harness.run(done()).await, id);
    assert_eq!(harness.state(id).await, State::Succeeded);
    harness.check().await;
}

pub async fn a_crash_costs_no_attempt(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    let (id, other) = (harness.submit(task("a")).await, harness.submit(task("a")).await);
    for attempt in 1..=3 {
        let run = harness.start().await;
        assert_eq!((run.given.task, run.given.attempt), (id, attempt));
        let worker = run.worker;
        harness = harness.crash().await;
        assert_eq!((harness.recovered.tasks, harness.recovered.interrupted), (2, 1));
        let stored = harness.get(id).await;
        let life = stored.lifecycle;
        assert_eq!((life.state, life.failures, life.crashes), (State::Queued, 0, attempt));
        assert!(stored.failure.is_some() && stored.execution.is_some());
        let events = harness.events_of(id).await;
        let told = events.last().expect("an event");
        assert_eq!((told.r#type(), told.attempt), (Interrupted, attempt));
        assert_eq!((&told.worker, told.ran), (&worker.to_string(), None), "nobody knows how long");
        harness.check().await;
    }
    assert_eq!(harness.run(done()).await, id, "it goes back to its place");
    assert_eq!(harness.run(done()).await, other);
    harness.check().await;
}

pub async fn too_many_crashes_in_a_row_fail_a_task(provider: &impl Provider) {
    let mut harness =
        StoreHarness::with(provider, Setup { max_crashes: 2, ..Setup::default() }).await;
    let id = harness.submit(tried("a", 9)).await;
    // Not in a row: the process ended in an orderly way, or the attempt did.
    for between in [Outcome::Interrupted, failed(Duration::ZERO)] {
        harness.start().await;
        harness = harness.crash().await;
        assert_eq!(harness.get(id).await.lifecycle.crashes, 1);
        assert_eq!(harness.run(between).await, id);
        assert_eq!(harness.get(id).await.lifecycle.crashes, 0);
    }
    harness.start().await;
    harness = harness.crash().await;
    assert_eq!(harness.state(id).await, State::Queued);
    harness.start().await;
    harness = harness.crash().await;
    let stored = harness.get(id).await;
    assert_eq!((stored.lifecycle.state, stored.lifecycle.attempt), (State::Failed, 6));
    assert!(stored.finished.is_some() && stored.failure.is_some());
    assert_eq!(harness.told(id).await.last(), Some(&Failed));
    harness.check().await;
}

pub async fn every_event_of_a_task_has_its_labels(provider: &impl Provider) {
    let mut harness = StoreHarness::new(provider).await;
    // A worker waits, so that it starts with its submission; later it is read for that.
    let idle = harness.wait().await;
    let labels: BTreeMap<_, _> =
        [("a", "1"), ("b", "")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let id = harness.submit(NewTask { labels: labels.clone(), ..tried("a", 2) }).await;
    idle.run().await;
    harness = harness.crash().await;
    harness.run(failed(Duration::ZERO)).await;
    harness.run(failed(Duration::ZERO)).await;
    harness.redrive(id).await.expect("it lives again");
    harness.cancel(id).await.expect("it waits");
    harness = harness.restart().await;
    harness.redrive(id).await.expect("it lives again");
    let run = harness.start().await;
    harness.cancel(id).await.expect("it runs");
    harness.end(run, Outcome::Stopped).await;
    let later = NewTask { due: Due::After(LATER), labels: labels.clone(), ..task("a") };
    let later = harness.submit(later).await;
    harness = harness.crash().await;
    harness.cancel(later).await.expect("it waits");
    let lives = [
        [Submitted, Started, Interrupted, Started, RetryScheduled, Started, Failed].as_slice(),
        &[Redriven, Cancelled, Redriven, Started, Cancelled],
    ];
    assert_eq!(harness.told(id).await, lives.concat());
    assert_eq!(harness.told(later).await, [Submitted, Cancelled]);
    for event in [harness.events_of(id).await, harness.events_of(later).await].concat() {
        assert_eq!(event.labels, labels, "{event:?}");
    }
    harness.check().await;
}
