//! What the events tell, and what the rows must be if they tell the truth.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    time::Duration,
};

use prost::Message as _;
use taskyard_proto::v1::{Event, EventType, WatchEventsResponse};

use crate::{
    event::Seq,
    store::{
        Retention,
        engine::{ENDS, Engine},
        journal::{
            FinishRow,
            memory::{Content, MemoryDisk},
        },
    },
    task::{State, TaskId},
};

/// A task, by its events.
#[derive(Debug)]
struct TaskSoFar {
    state: State,
    attempt: u32,
    /// When its latest event was told, in microseconds.
    at: i64,
    /// Its rows are gone, as they were to.
    is_trimmed: bool,
}

/// All that was told so far.
#[derive(Debug, Default)]
pub struct Story {
    newest: Seq,
    tasks: BTreeMap<u64, TaskSoFar>,
    text: String,
    /// The process has died, and the next one has not begun.
    is_down: bool,
}

impl Story {
    /// Reads the events that are new on a disk.
    pub fn learn(&mut self, disk: &MemoryDisk, now: i64) {
        let content = disk.content();
        for (batch, _) in content.events.range(self.newest.next()..).map(|(_, row)| row) {
            assert_eq!(batch.first(), self.newest.next(), "events are numbered without gaps");
            let response = WatchEventsResponse::decode(batch.data().clone()).expect("events");
            for event in response.events {
                self.newest = self.newest.next();
                assert_eq!(event.seq, self.newest.0);
                self.tell(&event, now);
            }
            assert_eq!(batch.last(), self.newest);
        }
    }

    fn tell(&mut self, event: &Event, now: i64) {
        writeln!(
            self.text,
            "{} {:?} {} {} {}",
            event.seq,
            event.r#type(),
            event.queue,
            event.attempt,
            event.worker
        )
        .expect("it is a string");
        if event.task_id.is_empty() {
            return;
        }
        let number = event.task_id.parse::<TaskId>().expect("an id").number();
        if event.r#type() == EventType::Submitted {
            let told = TaskSoFar { state: State::Queued, attempt: 0, at: now, is_trimmed: false };
            assert!(self.tasks.insert(number, told).is_none(), "{number} is submitted twice");
            return;
        }
        let told = self.tasks.get_mut(&number).expect("it was submitted");
        assert!(!told.is_trimmed, "{number} was gone");
        told.at = now;
        let before = told.state;
        let is_end = before == State::Running || event.attempt == told.attempt;
        assert!(is_end || event.r#type() == EventType::Started, "{event:?}: {told:?}");
        match event.r#type() {
            EventType::Started => {
                assert_eq!(before, State::Queued, "{event:?}");
                assert_eq!(event.attempt, told.attempt + 1, "each number once, and none left out");
                (told.state, told.attempt) = (State::Running, event.attempt);
            }
            EventType::Succeeded => told.ends(State::Succeeded, event),
            EventType::Failed => told.ends(State::Failed, event),
            EventType::Cancelled => {
                assert!(matches!(before, State::Queued | State::Running), "{event:?}: {before:?}");
                told.state = State::Cancelled;
            }
            EventType::RetryScheduled | EventType::Interrupted => told.ends(State::Queued, event),
            EventType::Redriven => {
                assert!(
                    matches!(before, State::Failed | State::Cancelled),
                    "{event:?}: {before:?}"
                );
                told.state = State::Queued;
            }
            other => panic!("{other:?} is of no task"),
        }
    }

    /// How a task stands; SCHEDULED counts as QUEUED, as no event tells them apart.
    pub fn state(&self, number: u64) -> Option<State> {
        self.tasks.get(&number).map(|told| told.state)
    }

    /// The attempts that a task has had.
    pub fn attempt(&self, number: u64) -> u32 {
        self.tasks.get(&number).map_or(0, |told| told.attempt)
    }

    /// Whether a task has ended.
    pub fn has_ended(&self, number: u64) -> bool {
        self.state(number).is_some_and(State::is_terminal)
    }

    /// A worker was given a task: that was told before.
    pub fn runs(&self, number: u64, attempt: u32, worker: u32) {
        let told = self.tasks.get(&number).expect("it was submitted");
        assert_eq!((told.state, told.attempt), (State::Running, attempt), "worker {worker}");
    }

    /// The process has died.
    pub fn crash(&mut self) {
        self.is_down = true;
    }

    /// The next one has begun: nothing runs.
    pub fn started(&mut self) {
        assert!(std::mem::take(&mut self.is_down));
        let running = self.tasks.values().filter(|told| told.state == State::Running).count();
        assert_eq!(running, 0, "whatever ran is interrupted");
    }

    /// All of it, as text, without what is random.
    pub fn told(&self) -> String {
        self.text.clone()
    }

    /// Compares the rows, and what the engine has in memory, with what was told.
    pub fn check(
        &mut self,
        disk: &MemoryDisk,
        engine: &Engine<'_>,
        now: i64,
        retention: &Retention,
    ) {
        let content = disk.content();
        for (number, told) in &mut self.tasks {
            check_task(*number, told, &content, engine);
            if told.state.is_terminal() && !content.tasks.contains_key(number) {
                check_trimmed(*number, told, &content, now, retention);
            } else {
                check_attempts(*number, told, &content);
            }
        }
        assert!(content.tasks.keys().all(|number| self.tasks.contains_key(number)));
        assert_eq!(content.live.len(), engine.index.len(), "the index has what lives");
        check_requests(&content);
        check_queues(&content, engine);
        check_ended(&content);
        check_slots(&content, engine);
        check_places(&content, engine);
    }
}

/// The newest event on a disk.
pub fn newest_on(disk: &MemoryDisk) -> Seq {
    let content = disk.content();
    content.events.values().next_back().map(|(batch, _)| batch.last()).unwrap_or_default()
}

impl TaskSoFar {
    fn ends(&mut self, state: State, event: &Event) {
        assert_eq!((self.state, self.attempt), (State::Running, event.attempt), "{event:?}");
        self.state = state;
    }
}

/// Its rows, and what is in memory of it, are as its events tell.
fn check_task(number: u64, told: &TaskSoFar, content: &Content, engine: &Engine<'_>) {
    let (live, finished) = (content.live.get(&number), content.finished.get(&number));
    let entry = engine.index.get(number);
    if told.state.is_terminal() {
        assert!(live.is_none() && entry.is_none(), "{number} has ended");
        let is_kept = content.tasks.contains_key(&number);
        assert_eq!(finished.map(|row| row.life.state), is_kept.then_some(told.state), "{number}");
        return;
    }
    assert!(finished.is_none(), "{number} lives");
    assert!(live.is_some() && content.tasks.contains_key(&number), "{number} lives");
    let entry = entry.unwrap_or_else(|| panic!("{number} is in the index"));
    let state = match entry.life.state {
        State::Scheduled => State::Queued,
        state => state,
    };
    assert_eq!((state, entry.life.attempt), (told.state, told.attempt), "{number}");
    assert_eq!(entry.permit.is_some(), state == State::Queued, "who waits has a permit");
    assert_eq!(entry.execution.is_some(), state == State::Running);
}

/// What has ended is kept for so long in any case.
const GRACE: Duration = Duration::from_secs(1);

/// It was kept for as long as it was to be, or pushed out by others.
fn check_trimmed(
    number: u64,
    told: &mut TaskSoFar,
    content: &Content,
    now: i64,
    retention: &Retention,
) {
    if std::mem::replace(&mut told.is_trimmed, true) {
        return;
    }
    let age = Duration::from_micros((now - told.at).unsigned_abs());
    let has_failed = told.state == State::Failed;
    let keep = if has_failed { retention.failed } else { retention.finished };
    let is_of_class = |row: &&FinishRow| (row.life.state == State::Failed) == has_failed;
    let kept = content.finished.values().filter(is_of_class).count() as u64;
    let is_pushed_out = age >= GRACE && kept >= retention.max_finished;
    assert!(age >= keep || is_pushed_out, "{number} is gone after {age:?}: {kept} are kept");
}

/// Each execution that has ended is noted, but for one that ended its task.
fn check_attempts(number: u64, told: &TaskSoFar, content: &Content) {
    let noted = content.attempts.range((number, 0)..(number + 1, 0));
    let noted: Vec<u32> = noted.map(|((_, attempt), _)| *attempt).collect();
    let expected: Vec<u32> = (1..=told.attempt).collect();
    let (_, before) = expected.split_last().unwrap_or((&0, &[]));
    assert!(noted == expected || noted == before, "{number}: {noted:?} of {}", told.attempt);
}

/// What was changed about a queue is kept.
fn check_queues(content: &Content, engine: &Engine<'_>) {
    for name in super::QUEUES {
        let queue = engine.queues.find(name).and_then(|id| engine.queues.get(id));
        let is_paused = queue.is_some_and(|queue| queue.paused);
        let is_kept = content.queues.get(name).is_some_and(|row| row.paused);
        assert_eq!(is_kept, is_paused, "{name}");
    }
}

/// A `request_id` is known for as long as its task is kept.
fn check_requests(content: &Content) {
    for (id, row) in &content.requests {
        let task = content.tasks.get(&row.task).unwrap_or_else(|| panic!("{id}: its task"));
        assert_eq!(task.request_id.as_ref(), Some(id));
    }
    let with_ids = content.tasks.values().filter(|task| task.request_id.is_some()).count();
    assert_eq!(with_ids, content.requests.len(), "one task for each id");
}

/// Each task that has ended will be trimmed, and is counted.
fn check_ended(content: &Content) {
    let mut counts: HashMap<(&str, State), (u64, u64)> = HashMap::new();
    for (number, row) in &content.finished {
        let ended = content.ended.get(&row.ended).unwrap_or_else(|| panic!("{number}: its row"));
        assert!(ended.tasks.contains(number), "{number} is in its row");
        assert_eq!(ended.failed, row.life.state == State::Failed);
        let count = counts.entry((&content.tasks[number].queue, row.life.state)).or_default();
        *count = (count.0 + 1, count.1 + row.bytes);
    }
    for (queue, tallies) in &content.tallies {
        for (state, told) in ENDS.iter().zip(tallies) {
            let count = counts.remove(&(&**queue, *state)).unwrap_or_default();
            assert_eq!(count, *told, "{queue} {state:?}");
        }
    }
    assert!(counts.is_empty(), "{counts:?} are not counted");
}

/// A task runs if and only if a slot has it, and it has one.
fn check_slots(content: &Content, engine: &Engine<'_>) {
    let mut running = BTreeSet::new();
    for (worker, slot) in &content.slots {
        assert!(running.insert(slot.task), "{} runs once", slot.task);
        let entry = engine.index.get(slot.task).expect("what runs lives");
        assert_eq!((entry.life.state, entry.life.attempt), (State::Running, slot.attempt));
        let execution = entry.execution.as_ref().expect("it runs");
        assert_eq!((execution.worker, *worker), (slot.worker, slot.worker));
    }
    let others = content.live.keys().filter(|number| !running.contains(number));
    for number in others {
        let state = engine.index.get(*number).expect("it lives").life.state;
        assert_ne!(state, State::Running, "{number} has no slot");
    }
}

/// What waits has its permits, and nothing else has any.
fn check_places(content: &Content, engine: &Engine<'_>) {
    let mut bytes: BTreeMap<&str, u64> = BTreeMap::new();
    for (number, row) in &content.live {
        let entry = engine.index.get(*number).expect("it lives");
        if entry.permit.is_some() {
            *bytes.entry(&row.queue).or_default() += row.bytes;
        }
    }
    for queue in super::QUEUES {
        let id = engine.queues.find(queue);
        let used = id.and_then(|id| engine.queues.get(id)).map(|queue| queue.handle.waiting().0);
        assert_eq!(used.unwrap_or(0), bytes.get(queue).copied().unwrap_or(0), "{queue}");
    }
}
