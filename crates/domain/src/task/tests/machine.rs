//! The state machine: its whole table, its counters, and its invariants.

use super::*;
use Refusal::{Ended, NotEnded, NotReady, StaleAttempt};
use State::{Cancelled, Failed, Queued, Running, Scheduled, Succeeded};

/// The execution that the tasks of the table are at, or were at last.
const NOW: u32 = 3;
const STALE: u32 = 2;
const BUDGET: Budget = Budget { max_attempts: 3, max_crashes: 3 };

type Cell = Result<(State, Transition), Refusal>;

fn standing(state: State) -> Lifecycle {
    Lifecycle { state, attempt: NOW, failures: 1, crashes: 1, cancel_requested: false }
}

/// What a report on an execution is answered where there is none: the task
/// waits, waits, (runs), or has ended.
fn report(running: Cell) -> [Cell; 6] {
    [
        Err(StaleAttempt),
        Err(StaleAttempt),
        running,
        Err(Ended(Succeeded)),
        Err(Ended(Failed)),
        Err(Ended(Cancelled)),
    ]
}

/// Every command, and what it makes of a task in each state of [`State::ALL`].
#[rustfmt::skip]
fn table() -> Vec<(Command, [Cell; 6])> {
    use Command::{BecomeDue, Cancel, Fail, Interrupt, Redrive, Start, Stopped, Succeed};
    let (crash, drain) = (Interruption::Crash, Interruption::Drain);
    vec![
        (BecomeDue, [
            Ok((Queued, Transition::Silent)), Err(NotReady(Queued)), Err(NotReady(Running)),
            Err(NotReady(Succeeded)), Err(NotReady(Failed)), Err(NotReady(Cancelled)),
        ]),
        (Start, [
            Err(NotReady(Scheduled)), Ok((Running, Transition::Started)), Err(NotReady(Running)),
            Err(NotReady(Succeeded)), Err(NotReady(Failed)), Err(NotReady(Cancelled)),
        ]),
        (Cancel, [
            Ok((Cancelled, Transition::Cancelled)), Ok((Cancelled, Transition::Cancelled)),
            Ok((Running, Transition::Silent)),
            Err(Ended(Succeeded)), Err(Ended(Failed)), Ok((Cancelled, Transition::Silent)),
        ]),
        (Redrive, [
            Err(NotEnded(Scheduled)), Err(NotEnded(Queued)), Err(NotEnded(Running)),
            Err(Ended(Succeeded)),
            Ok((Queued, Transition::Redriven)), Ok((Queued, Transition::Redriven)),
        ]),
        (Succeed { attempt: NOW }, report(Ok((Succeeded, Transition::Succeeded)))),
        (Stopped { attempt: NOW }, report(Ok((Cancelled, Transition::Cancelled)))),
        (Fail { attempt: NOW, permanent: false }, report(
            Ok((Scheduled, Transition::RetryScheduled)),
        )),
        (Fail { attempt: NOW, permanent: true }, report(Ok((Failed, Transition::Failed)))),
        (Interrupt { attempt: NOW, by: crash }, report(Ok((Queued, Transition::Interrupted)))),
        (Interrupt { attempt: NOW, by: drain }, report(Ok((Queued, Transition::Interrupted)))),
        (Succeed { attempt: STALE }, report(Err(StaleAttempt))),
        (Stopped { attempt: STALE }, report(Err(StaleAttempt))),
        (Fail { attempt: STALE, permanent: false }, report(Err(StaleAttempt))),
        (Fail { attempt: STALE, permanent: true }, report(Err(StaleAttempt))),
        (Interrupt { attempt: STALE, by: crash }, report(Err(StaleAttempt))),
        (Interrupt { attempt: STALE, by: drain }, report(Err(StaleAttempt))),
        (Succeed { attempt: NOW + 1 }, report(Err(StaleAttempt))),
    ]
}

/// The counters after a command that applied. Exhaustive, so that a new command
/// does not go untested.
fn counters(before: Lifecycle, command: Command) -> Lifecycle {
    match command {
        Command::BecomeDue | Command::Succeed { .. } | Command::Stopped { .. } => before,
        Command::Start => Lifecycle { attempt: before.attempt + 1, ..before },
        Command::Fail { .. } => Lifecycle { failures: before.failures + 1, crashes: 0, ..before },
        Command::Interrupt { by: Interruption::Crash, .. } => {
            Lifecycle { crashes: before.crashes + 1, ..before }
        }
        Command::Interrupt { by: Interruption::Drain, .. } => Lifecycle { crashes: 0, ..before },
        Command::Cancel => {
            let cancel_requested = before.cancel_requested || before.state == Running;
            Lifecycle { cancel_requested, ..before }
        }
        Command::Redrive => {
            Lifecycle { failures: 0, crashes: 0, cancel_requested: false, ..before }
        }
    }
}

#[test]
fn every_command_in_every_state() {
    for (command, row) in table() {
        for (state, expected) in State::ALL.into_iter().zip(row) {
            let before = standing(state);
            let decided = decide(before, BUDGET, command);
            let expected = expected.map(|(state, transition)| {
                (Lifecycle { state, ..counters(before, command) }, transition)
            });
            assert_eq!(decided, expected, "{command:?} in {state:?}");
        }
    }
}

#[test]
fn the_last_failure_of_the_budget_ends_the_task() {
    let fail = Command::Fail { attempt: NOW, permanent: false };
    for (failures, transition) in
        [(0, Transition::RetryScheduled), (1, Transition::RetryScheduled), (2, Transition::Failed)]
    {
        let before = Lifecycle { failures, ..standing(Running) };
        assert_eq!(
            decide(before, BUDGET, fail).unwrap().1,
            transition,
            "after {failures} failures"
        );
    }
}

#[test]
fn only_crashes_in_a_row_end_a_task() {
    let interrupt = |by| Command::Interrupt { attempt: NOW, by };
    for (crashes, state) in [(0, Queued), (1, Queued), (2, Failed)] {
        let before = Lifecycle { crashes, failures: 2, ..standing(Running) };
        let (after, _) = decide(before, BUDGET, interrupt(Interruption::Crash)).unwrap();
        assert_eq!((after.state, after.failures), (state, 2), "after {crashes} crashes");
        let (after, transition) = decide(before, BUDGET, interrupt(Interruption::Drain)).unwrap();
        assert_eq!((after.state, after.crashes, transition), (Queued, 0, Transition::Interrupted));
    }
}

#[test]
fn a_success_wins_over_a_cancellation_and_nothing_else_does() {
    let before = Lifecycle { cancel_requested: true, ..standing(Running) };
    let ends = |command| {
        decide(before, BUDGET, command).map(|(after, transition)| (after.state, transition))
    };
    assert_eq!(ends(Command::Succeed { attempt: NOW }), Ok((Succeeded, Transition::Succeeded)));
    for command in [
        Command::Stopped { attempt: NOW },
        Command::Fail { attempt: NOW, permanent: false },
        Command::Fail { attempt: NOW, permanent: true },
        Command::Interrupt { attempt: NOW, by: Interruption::Crash },
        Command::Interrupt { attempt: NOW, by: Interruption::Drain },
    ] {
        assert_eq!(ends(command), Ok((Cancelled, Transition::Cancelled)), "{command:?}");
    }
    let (again, transition) = decide(before, BUDGET, Command::Cancel).unwrap();
    assert_eq!((again, transition), (before, Transition::Silent), "repeating it does nothing more");
}

#[test]
fn a_redriven_task_has_all_its_budget_and_no_attempt_number_twice() {
    let before = Lifecycle { failures: 3, crashes: 2, cancel_requested: true, ..standing(Failed) };
    let (after, _) = decide(before, BUDGET, Command::Redrive).unwrap();
    let fresh = Lifecycle { attempt: NOW, ..Lifecycle::submitted(false) };
    assert_eq!(after, fresh);
    assert_eq!(decide(after, BUDGET, Command::Start).unwrap().0.attempt, NOW + 1);
}

#[test]
fn each_broken_rule_is_named() {
    let running = standing(Running);
    let requested = Lifecycle { cancel_requested: true, ..running };
    let to = |state| Lifecycle { state, ..running };
    for (rule, before, command, after) in [
        ("I1", standing(Failed), Command::Cancel, to(Cancelled)),
        ("I1", standing(Succeeded), Command::Start, to(Queued)),
        ("I2", running, Command::Cancel, Lifecycle { attempt: NOW - 1, ..running }),
        ("I2", standing(Queued), Command::Start, Lifecycle { attempt: NOW + 2, ..running }),
        ("I3", standing(Queued), Command::Start, running),
        ("I3", running, Command::Cancel, Lifecycle { attempt: NOW + 1, ..running }),
        ("I4", requested, Command::Cancel, Lifecycle { state: Queued, ..requested }),
        ("I4", requested, Command::Cancel, Lifecycle { state: Scheduled, ..requested }),
    ] {
        let broken = invariants::check(before, command, after).expect_err(rule);
        assert!(broken.starts_with(rule), "{rule}: {broken}");
    }
}

/// A command; reports speak of the present execution or of one before it.
fn any_command() -> impl Strategy<Value = (u8, bool, bool)> {
    (0..8u8, any::<bool>(), prop::bool::weighted(0.9))
}

fn command(now: Lifecycle, (which, flag, current): (u8, bool, bool)) -> Command {
    let attempt = if current { now.attempt } else { now.attempt.wrapping_sub(1) };
    let by = if flag { Interruption::Crash } else { Interruption::Drain };
    match which {
        0 => Command::BecomeDue,
        1 => Command::Start,
        2 => Command::Succeed { attempt },
        3 => Command::Fail { attempt, permanent: flag },
        4 => Command::Interrupt { attempt, by },
        5 => Command::Stopped { attempt },
        6 => Command::Cancel,
        _ => Command::Redrive,
    }
}

proptest! {
    #[test]
    fn whatever_happens_the_invariants_hold(
        later: bool,
        (max_attempts, max_crashes) in (1..4u32, 1..4u32),
        commands in prop::collection::vec(any_command(), 0..200),
    ) {
        let budget = Budget { max_attempts, max_crashes };
        let mut now = Lifecycle::submitted(later);
        let mut started = 0;
        for given in commands {
            let command = command(now, given);
            let Ok((after, transition)) = decide(now, budget, command) else { continue };
            prop_assert_eq!(invariants::check(now, command, after), Ok(()));
            // One transition, one thing told; becoming due is told by nobody.
            let moved = after.state != now.state && command != Command::BecomeDue;
            prop_assert_eq!(transition != Transition::Silent, moved, "{:?} {:?}", now, command);
            started += u32::from(transition == Transition::Started);
            prop_assert_eq!(after.attempt, started);
            prop_assert!(after.failures <= max_attempts && after.crashes <= max_crashes);
            if !after.state.is_terminal() {
                prop_assert!(after.failures < max_attempts && after.crashes < max_crashes);
            }
            now = after;
        }
    }
}
