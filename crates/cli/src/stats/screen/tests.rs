//! The screen with fixed figures, as text.

use console::measure_text_width;
use taskyard_proto::v1::{PoolStats, QueueBlock, SizingAdvice, TaskCounts};

use super::*;

fn wire(millis: i64) -> prost_types::Duration {
    let nanos = i32::try_from(millis % 1_000 * 1_000_000).expect("below a second");
    prost_types::Duration { seconds: millis / 1_000, nanos }
}

fn at(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}

fn queue(name: &str, waiting: u64, block: QueueBlock) -> QueueStats {
    QueueStats {
        queue: name.into(),
        arrival_rate: 10.25,
        completion_rate: 9.5,
        mean_service: Some(wire(412)),
        mean_wait: Some(wire(1_500)),
        busy_share: 0.52,
        counts: Some(TaskCounts {
            queued: waiting,
            running: 4,
            failed: 12,
            ..TaskCounts::default()
        }),
        wait_now: (block != QueueBlock::Paused).then_some(wire(3_400)),
        block: block.into(),
    }
}

fn stats() -> GetStatsResponse {
    GetStatsResponse {
        pool: Some(PoolStats {
            workers: 8,
            busy_workers: 6,
            busy_share: 0.74,
            arrival_rate: 12.34,
            completion_rate: 11.9,
            mean_service: Some(wire(498)),
            mean_wait: Some(wire(1_210)),
            counts: Some(TaskCounts {
                scheduled: 5,
                queued: 1_234,
                running: 6,
                succeeded: 120_345,
                failed: 12,
                cancelled: 0,
            }),
        }),
        queues: vec![
            queue("default", 1_200, QueueBlock::Unspecified),
            queue("mail", 34, QueueBlock::Paused),
            QueueStats { queue: "reports-for-the-customers".into(), ..QueueStats::default() },
        ],
        advice: Some(SizingAdvice {
            workers: 9,
            summary: "9 workers would hold a mean wait of 1 s (0.61 s is expected); with the 8 \
                      there are, a task waits 1.9 s in the mean."
                .into(),
            ..SizingAdvice::default()
        }),
        start_time: Some(at(1_000)),
        time: Some(at(8_380)),
    }
}

fn plain(stats: &GetStatsResponse, width: usize, height: usize) -> String {
    console::strip_ansi_codes(&screen(stats, width, height)).into_owned()
}

#[test]
fn it_fits_80_columns() {
    assert_eq!(
        plain(&stats(), 80, usize::MAX),
        "\
pool     ━━━━━━━━━━━━━━━━━━━───────  74% busy; 6 of 8 workers run a task
rates    12.3/s arrive, 11.9/s complete, over about the last minute
times    498 ms to run, after 1.2 s of waiting, in the mean
tasks    5 scheduled, 1,234 queued, 6 running, 120,345 succeeded, 12 failed
up       2 h 03 min
advice   9 workers would hold a mean wait of 1 s (0.61 s is expected); with the
         8 there are, a task waits 1.9 s in the mean. (taskyard resize 9)

QUEUE             WAITING  RUNNING  IN/S  OUT/S  WAIT NOW  BUSY
default             1,200        4  10.2   9.50     3.4 s   52%  ━━━╸───
mail                   34        4  10.2   9.50         -   52%  ━━━╸───  paused
reports-…stomers        0        0     0      0         -    0%  ───────"
    );
}

#[test]
fn a_wider_screen_shows_more() {
    assert_eq!(
        plain(&stats(), 120, usize::MAX),
        "\
pool     ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸──────────  74% busy; 6 of 8 workers run a task
rates    12.3/s arrive, 11.9/s complete, over about the last minute
times    498 ms to run, after 1.2 s of waiting, in the mean
tasks    5 scheduled, 1,234 queued, 6 running, 120,345 succeeded, 12 failed
up       2 h 03 min
advice   9 workers would hold a mean wait of 1 s (0.61 s is expected); with the 8 there are, a \
         task waits 1.9 s in the\n         \
         mean. (taskyard resize 9)

QUEUE                     WAITING  RUNNING  IN/S  OUT/S    RUNS  WAITED  FAILED  WAIT NOW  BUSY
default                     1,200        4  10.2   9.50  412 ms   1.5 s      12     3.4 s   52%  \
         ━━━━━━━━───────
mail                           34        4  10.2   9.50  412 ms   1.5 s      12         -   52%  \
         ━━━━━━━━───────  paused
reports-for-…e-customers        0        0     0      0       -       -       0         -    0%  \
         ───────────────"
    );
}

#[test]
fn nothing_measured_is_said_so() {
    let stats = GetStatsResponse {
        pool: Some(PoolStats { workers: 8, ..PoolStats::default() }),
        ..GetStatsResponse::default()
    };
    assert_eq!(
        plain(&stats, 80, usize::MAX),
        "\
pool     ──────────────────────────  0% busy; 0 of 8 workers run a task
rates    0/s arrive, 0/s complete, over about the last minute
times    nothing was measured yet
tasks    none
advice   none yet: nothing was measured"
    );
}

#[test]
fn no_line_is_wider_than_the_screen_and_no_screen_is_higher() {
    let mut stats = stats();
    stats.queues = (0..50)
        .map(|number| {
            queue(
                &format!("queue-with-a-long-name-{number}"),
                1_000_000 + number,
                QueueBlock::MaxRunning,
            )
        })
        .collect();
    let most = u64::from(u32::MAX);
    let counts = TaskCounts {
        scheduled: most,
        queued: most,
        running: most,
        succeeded: most,
        failed: most,
        cancelled: most,
    };
    stats.pool = stats.pool.map(|pool| PoolStats { counts: Some(counts), ..pool });
    for width in 80..=160 {
        for height in [14, 24, 40] {
            let text = plain(&stats, width, height);
            assert!(text.lines().count() <= height, "{width} x {height}:\n{text}");
            for line in text.lines() {
                assert!(measure_text_width(line) <= width, "{width}: {line}");
            }
        }
    }
}

#[test]
fn the_quietest_queues_are_left_out_first() {
    let text = plain(&stats(), 80, 11);
    let shown: Vec<_> = text.lines().skip(9).collect();
    assert!(shown[0].starts_with("default ") && shown.len() == 2, "{text}");
    assert_eq!(shown[1], "and 2 quieter ones; see taskyard queues");
    assert!(
        plain(&stats(), 80, 12).ends_with(
            "\nreports-…stomers        0        0     0      0         -    0%  ───────"
        )
    );
}
