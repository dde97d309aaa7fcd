//! Opens what a power cut left with the real binary, and holds it to what was told.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use taskyard::proto::v1::{
    Event, EventType, ListTasksRequest, SubmitRequest, Task, TaskState, WatchEventsRequest,
    WatchStart,
};

use crate::{
    power::{ledger::Known, server::Server},
    support::{Client, connect, submit, task, wait},
};

/// Starts a server on the image and looks at everything. `context` says which image it is.
pub async fn verify(image: &Path, known: &Known, context: &str) {
    let server = Server::plain(image)
        .unwrap_or_else(|said| panic!("{context}: the server does not start:\n{said}"));
    let address = server.address.parse().expect("an address");
    let mut client = connect(address).await;
    holds(&mut client, known, context).await;
}

/// What was told is so.
pub async fn holds(client: &mut Client, known: &Known, context: &str) {
    let tasks = all_tasks(client).await;
    let events = all_events(client).await;
    check_tasks(&tasks, known, context);
    check_events(&events, &tasks, known, context);
    // It goes on: an old request is known, and a new one runs to its end.
    if let Some((request_id, task_id)) = known.acknowledged.iter().next_back() {
        assert_eq!(tasks[request_id].task_id, *task_id);
    }
    let new = SubmitRequest { priority: 1_000, ..task("noop") };
    let new = submit(client, new).await.task_id;
    assert_eq!(wait(client, &new).await.state(), TaskState::Succeeded, "{context}");
}

fn check_tasks(tasks: &BTreeMap<String, Task>, known: &Known, context: &str) {
    let lost = known.acknowledged.iter().filter(|(request_id, task_id)| {
        tasks.get(*request_id).is_none_or(|task| task.task_id != **task_id)
    });
    let lost: Vec<_> = lost.map(|(request_id, _)| request_id).collect();
    assert!(lost.is_empty(), "{context}: acknowledged, and lost: {lost:?}");
    for request_id in tasks.keys() {
        assert!(known.asked.contains(request_id), "{context}: nobody asked for {request_id}");
        assert!(!known.refused.contains(request_id), "{context}: {request_id} was refused");
    }
    let states: BTreeMap<_, _> =
        tasks.values().map(|task| (task.task_id.as_str(), task.state())).collect();
    for (task_id, state) in &known.ended {
        assert_eq!(states.get(task_id.as_str()), Some(state), "{context}: {task_id} had ended");
    }
}

fn check_events(events: &[Event], tasks: &BTreeMap<String, Task>, known: &Known, context: &str) {
    for (expected, event) in (1..).zip(events) {
        assert_eq!(event.seq, expected, "{context}: the events have a gap");
    }
    for (number, seen) in &known.seen {
        let kept = usize::try_from(*number).ok().and_then(|number| events.get(number - 1));
        assert_eq!(kept, Some(seen), "{context}: event {number} was seen");
    }
    let of_type = |wanted: EventType| {
        let events = events.iter().filter(move |event| event.r#type() == wanted);
        events.map(|event| event.task_id.as_str()).collect::<BTreeSet<_>>()
    };
    let listed: BTreeSet<_> = tasks.values().map(|task| task.task_id.as_str()).collect();
    assert_eq!(of_type(EventType::Submitted), listed, "{context}: tasks and their events");
    for (state, ending) in [
        (TaskState::Succeeded, EventType::Succeeded),
        (TaskState::Failed, EventType::Failed),
        (TaskState::Cancelled, EventType::Cancelled),
    ] {
        let told = of_type(ending);
        for task in tasks.values().filter(|task| task.state() == state) {
            assert!(told.contains(task.task_id.as_str()), "{context}: no event tells {task:?}");
        }
    }
}

/// By `request_id`.
async fn all_tasks(client: &mut Client) -> BTreeMap<String, Task> {
    let mut tasks = BTreeMap::new();
    let mut page_token = String::new();
    loop {
        let page = ListTasksRequest {
            page_size: 1_000,
            page_token,
            omit_payloads: true,
            ..Default::default()
        };
        let page = client.list_tasks(page).await.expect("a page").into_inner();
        for task in page.tasks {
            let twice = tasks.insert(task.request_id.clone(), task);
            assert!(twice.is_none(), "one request made two tasks: {twice:?}");
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return tasks;
        }
    }
}

async fn all_events(client: &mut Client) -> Vec<Event> {
    let request = WatchEventsRequest {
        start: WatchStart::Oldest.into(),
        stop_when_caught_up: true,
        ..Default::default()
    };
    let mut stream = client.watch_events(request).await.expect("a watch").into_inner();
    let mut events = Vec::new();
    while let Some(message) = stream.message().await.expect("the events can be read") {
        events.extend(message.events);
    }
    events
}
