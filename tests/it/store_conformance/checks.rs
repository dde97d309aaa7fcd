//! What can be read of a store, and whether it fits together.

use std::{collections::BTreeMap, sync::Arc};

use prost::Message as _;
use taskyard::{
    event::Seq,
    proto::v1::{self, EventType},
    queue::Counts,
    store::{Query, Task},
    task::{State, TaskId},
};

use crate::store_conformance::{harness::StoreHarness, provider::Provider, work::patient};

impl<P: Provider> StoreHarness<'_, P> {
    /// Every task that a query finds, page by page.
    pub async fn pages(&self, query: &Query) -> Vec<Task> {
        let (mut tasks, mut query) = (Vec::new(), query.clone());
        loop {
            let page = patient(self.store.list(query.clone())).await.expect("a page");
            assert!(page.tasks.len() <= query.limit, "{} tasks on a page", page.tasks.len());
            tasks.extend(page.tasks);
            match (page.next, query.beyond) {
                (None, _) => return tasks,
                (Some(next), Some(before)) if query.newest_first => assert!(next < before),
                (Some(next), Some(before)) => assert!(next > before, "no way back"),
                (Some(_), None) => {}
            }
            query.beyond = page.next;
        }
    }

    pub async fn all(&self) -> Vec<Task> {
        self.pages(&Query { limit: 100, ..Query::default() }).await
    }

    /// Every event after `after`, in order and without a gap.
    pub async fn events_after(&self, after: Seq) -> Vec<v1::Event> {
        let newest = self.hub.newest();
        let mut tail = self.hub.follow(Some(after), Arc::clone(&self.store) as _);
        let mut events: Vec<v1::Event> = Vec::new();
        while tail.cursor() < newest {
            let piece = patient(tail.next()).await.expect("events");
            let decoded = v1::WatchEventsResponse::decode(piece.data().clone()).expect("events");
            events.extend(decoded.events);
        }
        for (event, seq) in events.iter().zip(after.0 + 1..) {
            assert_eq!(event.seq, seq, "a gap, or a repetition");
        }
        events
    }

    pub async fn events_of(&self, id: TaskId) -> Vec<v1::Event> {
        let mut events = self.events_after(Seq(0)).await;
        events.retain(|event| event.task_id == id.to_string());
        events
    }

    /// What happened to a task.
    pub async fn told(&self, id: TaskId) -> Vec<EventType> {
        self.events_of(id).await.iter().map(v1::Event::r#type).collect()
    }

    /// Finds that the events, the lists and the overview tell the same.
    pub async fn check(&self) {
        let tasks = self.check_counts().await;
        let mut states = BTreeMap::new();
        for event in self.events_after(Seq(0)).await {
            states.extend(waits_after(event.r#type()).map(|state| (event.task_id, state)));
        }
        let listed = tasks.iter().map(|task| (task.id.to_string(), settled(task.lifecycle.state)));
        assert_eq!(states, listed.collect(), "the events tell otherwise than the lists");
    }

    /// Finds that the lists and the overview tell the same.
    pub async fn check_counts(&self) -> Vec<Task> {
        let (tasks, overview) = (self.all().await, self.overview().await);
        let mut listed: BTreeMap<&str, Counts> = BTreeMap::new();
        for task in &tasks {
            let counts = listed.entry(&task.queue).or_default();
            *count_of(counts, task.lifecycle.state) += 1;
        }
        let total = listed.values().fold(Counts::default(), |sum, counts| sum.plus(*counts));
        assert_eq!(overview.counts, total, "all queues together");
        assert!(overview.queues.is_sorted_by(|a, b| a.name < b.name), "by name, each once");
        for status in &overview.queues {
            let counts = listed.remove(&*status.name).unwrap_or_default();
            assert_eq!((&status.name, status.counts), (&status.name, counts));
            assert_eq!(self.queue(&status.name).await.counts, counts);
        }
        assert_eq!(listed, BTreeMap::new(), "queues that the overview lacks");
        tasks
    }
}

fn count_of(counts: &mut Counts, state: State) -> &mut u64 {
    match state {
        State::Scheduled => &mut counts.scheduled,
        State::Queued => &mut counts.queued,
        State::Running => &mut counts.running,
        State::Succeeded => &mut counts.succeeded,
        State::Failed => &mut counts.failed,
        State::Cancelled => &mut counts.cancelled,
    }
}

/// A state, without what only a clock decides.
fn settled(state: State) -> State {
    if state == State::Scheduled { State::Queued } else { state }
}

/// Where an event leaves its task, as far as no clock decides it.
fn waits_after(event: EventType) -> Option<State> {
    match event {
        EventType::Submitted
        | EventType::RetryScheduled
        | EventType::Interrupted
        | EventType::Redriven => Some(State::Queued),
        EventType::Started => Some(State::Running),
        EventType::Succeeded => Some(State::Succeeded),
        EventType::Failed => Some(State::Failed),
        EventType::Cancelled => Some(State::Cancelled),
        _ => None,
    }
}
