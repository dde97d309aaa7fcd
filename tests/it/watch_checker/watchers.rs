//! A crowd of watchers behind a bad network: some use the library's loop, some keep their
//! cursor themselves; some read late, some leave and come back, some stay for a moment.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use taskyard::{
    client::{Client, Seen, Start, Watch, is_lost, reason},
    proto::v1::{
        EventFilter, EventType, GapPolicy, Task, WatchEventsRequest, WatchStart,
        watch_events_response::Control,
    },
};
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tonic::{Status, transport::Endpoint};
use tonic_types::StatusExt as _;

use crate::{
    support::{PATIENCE, span},
    watch_checker::{audit::Count, load::client, records::Record},
};

/// Watchers at a time: as many again come later.
const WATCHERS: u64 = 24;

/// A short one, so that the cursor goes on past what a filter leaves out.
const HEARTBEAT: Duration = Duration::from_millis(200);

type Finished = watch::Receiver<Option<u64>>;

/// What one of them is like.
struct Plan {
    start: Start,
    filter: Option<EventFilter>,
    over_gaps: bool,
    /// Stays so long, or to the end.
    stay: Option<Duration>,
    /// Rests this often, in a hundred messages.
    rests: u32,
    random: StdRng,
    name: String,
}

/// A client that takes no more than 64 KiB that it has not read: then resting is felt by
/// the server.
fn narrow(address: SocketAddr) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let endpoint =
        endpoint.initial_stream_window_size(65_535).initial_connection_window_size(65_535);
    Client::over(endpoint.connect_timeout(Duration::from_secs(2)).connect_lazy())
}

/// Begins them all.
pub fn begin(
    network: SocketAddr,
    finished: &Finished,
    count: &Count,
    seed: u64,
) -> JoinSet<Record> {
    let mut crowd = JoinSet::new();
    for number in 0..2 * WATCHERS {
        let mut random = StdRng::seed_from_u64(seed ^ (number + 1000) << 20);
        let comes_late = number >= WATCHERS;
        let plan = Plan::new(number, &mut random);
        let (finished, count) = (finished.clone(), count.clone());
        crowd.spawn(async move {
            if comes_late {
                let later = random.random_range(0..15_000);
                tokio::time::sleep(Duration::from_millis(later)).await;
            }
            let name = format!("{number}, {}", plan.name);
            let late = too_late(finished.clone());
            let watching = async {
                if number % 2 == 0 {
                    by_the_loop(plan, network, count, finished).await
                } else {
                    by_hand(plan, network, count, finished).await
                }
            };
            tokio::select! {
                record = watching => record,
                () = late => panic!("{name} does not get to the last event"),
            }
        });
    }
    crowd
}

/// Returns long after every event has happened.
async fn too_late(mut finished: Finished) {
    // The sender outlives the watchers.
    let _ = finished.wait_for(Option::is_some).await;
    tokio::time::sleep(PATIENCE).await;
}

impl Plan {
    fn new(number: u64, random: &mut StdRng) -> Self {
        let start = match random.random_range(0..6) {
            0 | 1 => Start::Live,
            2 | 3 => Start::Oldest,
            _ => Start::Snapshot,
        };
        let filter = match &start {
            // Of a snapshot's filter only some fields count for tasks: one is checked.
            Start::Snapshot if random.random_bool(0.5) => {
                Some(EventFilter { queues: vec!["mail".into()], ..EventFilter::default() })
            }
            Start::Snapshot => None,
            _ => filter(random),
        };
        let stays = random.random_bool(0.7);
        let stay = (!stays).then(|| Duration::from_millis(random.random_range(500..6000)));
        Self {
            name: format!("watcher {number}, from {start:?}, {stay:?}"),
            start,
            filter,
            over_gaps: random.random_bool(0.5),
            stay,
            rests: if random.random_bool(0.3) { random.random_range(1..5) } else { 0 },
            random: StdRng::seed_from_u64(random.random()),
        }
    }

    /// Now and then, does not read for a while, while there is still more to come.
    async fn rest(&mut self, finished: &Finished) {
        if self.random.random_range(0..100) < self.rests && finished.borrow().is_none() {
            let rest = self.random.random_range(100..4000);
            tokio::time::sleep(Duration::from_millis(rest)).await;
        }
    }

    fn leaves_now(&mut self) -> bool {
        self.random.random_range(0..300) == 0
    }
}

fn filter(random: &mut StdRng) -> Option<EventFilter> {
    let none = EventFilter::default();
    Some(match random.random_range(0..8) {
        0 => EventFilter { queues: vec!["mail".into(), "reports".into()], ..none },
        1 => EventFilter { kinds: vec!["sleep".into()], ..none },
        2 => {
            let types = [EventType::Failed, EventType::Interrupted, EventType::WorkerStarted];
            EventFilter { types: types.map(Into::into).into(), ..none }
        }
        3 => EventFilter { workers: vec!["worker-2".into()], ..none },
        4 => EventFilter { labels: [("shade".into(), "dark".into())].into(), ..none },
        5 => EventFilter {
            queues: vec!["mail".into()],
            kinds: vec!["noop".into()],
            labels: [("shade".into(), "light".into())].into(),
            ..none
        },
        // Nothing ever.
        6 => EventFilter { queues: vec!["nobodys".into()], ..none },
        _ => return None,
    })
}

/// Whether there is nothing more to wait for.
fn is_over(record: &Record, finished: &Finished, until: Option<Instant>) -> bool {
    until.is_some_and(|until| Instant::now() >= until)
        || finished.borrow().is_some_and(|last| record.has_reached(last))
}

/// Watches with the library's loop, which is dropped and made anew now and then.
async fn by_the_loop(
    mut plan: Plan,
    network: SocketAddr,
    count: Count,
    mut finished: Finished,
) -> Record {
    let mut record = Record::new(format!("{} by the loop", plan.name), plan.filter.clone(), count);
    record.begins(&plan.start);
    let until = plan.stay.map(|stay| Instant::now() + stay);
    let mut start = plan.start.clone();
    let mut tasks = HashMap::new();
    loop {
        let watch = Watch {
            filter: plan.filter.clone(),
            over_gaps: plan.over_gaps,
            heartbeat: HEARTBEAT,
            max_outage: PATIENCE,
            ..Watch::begin(start.clone())
        };
        let mut watcher = client(network).watch(watch);
        loop {
            if is_over(&record, &finished, until) {
                return record;
            }
            plan.rest(&finished).await;
            if let Some(cursor) = watcher.cursor().filter(|_| plan.leaves_now()) {
                start = Start::After(cursor.to_owned());
                break;
            }
            let seen = tokio::select! {
                seen = watcher.next() => seen,
                Ok(()) = finished.changed() => continue,
            };
            match seen {
                Ok(Some(Seen::Events(batch))) => record.saw(&batch.events),
                Ok(Some(Seen::SnapshotBegun)) => tasks.clear(),
                Ok(Some(Seen::Snapshot { tasks: part, .. })) => add(&mut tasks, part, &record.name),
                Ok(Some(Seen::SnapshotEnded)) => {
                    let cursor = watcher.cursor().expect("a snapshot has a cursor");
                    record.snapshot(std::mem::take(&mut tasks), cursor);
                }
                Ok(Some(Seen::Gap(gap))) => {
                    assert!(plan.over_gaps, "{}: a gap that it did not ask for", record.name);
                    record.gap(&gap.from_cursor, &gap.to_cursor);
                }
                Ok(Some(_)) => {}
                Ok(None) => panic!("{}: it ended without a reason", record.name),
                Err(status) => {
                    let from = watcher.cursor().unwrap_or_default().to_owned();
                    start = Start::After(expired(&mut record, &from, &status));
                    break;
                }
            }
            if let Some(cursor) = watcher.cursor() {
                record.reached(cursor);
            }
        }
    }
}

/// Watches with the generated client and a cursor of its own.
async fn by_hand(
    mut plan: Plan,
    network: SocketAddr,
    count: Count,
    mut finished: Finished,
) -> Record {
    let mut record = Record::new(format!("{} by hand", plan.name), plan.filter.clone(), count);
    record.begins(&plan.start);
    let until = plan.stay.map(|stay| Instant::now() + stay);
    let mut cursor = String::new();
    'streams: loop {
        if is_over(&record, &finished, until) {
            return record;
        }
        // A connection of its own for each stream: who leaves is noticed by that.
        let client = narrow(network);
        let mut stream = match client.tasks().watch_events(request(&plan, &cursor)).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => {
                cursor = lost(&mut record, cursor, &status);
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let mut tasks = HashMap::new();
        let mut is_telling = cursor.is_empty() && plan.start == Start::Snapshot;
        loop {
            if is_over(&record, &finished, until) {
                return record;
            }
            plan.rest(&finished).await;
            if plan.leaves_now() {
                continue 'streams;
            }
            let message = tokio::select! {
                message = stream.message() => message,
                Ok(()) = finished.changed() => continue,
            };
            let message = match message {
                Ok(Some(message)) => message,
                Ok(None) => panic!("{}: it ended without a reason", record.name),
                Err(status) => {
                    cursor = lost(&mut record, cursor, &status);
                    continue 'streams;
                }
            };
            record.saw(&message.events);
            match message.control {
                Some(Control::Snapshot(part)) => add(&mut tasks, part.tasks, &record.name),
                Some(Control::SnapshotEnd(_)) => {
                    is_telling = false;
                    record.snapshot(std::mem::take(&mut tasks), &message.cursor);
                }
                Some(Control::Gap(gap)) => {
                    assert!(plan.over_gaps, "{}: a gap that it did not ask for", record.name);
                    record.gap(&gap.from_cursor, &gap.to_cursor);
                }
                _ => {}
            }
            if !is_telling && !message.cursor.is_empty() {
                record.reached(&message.cursor);
                cursor = message.cursor;
            }
        }
    }
}

fn request(plan: &Plan, cursor: &str) -> WatchEventsRequest {
    let start = match &plan.start {
        Start::Oldest if cursor.is_empty() => WatchStart::Oldest,
        _ => WatchStart::Unspecified,
    };
    let gap_policy = if plan.over_gaps { GapPolicy::Continue } else { GapPolicy::Fail };
    WatchEventsRequest {
        after_cursor: cursor.into(),
        start: start.into(),
        filter: plan.filter.clone(),
        include_snapshot: cursor.is_empty() && plan.start == Start::Snapshot,
        heartbeat_interval: span(HEARTBEAT),
        gap_policy: gap_policy.into(),
        ..WatchEventsRequest::default()
    }
}

/// Where to go on after a stream that ended so: after the cursor that the status tells, if
/// it does.
fn lost(record: &mut Record, cursor: String, status: &Status) -> String {
    match reason(status).as_deref() {
        Some("WATCH_STALLED" | "WATCH_LIFETIME") => {
            let info = status.get_details_error_info().expect("it has a reason");
            record.stalls += usize::from(status.code() == tonic::Code::ResourceExhausted);
            // A snapshot that is not complete has none. Beyond that of the last message there
            // may be events that the filter leaves out: there it is as good as a message's.
            let told = info.metadata.get("cursor").cloned().unwrap_or_default();
            assert_eq!(told.is_empty(), cursor.is_empty(), "{}: {status:?}", record.name);
            if !told.is_empty() {
                record.reached(&told);
            }
            told
        }
        Some("CURSOR_EXPIRED") => expired(record, &cursor, status),
        Some("DRAINING") => cursor,
        _ if is_lost(status) || status.code() == tonic::Code::Cancelled => cursor,
        _ => panic!("{}: {status:?}", record.name),
    }
}

/// Notes that events are gone, and where to go on.
fn expired(record: &mut Record, cursor: &str, status: &Status) -> String {
    let is_expired = reason(status).as_deref() == Some("CURSOR_EXPIRED");
    assert!(is_expired, "{}: {status:?}", record.name);
    let info = status.get_details_error_info().expect("it has a reason");
    let oldest = info.metadata["oldest_cursor"].clone();
    record.gap(cursor, &oldest);
    oldest
}

fn add(tasks: &mut HashMap<String, Task>, part: Vec<Task>, name: &str) {
    for task in part {
        let before = tasks.insert(task.task_id.clone(), task);
        assert!(before.is_none(), "{name}: a task is in a snapshot twice: {before:?}");
    }
}
