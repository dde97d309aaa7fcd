use std::time::Instant;

use super::{drain_rate::DrainRate, *};

fn gate(tasks: u64, bytes: u64) -> Arc<Admission> {
    let room_timeout = Duration::from_mins(1);
    let defaults = Settings { max_tasks: tasks, max_bytes: bytes, ..Settings::default() };
    let queue_config = QueueConfig { defaults, ..QueueConfig::default() };
    Arc::new(Admission::new(Limits { queue_config, queues: 2, room_timeout }))
}

async fn take(gate: &Admission, bytes: u64) -> Permit {
    gate.admit("q", bytes, WhenFull::Reject, WaitLimit::Unlimited).await.expect("there is room")
}

/// Joins the line, and returns once it stands there.
async fn stand_in_line(
    gate: &Arc<Admission>,
    bytes: u64,
    wait_limit: WaitLimit,
) -> tokio::task::JoinHandle<Result<Permit, Refused>> {
    let before = in_line(gate);
    let caller = Arc::clone(gate);
    let pending =
        tokio::spawn(async move { caller.admit("q", bytes, WhenFull::Wait, wait_limit).await });
    while in_line(gate) == before && !pending.is_finished() {
        tokio::task::yield_now().await;
    }
    pending
}

fn in_line(gate: &Admission) -> usize {
    lock(&gate.gates).get("q").map_or(0, |gate| lock(&gate.state).line.len())
}

#[tokio::test]
async fn a_full_queue_rejects_and_a_freed_place_is_given_again() {
    let gate = gate(1, 100);
    let first = take(&gate, 10).await;
    let refused = gate.admit("q", 10, WhenFull::Reject, WaitLimit::Unlimited).await.unwrap_err();
    assert!(matches!(refused, Refused::Full { limit: Limit::Tasks(1), .. }), "{refused:?}");
    drop(first);
    take(&gate, 10).await;
}

#[tokio::test]
async fn bytes_are_limited_too() {
    let gate = gate(10, 100);
    let _first = take(&gate, 60).await;
    let refused = gate.admit("q", 50, WhenFull::Reject, WaitLimit::Unlimited).await.unwrap_err();
    assert!(matches!(refused, Refused::Full { limit: Limit::Bytes(100), .. }), "{refused:?}");
    let never = gate.admit("q", 101, WhenFull::Wait, gate.wait_limit(None)).await.unwrap_err();
    assert_eq!(never, Refused::LargerThanQueue { bytes: 101, limit: 100 });
}

#[tokio::test]
async fn callers_are_served_in_the_order_of_arrival() {
    let gate = gate(1, 1000);
    let mut held = take(&gate, 1).await;
    let mut line = Vec::new();
    for bytes in 1..=20 {
        line.push(stand_in_line(&gate, bytes, WaitLimit::Unlimited).await);
    }
    for (at, pending) in line.into_iter().enumerate() {
        drop(held);
        held = pending.await.unwrap().expect("granted");
        assert_eq!(held.bytes, at as u64 + 1, "someone was overtaken");
        assert_eq!(in_line(&gate), 19 - at, "one permit serves one caller");
    }
}

#[tokio::test]
async fn the_next_in_line_is_let_in_when_the_one_before_is_on_its_way_to_the_store() {
    let gate = gate(2, 1000);
    let held = [take(&gate, 1).await, take(&gate, 1).await];
    let first = stand_in_line(&gate, 1, WaitLimit::Unlimited).await;
    let second = stand_in_line(&gate, 2, WaitLimit::Unlimited).await;
    drop(held);
    let mut first = first.await.unwrap().expect("granted");
    assert_eq!(in_line(&gate), 1, "whichever thread wakes first, it would be the first task");
    // Nor does anybody overtake it who was never in line.
    let refused = gate.try_admit("q", 3).expect_err("somebody is on the way");
    assert!(matches!(refused, Refused::Full { .. }), "{refused:?}");

    drop(first.take_handoff().expect("it stood in line"));
    let second = second.await.unwrap().expect("granted");
    assert_eq!((first.bytes, second.bytes), (1, 2));
    // One that goes away before it gets there keeps nobody out.
    drop((first, second));
    let mut newcomer = gate.try_admit("q", 3).expect("there is room");
    assert!(newcomer.take_handoff().is_none(), "nobody waits behind one who did not");
}

#[tokio::test]
async fn who_fits_beside_all_in_line_is_not_told_that_the_queue_is_full() {
    let gate = gate(4, 100);
    let mut held: Vec<_> = Vec::new();
    for _ in 0..4 {
        held.push(take(&gate, 1).await);
    }
    let first = stand_in_line(&gate, 1, WaitLimit::Unlimited).await;
    let _second = stand_in_line(&gate, 40, WaitLimit::Unlimited).await;
    held.truncate(1);
    let first = first.await.unwrap().expect("granted");
    assert_eq!(in_line(&gate), 1, "the second one waits for the first to enter");
    let refused = gate.try_admit("q", 60).expect_err("there would be no room for the second");
    assert!(matches!(refused, Refused::Full { limit: Limit::Bytes(100), .. }), "{refused:?}");
    gate.try_admit_together("q", 1, 50, WhenFull::Wait).expect_err("it would overtake");
    let beside = gate.try_admit("q", 50).expect("there is room for both");
    let refused = gate.try_admit("q", 1).expect_err("there is none");
    assert!(matches!(refused, Refused::Full { limit: Limit::Tasks(4), .. }), "{refused:?}");
    drop((first, beside));
}

#[tokio::test]
async fn who_has_its_turn_takes_what_there_is_room_for() {
    let gate = gate(4, 100);
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(take(&gate, 1).await);
    }
    let first = stand_in_line(&gate, 1, WaitLimit::Unlimited).await;
    let second = stand_in_line(&gate, 1, WaitLimit::Unlimited).await;
    held.truncate(1);
    let mut first = first.await.unwrap().expect("granted");
    let behind = |first: &Permit, queue, bytes| gate.try_admit_behind(first, queue, bytes);
    assert!(behind(&first, "other", 1).is_none(), "it has no turn there");
    assert!(behind(&held[0], "q", 1).is_none(), "nor has one that did not wait");
    assert!(behind(&first, "q", 99).is_none(), "there are no such bytes");
    let more = [behind(&first, "q", 1).expect("room"), behind(&first, "q", 1).expect("room")];
    assert!(behind(&first, "q", 1).is_none(), "four are four");
    drop(first.take_handoff());
    assert_eq!(in_line(&gate), 1, "the second one is next, when there is room");
    drop(more);
    let second = second.await.unwrap().expect("granted");
    assert!(behind(&first, "q", 1).is_none(), "its turn is over");
    let other = behind(&second, "q", 1).expect("room");
    gate.close(Refused::Draining);
    assert!(behind(&second, "q", 1).is_none(), "nobody gets in any more");
    drop((first, other));
}

#[tokio::test]
async fn a_large_task_in_front_is_not_overtaken_and_its_leaving_lets_others_in() {
    let gate = gate(10, 100);
    let _held = take(&gate, 60).await;
    let large = stand_in_line(&gate, 90, WaitLimit::Unlimited).await;
    let small = stand_in_line(&gate, 10, WaitLimit::Unlimited).await;
    assert_eq!(in_line(&gate), 2, "the small one fits but stands behind");
    large.abort();
    assert_eq!(small.await.unwrap().expect("granted").bytes, 10);
    assert_eq!(in_line(&gate), 0);
}

#[tokio::test]
async fn a_caller_that_goes_away_frees_its_place() {
    let gate = gate(1, 100);
    let held = take(&gate, 1).await;
    let gone = stand_in_line(&gate, 1, WaitLimit::Unlimited).await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    assert_eq!(in_line(&gate), 0);
    drop(held);
    take(&gate, 1).await;
}

#[tokio::test(start_paused = true)]
async fn deadlines_and_the_room_timeout_end_the_wait() {
    let gate = gate(1, 100);
    let _held = take(&gate, 1).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
    let late = gate.admit("q", 1, WhenFull::Wait, WaitLimit::Deadline(deadline)).await.unwrap_err();
    assert_eq!(late, Refused::Deadline);
    let began = tokio::time::Instant::now();
    let patient = gate.admit("q", 1, WhenFull::Wait, gate.wait_limit(None)).await.unwrap_err();
    assert!(matches!(patient, Refused::Full { .. }), "{patient:?}");
    assert!(began.elapsed() >= Duration::from_mins(1));
    assert_eq!(in_line(&gate), 0);
}

#[tokio::test]
async fn closing_refuses_everyone_with_one_cause() {
    let gate = gate(1, 100);
    let _held = take(&gate, 1).await;
    let waiting = stand_in_line(&gate, 1, WaitLimit::Unlimited).await;
    gate.close(Refused::Draining);
    assert_eq!(waiting.await.unwrap().unwrap_err(), Refused::Draining);
    let later = gate.admit("q", 1, WhenFull::Wait, gate.wait_limit(None)).await.unwrap_err();
    assert_eq!(later, Refused::Draining);
}

#[tokio::test]
async fn queues_are_limited_and_empty_ones_make_room() {
    let gate = gate(1, 100);
    let held = gate.admit("a", 1, WhenFull::Reject, WaitLimit::Unlimited).await.unwrap();
    let _other = gate.admit("b", 1, WhenFull::Reject, WaitLimit::Unlimited).await.unwrap();
    let refused = gate.admit("c", 1, WhenFull::Reject, WaitLimit::Unlimited).await.unwrap_err();
    assert_eq!(refused, Refused::TooManyQueues(2));
    drop(held);
    gate.admit("c", 1, WhenFull::Reject, WaitLimit::Unlimited).await.unwrap();
}

#[tokio::test]
async fn tasks_that_go_together_get_in_together() {
    let gate = gate(3, 100);
    let held = take(&gate, 10).await;
    let unlimited = WaitLimit::Unlimited;
    let refused = gate.admit_together("q", 3, 30, WhenFull::Reject, unlimited).await.unwrap_err();
    assert!(matches!(refused, Refused::Full { .. }), "{refused:?}");
    let never = gate.admit_together("q", 4, 40, WhenFull::Wait, unlimited).await.unwrap_err();
    assert_eq!(never, Refused::MoreThanQueue { tasks: 4, limit: 3 });
    let caller = Arc::clone(&gate);
    let together = tokio::spawn(async move {
        caller.admit_together("q", 3, 30, WhenFull::Wait, WaitLimit::Unlimited).await
    });
    while in_line(&gate) == 0 {
        tokio::task::yield_now().await;
    }
    drop(held);
    let mut permits = together.await.unwrap().expect("granted");
    let mut first = permits.take(10).expect("one of three");
    assert!(permits.take(30).is_none(), "more bytes than are left");
    drop(permits);
    drop(first.take_handoff());
    // What was not taken is free again.
    take(&gate, 80).await;
    drop(first);
}

#[tokio::test]
async fn a_queue_with_other_limits_lets_in_whoever_fits_and_sends_away_who_never_will() {
    let gate = gate(1, 100);
    let _held = take(&gate, 10).await;
    let handle = gate.handle("q");
    let large = stand_in_line(&gate, 60, WaitLimit::Unlimited).await;
    let small = stand_in_line(&gate, 10, WaitLimit::Unlimited).await;
    let waits = stand_in_line(&gate, 45, WaitLimit::Unlimited).await;
    let behind = stand_in_line(&gate, 70, WaitLimit::Unlimited).await;
    assert_eq!(handle.waiting(), (10, 4));
    handle.configure(Settings { max_tasks: 5, max_bytes: 50, ..Settings::default() });
    // Also behind one that only has to wait.
    for (never, bytes) in [(large, 60), (behind, 70)] {
        let never = never.await.unwrap().unwrap_err();
        assert_eq!(never, Refused::LargerThanQueue { bytes, limit: 50 });
    }
    assert_eq!(small.await.unwrap().expect("granted").bytes, 10);
    assert!(!waits.is_finished(), "there is no room for it yet");
    assert_eq!(gate.settings("q").map(|settings| settings.max_tasks), Some(5));
}

#[tokio::test]
async fn fixed_queues_are_all_there_are() {
    let declared = [("mail".into(), crate::queue::Overrides::default())].into();
    let queue_config = QueueConfig { declared, fixed: true, ..QueueConfig::default() };
    let gate = Admission::new(Limits { queue_config, queues: 9, room_timeout: Duration::ZERO });
    gate.try_admit("mail", 1).expect("it is declared");
    assert_eq!(gate.try_admit("other", 1).unwrap_err(), Refused::UnknownQueue);
    assert_eq!(gate.settings("other"), None);
    // What is in the store already stays there.
    let _left = gate.readmit("other", 1);
    assert_eq!(gate.try_admit("other", 1).unwrap_err(), Refused::UnknownQueue);
}

#[tokio::test]
async fn what_the_store_holds_already_comes_back_over_the_limit() {
    let gate = gate(1, 100);
    let held = take(&gate, 1).await;
    let again = gate.readmit("q", 500);
    drop(held);
    let refused = gate.admit("q", 1, WhenFull::Reject, WaitLimit::Unlimited).await.unwrap_err();
    assert!(matches!(refused, Refused::Full { .. }));
    drop(again);
    take(&gate, 1).await;
}

#[tokio::test]
async fn a_place_that_cannot_be_taken_is_not_lost() {
    let gate = gate(2, 100);
    let together = gate.admit_together("q", 2, 10, WhenFull::Reject, WaitLimit::Unlimited);
    let mut permits = together.await.expect("there is room");
    assert!(permits.take(11).is_none(), "it is more than was asked for");
    let taken = [permits.take(5), permits.take(5)];
    assert!(taken.iter().all(Option::is_some));
    drop((permits, taken));
    let _both = [take(&gate, 50).await, take(&gate, 50).await];
}

#[test]
fn the_advice_follows_the_measured_rate() {
    let start = Instant::now();
    let mut rate = DrainRate::new(start);
    assert_eq!(rate.time_for(1, start), DrainRate::LONGEST);
    let mut now = start;
    for _ in 0..10_000 {
        now += Duration::from_millis(10);
        rate.left(1, now);
    }
    let for_200 = rate.time_for(200, now).as_secs_f64();
    assert!((1.8..2.2).contains(&for_200), "100 a second leave, so 200 take 2 s: {for_200}");
    assert_eq!(rate.time_for(1, now), DrainRate::SHORTEST);
    let idle = now + Duration::from_mins(10);
    assert_eq!(rate.time_for(1, idle), DrainRate::LONGEST);
}

#[tokio::test]
async fn a_failed_store_is_told_as_such_and_the_first_cause_stays() {
    let gate = gate(1, 100);
    let _held = take(&gate, 1).await;
    let waiting = stand_in_line(&gate, 1, WaitLimit::Unlimited).await;
    gate.close(Refused::StoreFailed);
    gate.close(Refused::Draining);
    assert_eq!(waiting.await.unwrap().unwrap_err(), Refused::StoreFailed);
    let later = gate.admit("q", 1, WhenFull::Reject, WaitLimit::Unlimited).await.unwrap_err();
    assert_eq!(later, Refused::StoreFailed);
}

#[tokio::test]
async fn a_hold_refuses_everyone_until_it_is_released() {
    let gate = gate(2, 100);
    let held = take(&gate, 1).await;
    let _other = take(&gate, 1).await;
    let waiting = stand_in_line(&gate, 1, WaitLimit::Unlimited).await;
    let retry_after = Duration::from_secs(3);
    gate.hold(Hold::LogFull, retry_after);
    let refused = Refused::Held { hold: Hold::LogFull, retry_after };
    assert_eq!(waiting.await.unwrap().unwrap_err(), refused);
    drop(held);
    let later = gate.admit("q", 1, WhenFull::Wait, gate.wait_limit(None)).await.unwrap_err();
    assert_eq!(later, refused, "although there is room");
    assert_eq!(gate.try_admit("q", 1).unwrap_err(), refused);
    // What is in the store goes on, and can be administered.
    drop(gate.readmit("q", 1));
    gate.try_handle("q").expect("a queue can be changed");
    gate.release(Hold::LogFull);
    take(&gate, 1).await;
    let waiting = stand_in_line(&gate, 100, WaitLimit::Unlimited).await;
    assert_eq!(in_line(&gate), 1, "the line is as it was");
    waiting.abort();
}
