//! The index of a batch of events: of any bytes it says nothing that is not there, and of events
//! as they are encoded it says what they say.

#![no_main]

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;
use taskyard::{
    event::Seq,
    events::EventBatch,
    proto::v1::{Event, WatchEventsResponse},
    task::TaskId,
};

/// Events of a batch in the store begin at any number.
const FIRST: u64 = 1_000;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    // An event takes two bytes at least, and in the index, while that grows, some hundreds.
    let bound = 400 * data.len() + (1 << 10);
    let events = taskyard_fuzz::within(bound, || parts(&bytes));
    if let Some(events) = events {
        let batch = batch(bytes.clone(), events);
        taskyard_fuzz::within(bound, || fits(&batch, events));
    }
    // As the encoder makes them: the fields in their order, each once.
    let Ok(response) = WatchEventsResponse::decode(data) else { return };
    let events = response.events;
    let only = WatchEventsResponse { events: events.clone(), ..WatchEventsResponse::default() };
    says_what_they_say(&batch(only.encode_to_vec().into(), events.len() as u64), &events);
});

fn batch(data: Bytes, events: u64) -> EventBatch {
    EventBatch::new(Seq(FIRST), Seq(FIRST + events - u64::from(events > 0)), data, Box::default())
}

/// How many events there are by the splitting of a batch, piece by piece.
fn parts(data: &Bytes) -> Option<u64> {
    let (mut count, mut rest) = (0, Some(batch(data.clone(), data.len() as u64)));
    let mut joined = 0;
    while let Some(batch) = rest {
        if batch.data().is_empty() {
            break;
        }
        let (piece, more) = batch.split(1);
        let piece = piece?;
        joined += piece.data().len();
        count += 1;
        rest = more;
    }
    (joined == data.len()).then_some(count)
}

/// The index has each event once, one behind the other, and all that it names is in the data.
fn fits(batch: &EventBatch, count: u64) {
    let Some(index) = batch.index() else { return };
    assert_eq!(index.events().len() as u64, count);
    let mut end = 0;
    for (at, event) in index.events().iter().enumerate() {
        assert_eq!(event.bytes.start, end, "event {at}");
        end = event.bytes.end;
        for span in [event.queue, event.kind, event.worker, event.labels] {
            let named = span.of(batch.data());
            assert!(named.len() <= event.bytes.len(), "event {at}");
        }
        let after = batch.clone().after(Seq(FIRST + at as u64));
        let left = after.map_or(0, |batch| batch.data().len());
        assert_eq!(left, batch.data().len() - end, "after event {at}");
    }
    assert_eq!(end, batch.data().len());
    let tasks: BTreeSet<_> =
        index.events().iter().filter_map(|event| event.task.map(TaskId::number)).collect();
    let of_tasks: usize = tasks.iter().map(|number| index.of_task(*number).count()).sum();
    assert_eq!(of_tasks, index.events().iter().filter(|event| event.task.is_some()).count());
}

fn says_what_they_say(batch: &EventBatch, events: &[Event]) {
    let Some(index) = batch.index() else {
        // No store has such events.
        let is_odd = |event: &Event| {
            event.r#type < 0
                || !event.task_id.is_empty() && event.task_id.parse::<TaskId>().is_err()
        };
        assert!(events.is_empty() || events.iter().any(is_odd), "{events:?}");
        return;
    };
    assert_eq!(index.events().len(), events.len());
    for (said, event) in index.events().iter().zip(events) {
        let data = batch.data();
        assert_eq!(said.event_type, event.r#type, "{event:?}");
        assert_eq!(said.task, event.task_id.parse().ok(), "{event:?}");
        assert_eq!(said.queue.of(data), event.queue.as_bytes(), "{event:?}");
        assert_eq!(said.kind.of(data), event.kind.as_bytes(), "{event:?}");
        assert_eq!(said.worker.of(data), event.worker.as_bytes(), "{event:?}");
        let labels = Event::decode(said.labels.of(data)).expect("labels").labels;
        assert_eq!(labels, event.labels, "{event:?}");
    }
}
