//! What a store should do, as plainly as it can be said: no disk, no threads.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use taskyard::{
    proto::v1::EventType,
    queue::Counts,
    store::{self, Outcome},
    task::{Data, State, TaskId, Timestamp},
};

pub const QUEUES: [&str; 2] = ["a", "b"];

#[derive(Clone, Debug)]
pub struct Task {
    pub id: TaskId,
    pub queue: &'static str,
    pub priority: i32,
    pub payload: Data,
    pub max_attempts: u32,
    pub request: Option<u8>,
    pub due: Timestamp,
    pub state: State,
    pub attempt: u32,
    pub failures: u32,
    pub crashes: u32,
    pub cancel_requested: bool,
    pub worker: Option<u32>,
    pub reason: Option<String>,
    pub result: Option<Data>,
    /// Its executions: who ran each, and why it failed.
    pub attempts: Vec<(u32, Option<String>)>,
}

impl Task {
    /// Compares the executions that the store tells of with those that there were.
    pub fn check_attempts(&self, stored: &store::Task) {
        let told = stored.attempts.iter().map(|attempt| {
            let reason = attempt.failure.as_ref().map(|failure| failure.reason.clone());
            let running = self.state == State::Running && attempt.attempt == self.attempt;
            assert_eq!(attempt.ended.is_some(), !running, "{attempt:?}");
            assert!(attempt.ended.is_none_or(|ended| ended >= attempt.started));
            (attempt.worker.0, reason)
        });
        assert_eq!(told.collect::<Vec<_>>(), self.attempts, "{:?}", self.id);
        let numbers = stored.attempts.iter().map(|attempt| attempt.attempt);
        assert!(numbers.eq(1..=self.attempt), "{:?}", stored.attempts);
    }
}

/// An event, as far as it is decided by what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelEvent {
    pub what: EventType,
    pub task: Option<TaskId>,
    pub attempt: u32,
    pub worker: Option<u32>,
    pub reason: Option<String>,
}

#[derive(Default)]
pub struct Model {
    /// By number, from 1.
    pub tasks: Vec<Task>,
    pub events: Vec<ModelEvent>,
    /// Workers that wait for a task, in the order in which they came.
    pub waiting: VecDeque<u32>,
    /// Workers that run a task, and which.
    pub busy: BTreeMap<u32, usize>,
    /// What was asked for under each key, and the task that it made.
    pub requests: BTreeMap<u8, (u8, usize)>,
    pub max_crashes: u32,
    /// Queues of which nothing starts.
    pub paused: BTreeSet<&'static str>,
}

impl Model {
    pub fn live(&self) -> impl Iterator<Item = usize> {
        (0..self.tasks.len()).filter(|at| !self.tasks[*at].state.is_terminal())
    }

    /// Permits that are taken in a queue.
    pub fn waits_in(&self, queue: &str) -> usize {
        let waits = |task: &&Task| matches!(task.state, State::Queued | State::Scheduled);
        self.tasks.iter().filter(waits).filter(|task| task.queue == queue).count()
    }

    /// The task that starts next in a queue.
    fn head(&self, queue: &str) -> Option<usize> {
        let queued =
            |at: &usize| self.tasks[*at].state == State::Queued && self.tasks[*at].queue == queue;
        let rank = |at: &usize| (-self.tasks[*at].priority, self.tasks[*at].due, *at);
        (0..self.tasks.len()).filter(queued).min_by_key(rank)
    }

    /// The worker that must be given a task now, if one waits and there is one.
    pub fn next_start(&self) -> Option<u32> {
        let open = |queue: &&&str| !self.paused.contains(**queue);
        QUEUES.iter().filter(open).find_map(|queue| self.head(queue))?;
        self.waiting.front().copied()
    }

    fn tell(&mut self, what: EventType, at: usize) {
        let task = &self.tasks[at];
        let ran = !matches!(what, EventType::Submitted);
        let failed = !matches!(what, EventType::Started | EventType::Redriven);
        let running = what == EventType::Started || self.busy.values().any(|busy| *busy == at);
        self.events.push(ModelEvent {
            what,
            task: Some(task.id),
            attempt: task.attempt,
            worker: task.worker.filter(|_| ran && running),
            reason: task.reason.clone().filter(|_| failed),
        });
    }

    pub fn submit(&mut self, task: Task, content: u8) {
        let at = self.tasks.len();
        if let Some(request) = task.request {
            self.requests.insert(request, (content, at));
        }
        self.tasks.push(task);
        self.tell(EventType::Submitted, at);
    }

    /// The store gave this task to the worker in front. Returns its permit.
    pub fn start(&mut self, id: TaskId) -> usize {
        let worker = self.waiting.pop_front().expect("a worker waits");
        let at = usize::try_from(id.number()).unwrap() - 1;
        let queue = self.tasks[at].queue;
        assert_eq!(self.head(queue), Some(at), "another task of queue {queue} comes first");
        let task = &mut self.tasks[at];
        task.state = State::Running;
        task.attempt += 1;
        task.worker = Some(worker);
        task.attempts.push((worker, None));
        self.busy.insert(worker, at);
        self.tell(EventType::Started, at);
        at
    }

    fn go(&mut self, at: usize, state: State, what: EventType, reason: Option<&str>) {
        let reason: Option<String> = reason.map(Into::into);
        if self.tasks[at].state == State::Running
            && let Some(attempt) = self.tasks[at].attempts.last_mut()
        {
            attempt.1.clone_from(&reason);
        }
        self.tasks[at].state = state;
        self.tasks[at].reason = reason;
        self.tell(what, at);
    }

    /// A worker's execution ended. Returns its task's permit.
    pub fn report(&mut self, worker: u32, outcome: &Outcome) -> usize {
        let at = self.busy[&worker];
        let task = &mut self.tasks[at];
        match outcome {
            Outcome::Succeeded(result) => {
                task.result = Some(result.clone());
                self.go(at, State::Succeeded, EventType::Succeeded, None);
            }
            Outcome::Stopped => {
                self.go(at, State::Cancelled, EventType::Cancelled, Some("CANCELLED"));
            }
            Outcome::Interrupted => {
                task.crashes = 0;
                self.interrupt(at, "DRAINED");
            }
            Outcome::Failed { failure, permanent, retry_after } => {
                task.crashes = 0;
                task.failures += 1;
                let reason = Some(&*failure.reason);
                if task.cancel_requested {
                    self.go(at, State::Cancelled, EventType::Cancelled, reason);
                } else if *permanent || task.failures >= task.max_attempts {
                    self.go(at, State::Failed, EventType::Failed, reason);
                } else {
                    let later = !retry_after.is_zero();
                    let state = if later { State::Scheduled } else { State::Queued };
                    self.go(at, state, EventType::RetryScheduled, reason);
                }
            }
        }
        self.busy.remove(&worker);
        at
    }

    fn interrupt(&mut self, at: usize, reason: &str) {
        let (state, what) = if self.tasks[at].cancel_requested {
            (State::Cancelled, EventType::Cancelled)
        } else if self.tasks[at].crashes >= self.max_crashes {
            (State::Failed, EventType::Failed)
        } else {
            (State::Queued, EventType::Interrupted)
        };
        self.go(at, state, what, Some(reason));
    }

    /// Someone asks for the end of a task; the state in which it has ended, if
    /// it cannot be cancelled any more.
    pub fn cancel(&mut self, at: usize) -> Result<(), State> {
        match self.tasks[at].state {
            State::Scheduled | State::Queued => {
                self.go(at, State::Cancelled, EventType::Cancelled, Some("CANCELLED"));
            }
            State::Running => self.tasks[at].cancel_requested = true,
            State::Cancelled => {}
            ended @ (State::Succeeded | State::Failed) => return Err(ended),
        }
        Ok(())
    }

    /// Someone lets an ended task live again; the state in which it stands, if it
    /// cannot.
    pub fn redrive(&mut self, at: usize) -> Result<(), State> {
        let task = &mut self.tasks[at];
        if !matches!(task.state, State::Failed | State::Cancelled) {
            return Err(task.state);
        }
        (task.failures, task.crashes, task.cancel_requested) = (0, 0, false);
        task.state = State::Queued;
        self.tell(EventType::Redriven, at);
        Ok(())
    }

    /// Someone pauses a queue, or resumes it.
    pub fn pause(&mut self, queue: &'static str, paused: bool) {
        let changed = if paused { self.paused.insert(queue) } else { self.paused.remove(queue) };
        if changed {
            let what = if paused { EventType::QueuePaused } else { EventType::QueueResumed };
            let (task, worker, reason) = (None, None, None);
            self.events.push(ModelEvent { what, task, attempt: 0, worker, reason });
        }
    }

    /// How many tasks of a queue stand where.
    pub fn counts(&self, queue: &str) -> Counts {
        let mut counts = Counts::default();
        for task in self.tasks.iter().filter(|task| task.queue == queue) {
            *match task.state {
                State::Scheduled => &mut counts.scheduled,
                State::Queued => &mut counts.queued,
                State::Running => &mut counts.running,
                State::Succeeded => &mut counts.succeeded,
                State::Failed => &mut counts.failed,
                State::Cancelled => &mut counts.cancelled,
            } += 1;
        }
        counts
    }

    pub fn drain(&mut self) {
        let (task, worker, reason) = (None, None, None);
        self.events.push(ModelEvent {
            what: EventType::Draining,
            task,
            attempt: 0,
            worker,
            reason,
        });
        self.waiting.clear();
    }

    /// The next process finds what was running, in the order of the workers.
    pub fn crash(&mut self) {
        self.waiting.clear();
        for at in self.busy.clone().into_values() {
            self.tasks[at].crashes += 1;
            self.interrupt(at, "CRASHED");
        }
        self.busy.clear();
    }
}
