//! The loop of [`taskyard::client::Watcher`] against a server that follows a script:
//! each of its rules, in paused time.

mod stage;
use std::time::Duration;

use stage::{
    Act, End, after, caught_up, connect, control, ended, event, gone, refused, says, started,
    watch, with_reason, words,
};
use taskyard::{
    client::{Client, Seen, Start, Watch},
    proto::v1::{
        GapPolicy, SubmitRequest, SubmitResponse, Task, TaskState, WatchDraining, WatchGap,
        WatchHeartbeat, WatchSnapshot, WatchSnapshotEnd, WatchStart,
        watch_events_response::Control,
    },
};
use tokio::time::Instant;
use tonic::Code;

use crate::support;

#[tokio::test(start_paused = true)]
async fn it_goes_on_after_the_last_cursor() {
    let script = [
        says(
            [started("c0"), event("c1", 1), control("c5", Control::Heartbeat(WatchHeartbeat {}))],
            gone(),
        ),
        says([started("c5"), event("c6", 6)], gone()),
        Act::Refuse(refused()),
    ];
    let (mut watcher, asked) = watch(Watch::begin(Start::Live), script);
    let (words, end) = words(&mut watcher).await;
    assert_eq!(
        words,
        ["Started", "event 1", "Heartbeat", "lost gone", "Restored", "event 6", "lost gone"]
    );
    assert_eq!(end, Some(Code::NotFound));
    assert_eq!(after(&asked), ["", "c5", "c6"]);
    let asked = asked.lock().unwrap();
    assert_eq!(asked[0].start(), WatchStart::Live);
    assert_eq!(asked[1].start(), WatchStart::Unspecified, "a cursor and a start exclude another");
    assert_eq!(watcher.cursor(), Some("c6"));
}

#[tokio::test(start_paused = true)]
async fn before_the_first_cursor_it_begins_again_as_it_began() {
    let script = [Act::Refuse(gone()), says([started("c3")], refused())];
    let (mut watcher, asked) = watch(Watch::begin(Start::Oldest), script);
    assert_eq!(words(&mut watcher).await.0, ["lost gone", "Started"]);
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|request| request.start() == WatchStart::Oldest), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_broken_snapshot_is_told_anew() {
    let part = |task: &str| {
        let tasks = vec![Task { task_id: task.into(), ..Task::default() }];
        control("", Control::Snapshot(WatchSnapshot { tasks, ..WatchSnapshot::default() }))
    };
    let end = || control("c9", Control::SnapshotEnd(WatchSnapshotEnd {}));
    let script = [
        says([started(""), part("t1")], gone()),
        says([started(""), part("t1"), end()], gone()),
        says([started("c9"), event("c10", 10)], refused()),
    ];
    let (mut watcher, asked) = watch(Watch::begin(Start::Snapshot), script);
    assert_eq!(
        words(&mut watcher).await.0,
        [
            "SnapshotBegun",
            "snapshot t1",
            "lost gone",
            "SnapshotBegun",
            "snapshot t1",
            "SnapshotEnded",
            "lost gone",
            "Restored",
            "event 10",
        ]
    );
    assert_eq!(after(&asked), ["", "", "c9"]);
    let asked = asked.lock().unwrap();
    let snapshots: Vec<_> = asked.iter().map(|request| request.include_snapshot).collect();
    assert_eq!(snapshots, [true, true, false]);
}

#[tokio::test(start_paused = true)]
async fn silence_is_an_outage() {
    let script = [
        Act::Say(vec![started("c1")], End::Silence),
        Act::Ignore,
        says([started("c1"), event("c2", 2)], refused()),
    ];
    let heartbeat = Duration::from_secs(10);
    let terms = Watch { heartbeat, ..Watch::begin(Start::Live) };
    let (mut watcher, asked) = watch(terms, script);
    let began = Instant::now();
    assert_eq!(
        words(&mut watcher).await.0,
        ["Started", "lost the server has gone silent", "Restored", "event 2"]
    );
    // Two heartbeats and the grace, then the grace again for the call without an answer.
    assert!(began.elapsed() >= Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(31), "{:?}", began.elapsed());
    assert_eq!(after(&asked), ["", "c1", "c1"]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_rests_sees_no_silence() {
    let script = [Act::Say(vec![started("c1"), event("c2", 2)], End::Silence)];
    let (mut watcher, _) = watch(Watch::begin(Start::Live), script);
    assert!(matches!(watcher.next().await, Ok(Some(Seen::Started))));
    tokio::time::sleep(Duration::from_hours(1)).await;
    assert!(matches!(watcher.next().await, Ok(Some(Seen::Events(_)))));
    tokio::time::sleep(Duration::from_hours(1)).await;
    let next = tokio::time::timeout(Duration::from_secs(30), watcher.next());
    assert!(next.await.is_err(), "the silence began when it was listened to");
}

#[tokio::test(start_paused = true)]
async fn patience_ends() {
    let max_outage = Duration::from_mins(1);
    let script = (0..1000).map(|_| Act::Refuse(gone()));
    let (mut watcher, asked) = watch(Watch { max_outage, ..Watch::begin(Start::Live) }, script);
    let began = Instant::now();
    let (words, end) = words(&mut watcher).await;
    assert_eq!((words, end), (vec!["lost gone".to_owned()], Some(Code::Unavailable)));
    let (tries, took) = (asked.lock().unwrap().len(), began.elapsed());
    assert!(took <= max_outage && took.as_secs() >= 55, "{took:?}");
    // With rests of up to 5 s: neither a flood of tries nor too few.
    assert!((15..=40).contains(&tries), "{tries} tries in {took:?}");
    assert!(matches!(watcher.next().await, Ok(None)), "after the end there is nothing more");
}

#[tokio::test(start_paused = true)]
async fn no_try_is_waited_for_beyond_the_patience() {
    let max_outage = Duration::from_secs(12);
    let script = std::iter::once(says([started("c1")], gone()));
    let script = script.chain((0..1000).map(|_| Act::Ignore));
    let (mut watcher, asked) = watch(Watch { max_outage, ..Watch::begin(Start::Live) }, script);
    let began = Instant::now();
    let (words, end) = words(&mut watcher).await;
    assert_eq!((words, end), (vec!["Started".into(), "lost gone".into()], Some(Code::Unavailable)));
    // Each try takes 5 s, and the third is cut off.
    assert!(began.elapsed() <= max_outage + Duration::from_millis(100), "{:?}", began.elapsed());
    assert_eq!(asked.lock().unwrap().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_is_over_hurries_no_later_try() {
    let refusals = (0..3).map(|_| Act::Refuse(gone()));
    let lifetime = || with_reason(Code::Unavailable, "WATCH_LIFETIME");
    let script = [Act::Say(vec![started("c1")], End::Later(Duration::from_secs(20), lifetime()))];
    let script = refusals.chain(script).chain([Act::Ignore, says([started("c1")], refused())]);
    let max_outage = Duration::from_secs(10);
    let (mut watcher, _) = watch(Watch { max_outage, ..Watch::begin(Start::Live) }, script);
    for _ in 0..2 {
        watcher.next().await.expect("it goes on");
    }
    // The stream that stood for longer than the longest outage has ended; then nobody answers for 5 s.
    let lost = watcher.next();
    let began = Instant::now();
    let lost = lost.await.expect("it goes on");
    assert!(matches!(lost, Some(Seen::Lost(_))), "{lost:?}");
    assert!(began.elapsed() >= Duration::from_secs(25));
}

#[tokio::test(start_paused = true)]
async fn without_patience_the_first_outage_ends_it() {
    let script = [says([started("c1")], gone())];
    let terms = Watch { max_outage: Duration::ZERO, ..Watch::begin(Start::Live) };
    let (mut watcher, _) = watch(terms, script);
    assert_eq!(words(&mut watcher).await, (vec!["Started".into()], Some(Code::Unavailable)));
}

#[tokio::test(start_paused = true)]
async fn a_pushback_is_honoured() {
    let mut soon = gone();
    soon.metadata_mut().insert("grpc-retry-pushback-ms", "20000".parse().unwrap());
    let mut never = gone();
    never.metadata_mut().insert("grpc-retry-pushback-ms", "-1".parse().unwrap());
    let (mut watcher, asked) =
        watch(Watch::begin(Start::Live), [Act::Refuse(soon), Act::Refuse(never)]);
    let began = Instant::now();
    assert_eq!(words(&mut watcher).await, (vec!["lost gone".into()], Some(Code::Unavailable)));
    assert_eq!(began.elapsed().as_secs(), 20);
    assert_eq!(asked.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn its_lifetime_and_its_slowness_are_no_outage() {
    let script = [
        says([started("c1")], with_reason(Code::Unavailable, "WATCH_LIFETIME")),
        says(
            [started("c1"), event("c2", 2)],
            with_reason(Code::ResourceExhausted, "WATCH_STALLED"),
        ),
        says([started("c2"), event("c3", 3)], refused()),
    ];
    // Even if no outage is waited for.
    let terms = Watch { max_outage: Duration::ZERO, ..Watch::begin(Start::Live) };
    let (mut watcher, asked) = watch(terms, script);
    let (words, end) = words(&mut watcher).await;
    assert_eq!(words, ["Started", "Started", "event 2", "Started", "event 3"]);
    assert_eq!(end, Some(Code::NotFound));
    assert_eq!(after(&asked), ["", "c1", "c2"]);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_is_waited_for_only_after_an_outage() {
    let crowded = || with_reason(Code::ResourceExhausted, "TOO_MANY_WATCHERS");
    let (mut watcher, _) = watch(Watch::begin(Start::Live), [Act::Refuse(crowded())]);
    assert_eq!(words(&mut watcher).await, (vec![], Some(Code::ResourceExhausted)));

    let script =
        [says([started("c1")], gone()), Act::Refuse(crowded()), says([started("c1")], refused())];
    let (mut watcher, _) = watch(Watch::begin(Start::Live), script);
    assert_eq!(words(&mut watcher).await.0, ["Started", "lost gone", "Restored"]);

    // Nor may it lose its place by leaving it when it was asked to.
    let script = [
        says([started("c1")], with_reason(Code::Unavailable, "WATCH_LIFETIME")),
        Act::Refuse(crowded()),
        says([started("c1")], refused()),
    ];
    let (mut watcher, _) = watch(Watch::begin(Start::Live), script);
    assert_eq!(words(&mut watcher).await.0, ["Started", "lost ", "Restored"]);
}

#[tokio::test(start_paused = true)]
async fn to_be_accepted_and_dropped_is_an_outage_that_ends() {
    let script = (0..1000).map(|_| says([started("c1")], gone()));
    let max_outage = Duration::from_secs(20);
    let (mut watcher, asked) = watch(Watch { max_outage, ..Watch::begin(Start::Live) }, script);
    let began = Instant::now();
    let (_, end) = words(&mut watcher).await;
    assert_eq!(end, Some(Code::Unavailable));
    assert!(began.elapsed() <= max_outage, "{:?}", began.elapsed());
    let tries = asked.lock().unwrap().len();
    assert!((8..=30).contains(&tries), "{tries} tries");
}

#[tokio::test(start_paused = true)]
async fn the_cursor_is_behind_what_was_told() {
    // No server of today does it, but events may be the first message.
    let script = [says([started("c1")], gone()), says([event("c2", 2)], refused())];
    let (mut watcher, _) = watch(Watch::begin(Start::Live), script);
    for _ in 0..2 {
        watcher.next().await.expect("it goes on");
    }
    assert!(matches!(watcher.next().await, Ok(Some(Seen::Restored))));
    assert_eq!(watcher.cursor(), Some("c1"));
    assert!(matches!(watcher.next().await, Ok(Some(Seen::Events(_)))));
    assert_eq!(watcher.cursor(), Some("c2"));
}

/// A way to a server whose first connection goes dead without a word.
async fn half_dead_network(server: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut dead = Vec::new();
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = tokio::net::TcpStream::connect(server).await.unwrap();
            if dead.is_empty() {
                let some = tokio::io::copy_bidirectional(&mut near, &mut far);
                let _ = tokio::time::timeout(Duration::from_secs(1), some).await;
                dead.push((near, far));
            } else {
                tokio::spawn(async move {
                    tokio::io::copy_bidirectional(&mut near, &mut far).await.map(drop)
                });
            }
        }
    });
    address
}

/// In real time, over real sockets: it takes what the silence takes, some six seconds.
#[tokio::test]
async fn a_dead_connection_is_replaced() {
    let test_server = support::TestServer::start().await;
    let address = half_dead_network(test_server.server.local_addr()).await;
    let client = Client::connect(&address.to_string()).await.expect("it is there");
    let heartbeat = Duration::from_millis(100);
    let mut watcher = client.watch(Watch { heartbeat, ..Watch::begin(Start::Oldest) });
    let mut told = Vec::new();
    while !told.iter().any(|word| word == "Restored") {
        let seen = watcher.next().await.expect("it goes on").expect("it does not end");
        told.push(match seen {
            Seen::Lost(status) => format!("lost: {}", status.message()),
            other => format!("{other:?}"),
        });
    }
    assert!(told.contains(&"lost: the server has gone silent".to_owned()), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn only_a_watch_that_was_to_end_ends_well() {
    let acts = || {
        [
            // The server must not end a watch like that before it has caught up.
            Act::Say(vec![started("c1")], End::Clean),
            Act::Say(vec![started("c1"), caught_up("c1")], End::Clean),
        ]
    };
    let until = Watch { until_caught_up: true, ..Watch::begin(Start::Oldest) };
    let (mut watcher, asked) = watch(until, acts());
    let lost = "lost the server ended the stream";
    assert_eq!(
        words(&mut watcher).await,
        (vec!["Started".into(), lost.into(), "Restored".into(), "CaughtUp".into()], None)
    );
    assert!(asked.lock().unwrap().iter().all(|request| request.stop_when_caught_up));
    assert!(matches!(watcher.next().await, Ok(None)));

    let (mut watcher, _) = watch(Watch::begin(Start::Oldest), acts());
    let (seen, end) = words(&mut watcher).await;
    assert_eq!(seen, ["Started", lost, "Restored", "CaughtUp", lost]);
    assert_eq!(end, Some(Code::NotFound), "the script is over: it was opened again");
}

#[tokio::test(start_paused = true)]
async fn gaps_and_drains_are_told() {
    let gap = WatchGap { missing_events: 7, ..WatchGap::default() };
    let script = [says(
        [
            started("c1"),
            control("c8", Control::Gap(gap)),
            control("c8", Control::Draining(WatchDraining {})),
        ],
        refused(),
    )];
    let terms = Watch { over_gaps: true, ..Watch::begin(Start::After("c1".into())) };
    let (mut watcher, asked) = watch(terms, script);
    assert_eq!(words(&mut watcher).await.0, ["Started", "gap 7", "Draining"]);
    assert_eq!(watcher.cursor(), Some("c8"));
    assert_eq!(asked.lock().unwrap()[0].gap_policy(), GapPolicy::Continue);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_future_loses_nothing() {
    let events = (1..=50).map(|seq| event(&format!("c{seq}"), seq));
    let script = [
        Act::Say(std::iter::once(started("c0")).chain(events).collect(), End::Status(gone())),
        Act::Say(vec![started("c50"), event("c51", 51)], End::Status(refused())),
    ];
    let (mut watcher, asked) = watch(Watch::begin(Start::Live), script);
    let mut seqs = Vec::new();
    loop {
        // Polled once and dropped, again and again.
        let polled = tokio::select! {
            biased;
            polled = watcher.next() => polled,
            () = tokio::task::yield_now() => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            }
        };
        match polled {
            Ok(Some(Seen::Events(batch))) => {
                seqs.extend(batch.events.iter().map(|event| event.seq));
            }
            Ok(_) => {}
            Err(_) => break,
        }
    }
    assert_eq!(seqs, (1..=51).collect::<Vec<_>>());
    assert_eq!(after(&asked), ["", "c50"], "no stream was opened twice");
}

#[tokio::test(start_paused = true)]
async fn a_followed_task_is_submitted_once_and_told_once() {
    let submitted = || {
        let submitted = SubmitResponse { task_id: "t1".into(), ..SubmitResponse::default() };
        control("c0", Control::Submitted(submitted))
    };
    let script = [
        Act::Refuse(gone()),
        says([submitted(), event("c1", 1), event("c2", 2)], gone()),
        // A watch, which does not end with the task.
        Act::Say(vec![started("c2"), event("c6", 6), ended("c7", 7)], End::Silence),
    ];
    let (client, stage) = connect(script);
    let mut watcher = client.submit_and_watch(SubmitRequest::default());
    let told = words(&mut watcher).await;
    let expected = [
        "lost gone",
        "Restored",
        "submitted t1",
        "event 1",
        "event 2",
        "lost gone",
        "Restored",
        "event 6",
        "event 7",
    ];
    assert_eq!(told, (expected.map(str::to_owned).into(), None));
    let ids = stage.submitted.lock().unwrap().clone();
    assert!(ids.len() == 2 && !ids[0].is_empty() && ids[0] == ids[1], "it is one task: {ids:?}");
    let asked = stage.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1, "it is not submitted again");
    assert_eq!(asked[0].after_cursor, "c2");
    assert_eq!(asked[0].filter.as_ref().expect("a filter").task_ids, ["t1"]);
}

#[tokio::test(start_paused = true)]
async fn a_followed_task_whose_end_was_told_is_not_looked_for_again() {
    let submitted = SubmitResponse { task_id: "t1".into(), ..SubmitResponse::default() };
    let script = [says([control("c0", Control::Submitted(submitted)), ended("c1", 1)], gone())];
    let (client, _) = connect(script);
    let mut watcher = client.submit_and_watch(SubmitRequest::default());
    assert_eq!(words(&mut watcher).await, (vec!["submitted t1".into(), "event 1".into()], None));
}

#[tokio::test(start_paused = true)]
async fn a_followed_task_that_had_ended_long_ago_is_not_waited_for() {
    let submitted = SubmitResponse {
        task_id: "t1".into(),
        state: TaskState::Succeeded.into(),
        existing: true,
        ..SubmitResponse::default()
    };
    let script = [
        says([control("c9", Control::Submitted(submitted))], gone()),
        Act::Say(vec![started("c9"), caught_up("c9")], End::Clean),
    ];
    let (client, stage) = connect(script);
    let mut watcher = client.submit_and_watch(SubmitRequest::default());
    let (told, end) = words(&mut watcher).await;
    assert_eq!(end, None, "{told:?}");
    assert!(stage.asked.lock().unwrap()[0].stop_when_caught_up);
}
