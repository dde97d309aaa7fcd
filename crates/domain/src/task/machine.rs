//! The state machine of a task: where it stands, what is asked of it, and what comes of that.
//!
//! Owns it as one pure function, [`decide`]: everything that changes a task's state calls it, at run
//! time and at recovery alike. [`invariants`] is what it never breaks. Must not know clocks, or
//! anything else of a task.

/// Where a task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits for its due time.
    Scheduled,
    /// Due, and waits for a worker.
    Queued,
    /// A worker executes it.
    Running,
    /// Ended with a result.
    Succeeded,
    /// Ended in failure: a dead letter.
    Failed,
    /// Ended by cancellation.
    Cancelled,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Scheduled,
        Self::Queued,
        Self::Running,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// Whether the task has ended.
    #[must_use]
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// The part of a task that transitions read and change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    /// Where it stands.
    pub state: State,
    /// Executions begun; the number of the latest one.
    pub attempt: u32,
    /// Attempts that failed by themselves, counted against the retry budget.
    pub failures: u32,
    /// Crashes of the process, in a row, at which it was running.
    pub crashes: u32,
    /// Someone asked to cancel it while it ran.
    pub cancel_requested: bool,
}

impl Lifecycle {
    /// A task that was just submitted.
    #[must_use]
    pub fn submitted(due_later: bool) -> Self {
        let state = if due_later { State::Scheduled } else { State::Queued };
        Self { state, attempt: 0, failures: 0, crashes: 0, cancel_requested: false }
    }
}

/// What bounds a task's attempts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Attempts that may fail before the task does, at least 1.
    pub max_attempts: u32,
    /// Crashes in a row before the task fails, at least 1.
    pub max_crashes: u32,
}

/// What is asked of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Its due time has come.
    BecomeDue,
    /// A worker takes it.
    Start,
    /// Its handler returned a result.
    Succeed {
        /// Of which execution.
        attempt: u32,
    },
    /// Its handler failed, panicked, or ran out of time.
    Fail {
        /// Of which execution.
        attempt: u32,
        /// Trying again is of no use.
        permanent: bool,
    },
    /// The process ended its execution.
    Interrupt {
        /// Of which execution.
        attempt: u32,
        /// How the process ended.
        by: Interruption,
    },
    /// Its handler was stopped after a cancellation.
    Stopped {
        /// Of which execution.
        attempt: u32,
    },
    /// Someone asks for its end.
    Cancel,
    /// Someone asks for another life.
    Redrive,
}

/// How a process ended while it ran a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruption {
    /// Without a word: seen at the next start.
    Crash,
    /// Orderly.
    Drain,
}

/// What a command made of a task, as watchers see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// Nothing that a watcher needs to hear.
    Silent,
    /// An attempt began.
    Started,
    /// The task ended with a result.
    Succeeded,
    /// An attempt failed; another follows.
    RetryScheduled,
    /// The task ended in failure.
    Failed,
    /// An attempt was interrupted; another follows.
    Interrupted,
    /// The task ended by cancellation.
    Cancelled,
    /// The task lives again.
    Redriven,
}

/// Why a command does not apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The task has ended, in this state.
    Ended(State),
    /// The task has not ended.
    NotEnded(State),
    /// The task is not waiting to be started.
    NotReady(State),
    /// The command speaks of an execution that is not the present one.
    StaleAttempt,
}

/// Decides what `command` makes of a task: the whole state machine.
///
/// # Errors
/// The [`Refusal`] if the command does not apply in this state; the task then
/// stays as it is.
pub fn decide(
    now: Lifecycle,
    budget: Budget,
    command: Command,
) -> Result<(Lifecycle, Transition), Refusal> {
    use State::{Cancelled, Failed, Queued, Running, Scheduled, Succeeded};
    let ended = |state, transition| Ok((Lifecycle { state, ..now }, transition));
    let current = |attempt| match now.state {
        Running if attempt == now.attempt => Ok(()),
        state if state.is_terminal() => Err(Refusal::Ended(state)),
        _ => Err(Refusal::StaleAttempt),
    };
    match command {
        Command::BecomeDue => match now.state {
            Scheduled => Ok((Lifecycle { state: Queued, ..now }, Transition::Silent)),
            state => Err(Refusal::NotReady(state)),
        },
        Command::Start => match now.state {
            Queued => {
                let attempt = now.attempt + 1;
                Ok((Lifecycle { state: Running, attempt, ..now }, Transition::Started))
            }
            state => Err(Refusal::NotReady(state)),
        },
        Command::Succeed { attempt } => {
            current(attempt)?;
            ended(Succeeded, Transition::Succeeded)
        }
        Command::Stopped { attempt } => {
            current(attempt)?;
            ended(Cancelled, Transition::Cancelled)
        }
        Command::Fail { attempt, permanent } => {
            current(attempt)?;
            let failures = now.failures + 1;
            let failed = Lifecycle { failures, crashes: 0, ..now };
            if now.cancel_requested {
                Ok((Lifecycle { state: Cancelled, ..failed }, Transition::Cancelled))
            } else if permanent || failures >= budget.max_attempts {
                Ok((Lifecycle { state: Failed, ..failed }, Transition::Failed))
            } else {
                Ok((Lifecycle { state: Scheduled, ..failed }, Transition::RetryScheduled))
            }
        }
        Command::Interrupt { attempt, by } => {
            current(attempt)?;
            let crashes = if by == Interruption::Crash { now.crashes + 1 } else { 0 };
            let interrupted = Lifecycle { crashes, ..now };
            if now.cancel_requested {
                Ok((Lifecycle { state: Cancelled, ..interrupted }, Transition::Cancelled))
            } else if crashes >= budget.max_crashes {
                Ok((Lifecycle { state: Failed, ..interrupted }, Transition::Failed))
            } else {
                Ok((Lifecycle { state: Queued, ..interrupted }, Transition::Interrupted))
            }
        }
        Command::Cancel => match now.state {
            Scheduled | Queued => ended(Cancelled, Transition::Cancelled),
            Running => Ok((Lifecycle { cancel_requested: true, ..now }, Transition::Silent)),
            Cancelled => Ok((now, Transition::Silent)),
            state @ (Succeeded | Failed) => Err(Refusal::Ended(state)),
        },
        Command::Redrive => match now.state {
            Failed | Cancelled => {
                let fresh = Lifecycle::submitted(false);
                Ok((Lifecycle { attempt: now.attempt, ..fresh }, Transition::Redriven))
            }
            state @ Succeeded => Err(Refusal::Ended(state)),
            state => Err(Refusal::NotEnded(state)),
        },
    }
}

/// The rules that every transition keeps, each with its name; the tests and
/// debug builds check them.
pub mod invariants {
    use super::{Command, Lifecycle, State};

    /// Checks one transition.
    ///
    /// # Errors
    /// The name and meaning of the rule that it breaks.
    pub fn check(
        before: Lifecycle,
        command: Command,
        after: Lifecycle,
    ) -> Result<(), &'static str> {
        let redrive = matches!(command, Command::Redrive);
        if before.state.is_terminal() && after.state != before.state && !redrive {
            return Err("I1: terminal states are final until a redrive");
        }
        if after.attempt < before.attempt || after.attempt > before.attempt + 1 {
            return Err("I2: attempt numbers go up by one and are never used twice");
        }
        let begins = before.state != State::Running && after.state == State::Running;
        if begins != (after.attempt == before.attempt + 1) {
            return Err("I3: an attempt number is given exactly when an execution begins");
        }
        if before.cancel_requested
            && !after.state.is_terminal()
            && after.state != State::Running
            && !redrive
        {
            return Err("I4: a task whose cancellation was accepted never waits again");
        }
        Ok(())
    }
}
