//! What every journal has to do, done to all of them at once: whatever is committed, they
//! give the same answers.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use rusqlite::Connection;

use super::{memory::MemoryDisk, *};
use crate::{
    events::EventBatch,
    store::{
        Durability, MAX_ATTEMPTS_KEPT,
        sqlite::{self, SqliteJournal},
    },
    task::{Data, Failure, Lifecycle, WorkerId},
};

fn connection() -> Connection {
    let location = sqlite::Location::Memory(format!("journal-{:x}", rand::random::<u64>()));
    let trust = sqlite::Trust::SameBoot;
    let circumstances = sqlite::Circumstances { trust, had_store: false, accept_loss: false };
    sqlite::open_writer(&location, Durability::Memory, circumstances).expect("it opens")
}

/// Sets that fit to what is there, as an engine makes them.
struct Author {
    random: StdRng,
    newest_task: u64,
    newest_event: u64,
    newest_ended: i64,
    uptime: u64,
    live: Vec<u64>,
    finished: Vec<(u64, Option<String>)>,
    ended: Vec<EndedRow>,
    batches: Vec<Seq>,
}

impl Author {
    fn any(&mut self) -> WriteSet {
        let mut set = WriteSet::default();
        self.uptime += self.random.random_range(0..1_000);
        // At times more than fit into one row together.
        let most = if self.random.random_range(0..6) == 0 { 150 } else { 4 };
        for _ in 0..self.random.random_range(0..most) {
            self.submit(&mut set);
        }
        for _ in 0..self.random.random_range(0..3) {
            self.wait_again(&mut set);
        }
        self.end_some(&mut set);
        self.trim(&mut set);
        let worker = WorkerId(self.random.random_range(1..4));
        let slot = SlotRow { worker, task: 1, attempt: 2, started: Timestamp(3) };
        set.slots.insert(worker, self.random.random::<bool>().then_some(slot));
        let queue: Arc<str> = self.queue();
        let counts =
            [0; 3].map(|_: u8| (self.random.random_range(0..9), self.random.random_range(0..9)));
        let forget = self.random.random();
        let counts = self.random.random::<bool>().then_some(counts);
        set.tallies.insert(queue, TallyChange { forget, counts });
        let name = self.queue();
        let row = QueueRow {
            name: name.as_ref().into(),
            paused: self.random.random(),
            overrides: vec![self.random.random()],
        };
        set.queues.insert(name, self.random.random::<bool>().then_some(row));
        set.meta.insert("uptime", self.uptime.to_be_bytes().to_vec());
        if self.random.random_range(0..4) == 0 {
            set.starts.push(Incarnation {
                mark: self.random.random_range(0..1_000),
                first: Seq(self.newest_event + 1),
            });
        }
        set
    }

    fn queue(&mut self) -> Arc<str> {
        ["a", "b", "c"][self.random.random_range(0..3)].into()
    }

    fn failure(&mut self) -> Option<Failure> {
        self.random.random::<bool>().then(|| Failure::new("REASON", "a message"))
    }

    fn live_row(&mut self, number: u64) -> LiveRow {
        LiveRow {
            number,
            queue: self.queue(),
            kind: "kind".into(),
            priority: self.random.random_range(-5..5),
            due: Timestamp(self.random.random_range(0..1_000)),
            interval: self.random.random::<bool>().then(|| Duration::from_micros(7)),
            bytes: self.random.random_range(0..1_000),
            max_attempts: 3,
            life: self.life(State::Queued),
            execution: self.random.random::<bool>().then_some((WorkerId(2), Timestamp(5))),
            failure: self.failure(),
            labels: self.random.random::<bool>().then(|| vec![1, 2].into()),
        }
    }

    fn life(&mut self, state: State) -> Lifecycle {
        Lifecycle {
            state,
            attempt: self.random.random_range(0..5),
            failures: self.random.random_range(0..3),
            crashes: 0,
            cancel_requested: self.random.random(),
        }
    }

    fn submit(&mut self, set: &mut WriteSet) {
        self.newest_task += 1;
        let number = self.newest_task;
        let request_id = self.random.random::<bool>().then(|| format!("request {number}"));
        let request_id: Option<Arc<str>> = request_id.map(Arc::from);
        if let Some(id) = &request_id {
            let row = RequestRow { task: number, fingerprint: [self.random.random(); 16] };
            set.requests.insert(Arc::clone(id), row);
        }
        let live = self.live_row(number);
        let task = TaskRow {
            number,
            seq: Seq(number * 2),
            created: Timestamp(1),
            queue: Arc::clone(&live.queue),
            kind: Arc::clone(&live.kind),
            request_id,
            labels: live.labels.clone(),
            record: vec![self.random.random(); self.random.random_range(0..300)],
        };
        let LiveRow { priority, due, interval, bytes, max_attempts, .. } = live;
        set.tasks.push(NewTaskRow { task, priority, due, interval, bytes, max_attempts });
        // Some change within the group.
        if self.random.random_range(0..4) == 0 {
            set.live.insert(number, Some(live));
        }
        self.live.push(number);
    }

    fn wait_again(&mut self, set: &mut WriteSet) {
        if self.live.is_empty() {
            return;
        }
        let number = self.live[self.random.random_range(0..self.live.len())];
        let row = self.live_row(number);
        set.live.insert(number, Some(row));
        let attempt = self.random.random_range(1..3 * MAX_ATTEMPTS_KEPT);
        let output = vec![0; self.random.random_range(0..50)];
        set.outputs.push(OutputRow { task: number, attempt, data: output });
        set.attempts.push(AttemptRow {
            task: number,
            attempt,
            worker: WorkerId(1),
            started: Timestamp(1),
            ended: Timestamp(2),
            failure: self.failure(),
        });
    }

    fn end_some(&mut self, set: &mut WriteSet) {
        for failed in [false, true] {
            let mut tasks = Vec::new();
            self.newest_ended += 1;
            while !self.live.is_empty() && self.random.random_range(0..3) == 0 {
                let number = self.live.swap_remove(self.random.random_range(0..self.live.len()));
                let state = if failed { State::Failed } else { State::Succeeded };
                set.live.insert(number, None);
                let row = FinishRow {
                    number,
                    life: self.life(state),
                    finished: Timestamp(9),
                    due: Timestamp(8),
                    bytes: self.random.random_range(0..1_000),
                    ended: self.newest_ended,
                    execution: Some((WorkerId(3), Timestamp(4))),
                    result: self.random.random::<bool>().then(|| Data::Json("{}".into())),
                    failure: self.failure(),
                };
                set.finished.insert(number, Some(row));
                self.finished.push((number, None));
                tasks.push(number);
            }
            if !tasks.is_empty() {
                let uptime = Uptime(self.uptime);
                let row = EndedRow { id: self.newest_ended, failed, uptime, tasks };
                set.ended.push(row.clone());
                self.ended.push(row);
            }
        }
        let (first, last) = (self.newest_event + 1, self.newest_event + 3);
        self.newest_event = last;
        let data = vec![self.random.random(); 20].into();
        let batch = EventBatch::new(Seq(first), Seq(last), data, [].into());
        set.events.push((batch, Uptime(self.uptime)));
        self.batches.push(Seq(first));
    }

    /// What this set itself has ended stays.
    fn trim(&mut self, set: &mut WriteSet) {
        if self.random.random_range(0..4) == 0 && self.batches.len() > 1 {
            set.trimmed_events.push(self.batches.remove(0));
        }
        let is_old = |row: &EndedRow| set.ended.iter().all(|new| new.id != row.id);
        if self.random.random_range(0..3) == 0
            && let Some(at) = self.ended.iter().position(is_old)
        {
            let gone = self.ended[at].tasks.remove(0);
            // A task may have been redriven by then, and ended again: its row is of no account.
            let has_ended_now = set.finished.contains_key(&gone);
            if !has_ended_now && self.finished.iter().any(|(number, _)| *number == gone) {
                self.finished.retain(|(number, _)| *number != gone);
                set.trimmed.insert(gone, Some(format!("request {gone}")));
            }
            set.shortened.insert(self.ended[at].id, self.ended[at].clone());
            if self.ended[at].tasks.is_empty() {
                self.ended.remove(at);
            }
        } else if !self.finished.is_empty() && self.random.random_range(0..4) == 0 {
            let at = self.random.random_range(0..self.finished.len());
            if set.finished.contains_key(&self.finished[at].0) {
                return;
            }
            let (number, _) = self.finished.swap_remove(at);
            let row = self.live_row(number);
            set.finished.insert(number, None);
            set.live.insert(number, Some(row));
            self.live.push(number);
        }
    }
}

/// All that a journal answers, as text.
fn answers(journal: &mut dyn Journal, newest_task: u64) -> Vec<String> {
    let mut answers = Vec::new();
    let Found { mut slots, queues, mut tallies, mut starts, identity: _, .. } =
        journal.find().expect("it is read");
    let found = journal.find().expect("it is read");
    slots.sort_by_key(|slot| slot.worker);
    tallies.sort_by_key(|tally| (tally.queue.clone(), format!("{:?}", tally.state)));
    starts.sort_by_key(|start| start.first);
    answers.push(format!("{slots:?} {queues:?} {tallies:?} {starts:?}"));
    answers.push(format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        found.newest_task,
        found.newest_event,
        found.oldest_event,
        found.newest_batch,
        found.newest_ended,
        found.uptime
    ));
    for (beyond, most) in [(0, 10_000), (0, 1), (newest_task / 2, 10_000), (newest_task / 2, 7)] {
        answers.push(format!("{:?}", journal.live_tasks(beyond, most)));
    }
    for number in 0..=newest_task + 1 {
        answers.push(format!("{:?}", journal.has_tasks(number..number + 1)));
        answers.push(format!("{:?}", journal.request(&format!("request {number}"))));
        answers.push(format!("{:?}", journal.record(number)));
        answers.push(format!("{:?}", journal.task(number).ok()));
        answers.push(format!("{:?}", journal.submitted_seq(number).ok()));
        answers.push(format!("{:?}", journal.live(number).ok()));
        answers.push(format!("{:?}", journal.finished_state(number)));
        answers.push(format!("{:?}", journal.finished_task(number)));
        answers.push(format!("{:?}", journal.outputs(number)));
    }
    for failed in [false, true] {
        let mut beyond = 0;
        while let Some(Ok(row)) = journal.oldest_ended(failed, beyond).expect("it is read") {
            beyond = row.id;
            answers.push(format!("{row:?}"));
        }
    }
    let mut beyond = Seq(0);
    while let Some((first, uptime)) = journal.oldest_events(beyond).expect("it is read") {
        beyond = first;
        answers.push(format!("{first:?} {uptime:?}"));
    }
    answers
}

/// All that an engine may ask while a set is pending, as text: it must be the same when it is
/// committed.
fn engine_answers(records: &mut Records<'_>, newest_task: u64) -> Vec<String> {
    let mut answers = Vec::new();
    for number in 0..=newest_task {
        answers.push(format!("{:?}", records.request(&format!("request {number}"))));
        answers.push(format!("{:?}", records.record(number)));
        answers.push(format!("{:?}", records.finished_state(number)));
        answers.push(format!("{:?}", records.finished_task(number)));
        if records.finished_state(number).is_ok_and(|state| state.is_none()) {
            answers.push(format!("{:?}", records.live(number).ok()));
        }
        answers.push(format!("{:?}", records.bytes_of_outputs(number)));
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn all_journals_answer_alike_whatever_is_committed(seed in any::<u64>()) {
        let connection = connection();
        let mut in_sqlite = SqliteJournal::new(&connection, None).expect("it opens");
        let disk = MemoryDisk::new([1; 16]);
        let mut in_memory = disk.journal();
        let random = StdRng::seed_from_u64(seed);
        let mut author = Author {
            random, newest_task: 0, newest_event: 0, newest_ended: 0, uptime: 0,
            live: Vec::new(), finished: Vec::new(), ended: Vec::new(), batches: Vec::new(),
        };
        for step in 0..12 {
            let set = WriteSet { number: step + 1, ..author.any() };
            let mut pending = Records::new(disk.reader());
            pending.changes = set.clone();
            let pending = engine_answers(&mut pending, author.newest_task);
            for journal in [&mut in_sqlite as &mut dyn Journal, &mut *in_memory] {
                journal.commit(&set, Timestamp(1)).expect("it is written");
            }
            let after = engine_answers(&mut Records::new(disk.reader()), author.newest_task);
            for (pending, after) in pending.iter().zip(&after) {
                prop_assert_eq!(pending, after, "in step {}", step);
            }
            let expected = answers(&mut *in_memory, author.newest_task);
            let found = answers(&mut in_sqlite, author.newest_task);
            for (found, expected) in found.iter().zip(&expected) {
                prop_assert_eq!(found, expected, "after step {}", step);
            }
            prop_assert_eq!(found.len(), expected.len());
        }
    }
}

#[test]
fn a_set_whose_outcome_is_unknown_is_there_once_it_is_committed_again() {
    for is_there in [false, true] {
        let disk = MemoryDisk::new([7; 16]);
        let mut records = Records::new(disk.journal());
        disk.fail_next(memory::Outcome::Unknown { is_there });
        records.remember_uptime(Uptime(1));
        let batch = EventBatch::new(Seq(1), Seq(1), bytes::Bytes::new(), [].into());
        records.insert_events(batch, Uptime(1));
        let unknown = records.commit(Timestamp(0)).expect_err("nobody answers");
        assert_eq!(unknown.fault(), Fault::Unknown);
        assert!(unknown.fault().may_pass());
        assert_eq!(disk.content().events.len(), usize::from(is_there));
        // Written a second time, its event would be there already, which it asserts.
        records.commit(Timestamp(0)).expect("it is there now");
        assert_eq!(disk.content().events.len(), 1);
    }
}

#[test]
fn an_engine_is_fenced_off_by_the_next_one() {
    let disk = MemoryDisk::new([7; 16]);
    let mut before = Records::new(disk.journal());
    let mut after = Records::new(disk.journal());
    for records in [&mut before, &mut after] {
        records.remember_uptime(Uptime(1));
    }
    let refused = before.commit(Timestamp(0)).expect_err("its epoch has ended");
    assert_eq!((refused.fault(), refused.fault().may_pass()), (Fault::Fenced, false));
    after.commit(Timestamp(0)).expect("it has the store");
}
