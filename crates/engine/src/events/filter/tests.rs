//! What is selected, against a filter that decodes every event.

use proptest::{
    collection::{btree_map, vec},
    prelude::*,
};

use super::*;
use crate::{
    event::{Event, EventType, Subject},
    events::Encoder,
    task::{Timestamp, WorkerId},
};

type Labels = BTreeMap<String, String>;

/// An event, as far as a filter may ask of it.
#[derive(Clone, Debug)]
struct Said {
    event_type: EventType,
    task: u64,
    queue: &'static str,
    worker: Option<u32>,
    labels: Labels,
}

const TYPES: [EventType; 3] = [EventType::Submitted, EventType::Started, EventType::Succeeded];
const QUEUES: [&str; 3] = ["a", "aa", "b"];

fn labels(most: usize) -> impl Strategy<Value = Labels> {
    btree_map("[a-c]", "x?", 0..=most)
}

fn said() -> impl Strategy<Value = Said> {
    let fields = (0..3usize, 1..40u64, 0..3usize, proptest::option::of(0..3u32), labels(3));
    fields.prop_map(|(which, task, queue, worker, labels)| Said {
        event_type: TYPES[which],
        task,
        queue: QUEUES[queue],
        worker,
        labels,
    })
}

fn batch(events: &[Said]) -> EventBatch {
    let mut encoder = Encoder::new(Seq(100));
    for said in events {
        let labels = v1::Event { labels: said.labels.clone(), ..v1::Event::default() };
        let labels = labels.encode_to_vec();
        let id = TaskId::new(said.task, 5);
        let subject = Subject { id, queue: said.queue, kind: "k", attempt: 1, labels: &labels };
        let worker = said.worker.map(WorkerId);
        let event = Event::new(said.event_type, Timestamp(1), Some(subject));
        encoder.push(&Event { worker, ..event });
    }
    EventBatch::joined(&encoder.take_all()).expect("events")
}

/// Few tasks or very many, so that either may be looked up in the other.
fn spec() -> impl Strategy<Value = EventFilterSpec> {
    let tasks = prop_oneof![
        Just(Vec::new()),
        vec(1..40u64, 1..4),
        vec(1..40u64, 30..60),
        Just((1..100).collect())
    ];
    let queues = proptest::sample::subsequence(QUEUES.to_vec(), 0..=2);
    let types = proptest::sample::subsequence(TYPES.to_vec(), 0..=2);
    let labels = prop_oneof![Just(Labels::new()), labels(2)];
    (tasks, queues, types, labels).prop_map(|(tasks, queues, types, labels)| EventFilterSpec {
        // Another store's task of the same number is another one.
        tasks: tasks.into_iter().map(|task| TaskId::new(task, 5 + task % 10 / 9)).collect(),
        queues: queues.into_iter().map(str::to_owned).collect(),
        types: types.into_iter().map(|of| of as i32).collect(),
        labels,
        ..EventFilterSpec::default()
    })
}

fn wants(spec: &EventFilterSpec, event: &v1::Event) -> bool {
    let named = |wanted: &[String], name: &String| wanted.is_empty() || wanted.contains(name);
    let tasks: Vec<_> = spec.tasks.iter().map(ToString::to_string).collect();
    named(&tasks, &event.task_id)
        && named(&spec.queues, &event.queue)
        && (spec.types.is_empty() || spec.types.contains(&event.r#type))
        && spec.labels.iter().all(|(key, value)| event.labels.get(key) == Some(value))
}

fn decoded(data: &[u8]) -> Vec<v1::Event> {
    v1::WatchEventsResponse::decode(data).unwrap().events
}

proptest! {
    #[test]
    fn what_is_picked_in_pieces_of_any_size_is_what_is_wanted(
        events in vec(said(), 1..60),
        spec in spec(),
        seen in any::<proptest::sample::Index>(),
        max_bytes in 1..2_000usize,
    ) {
        let batch = batch(&events);
        let Some(filter) = EventFilter::new(spec.clone()) else { return Ok(()) };
        let mut after = Seq(100 + seen.index(events.len() + 1) as u64);
        let mut expected = decoded(batch.data());
        expected.retain(|event| event.seq > after.0 && wants(&spec, event));
        let mut selected = Vec::new();
        loop {
            let piece = filter.select(&batch, after, max_bytes).expect("it is whole");
            let events = decoded(&piece.events);
            prop_assert_eq!(events.len() as u64, piece.count);
            prop_assert!(piece.events.len() <= max_bytes || piece.count == 1);
            prop_assert!(events.iter().all(|event| event.seq <= piece.upto.0));
            selected.extend(events);
            if piece.upto >= batch.last() {
                break;
            }
            prop_assert!(piece.upto > after, "it does not get on");
            after = piece.upto;
        }
        prop_assert_eq!(selected, expected);
    }
}

#[test]
fn a_damaged_batch_is_none() {
    let data = batch(&[Said {
        event_type: EventType::Submitted,
        task: 1,
        queue: "a",
        worker: None,
        labels: Labels::new(),
    }]);
    let cut = EventBatch::new(Seq(1), Seq(1), data.data().slice(1..), Box::default());
    let spec = EventFilterSpec { queues: vec!["a".into()], ..EventFilterSpec::default() };
    let filter = EventFilter::new(spec).expect("a filter");
    assert_eq!(filter.select(&cut, Seq(0), 1_000), None);
}
