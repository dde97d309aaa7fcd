//! Pictures of a fixed service, as text.

use std::time::Duration;

use ratatui::{Terminal, backend::TestBackend};
use taskyard_client::{Batch, Seen};
use taskyard_proto::v1::{
    Event, EventType, Execution, GetPoolResponse, GetStatsResponse, Pool, PoolStats, QueueBlock,
    QueueStats, SizingAdvice, TaskCounts, Worker,
};
use tonic::Status;

use super::{
    super::keys::{Command, Scroll},
    *,
};

fn wire(millis: i64) -> prost_types::Duration {
    let nanos = i32::try_from(millis % 1_000 * 1_000_000).expect("below a second");
    prost_types::Duration { seconds: millis / 1_000, nanos }
}

fn at(seconds: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos: 0 }
}

fn queue(name: &str, queued: u64, block: QueueBlock) -> QueueStats {
    QueueStats {
        queue: name.into(),
        arrival_rate: 10.25,
        completion_rate: 9.5,
        mean_service: Some(wire(412)),
        mean_wait: Some(wire(1_500)),
        busy_share: 0.52,
        counts: Some(TaskCounts { queued, running: 4, failed: 12, ..TaskCounts::default() }),
        wait_now: (block != QueueBlock::Paused).then_some(wire(3_400)),
        block: block.into(),
    }
}

fn stats(queues: Vec<QueueStats>) -> GetStatsResponse {
    let counts =
        TaskCounts { queued: 1_234, running: 6, succeeded: 120_345, ..TaskCounts::default() };
    GetStatsResponse {
        pool: Some(PoolStats {
            workers: 8,
            busy_workers: 6,
            busy_share: 0.74,
            arrival_rate: 12.34,
            completion_rate: 11.9,
            counts: Some(counts),
            ..PoolStats::default()
        }),
        queues,
        advice: Some(SizingAdvice {
            workers: 9,
            summary: "the load is 8.2 workers; 8 workers cannot keep up, and the wait grows; \
                      9 workers hold a mean wait of 1 s"
                .into(),
            ..SizingAdvice::default()
        }),
        start_time: Some(at(1_000)),
        time: Some(at(8_380)),
    }
}

fn worker(number: usize, kind: &str, queue: &str) -> Worker {
    let execution = Execution {
        task_id: format!("t1zq8x5kd{number}"),
        queue: queue.into(),
        kind: kind.into(),
        attempt: 1,
        running_for: Some(wire(3_400)),
        ..Execution::default()
    };
    Worker {
        worker: format!("worker-{number}"),
        execution: (number < 7).then_some(execution),
        busy_share: 0.75,
        finished: 1_234,
        ..Worker::default()
    }
}

fn event(kind: EventType, worker: &str, ran: Option<i64>) -> Event {
    Event {
        r#type: kind.into(),
        task_id: "t1zq8x5kd7".into(),
        queue: "default".into(),
        kind: "exec".into(),
        attempt: 1,
        worker: worker.into(),
        ran: ran.map(wire),
        ..Event::default()
    }
}

fn seen(events: Vec<Event>) -> Seen {
    Seen::Events(Batch { events, ..Batch::default() })
}

fn model(now: Instant) -> Model {
    let mut model = Model::new("http://127.0.0.1:50051", Vec::new());
    let queues = vec![
        queue("default", 1_200, QueueBlock::Unspecified),
        queue("mail", 34, QueueBlock::Paused),
        queue("reports-for-the-customers", 0, QueueBlock::Unspecified),
    ];
    model.stats(Ok(stats(queues.clone())), now);
    model.stats(Ok(stats(queues)), now + Duration::from_secs(100));
    let workers = (1..=8).map(|number| worker(number, "exec", "mail")).collect();
    model
        .pool(Ok(GetPoolResponse { pool: Some(Pool { size: 8, workers }), drain_time_left: None }));
    let events = vec![
        event(EventType::Submitted, "", None),
        event(EventType::Started, "worker-3", None),
        event(EventType::Succeeded, "worker-3", Some(412)),
        Event { queue: "mail".into(), r#type: EventType::QueuePaused.into(), ..Event::default() },
    ];
    model.seen(Ok(seen(events)), now);
    model
}

/// The screen as text, without the blanks at the ends of lines.
fn drawn(model: &Model, now: Instant, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a screen");
    terminal.draw(|frame| draw(frame, model, now)).expect("it is drawn");
    let buffer = terminal.backend().buffer();
    let row = |y| {
        let mut row = String::new();
        let mut covered = 0;
        for x in 0..width {
            let symbol = buffer[(x, y)].symbol();
            // The second column of a wide character is its own.
            if covered == 0 {
                row.push_str(symbol);
                covered = measure_text_width(symbol).saturating_sub(1);
            } else {
                covered -= 1;
            }
        }
        row.trim_end().to_owned()
    };
    (0..height).map(row).collect::<Vec<_>>().join("\n")
}

#[test]
fn it_fits_80_by_24() {
    let now = Instant::now();
    assert_eq!(
        drawn(&model(now), now, 80, 24),
        "\
taskyard  127.0.0.1:50051  up 2 h 03 min                                  ● live
pool     ━━━━━━━━━━━━━━━━━━━───────  74% busy; 6 of 8 workers run a task
rates     12.3/s arrive          ██    11.9/s complete          ██  last 100 s
tasks    1,234 queued, 6 running, 120,345 succeeded
advice   the load is 8.2 workers; 8 workers cannot keep up, and the wait grows;
         9 workers hold a mean wait of 1 s (taskyard resize 9)
━━ [1] queues ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
QUEUE                 WAITING  RUNNING  IN/S  OUT/S  WAIT NOW  BUSY
default                 1,200        4  10.2   9.50     3.4 s   52%
mail                       34        4  10.2   9.50         -   52%  paused
reports-fo…customers        0        4  10.2   9.50     3.4 s   52%
── [2] workers ───────────────────────────────────────────────────── 1–4 of 8 ──
WORKER    TASK            KIND  QUEUE  ATTEMPT    FOR  FINISHED  BUSY
worker-1  t1zq8x5kd1      exec  mail         1  3.4 s     1,234   75%
worker-2  t1zq8x5kd2      exec  mail         1  3.4 s     1,234   75%
worker-3  t1zq8x5kd3      exec  mail         1  3.4 s     1,234   75%
worker-4  t1zq8x5kd4      exec  mail         1  3.4 s     1,234   75%
── [3] events, 0/s ─────────────────────────────────────────────────────────────
-             SUBMITTED        t1zq8x5kd7      exec
-             STARTED          t1zq8x5kd7      exec      worker-3
-             SUCCEEDED        t1zq8x5kd7      exec      worker-3   ran 412 ms
-             QUEUE_PAUSED     queue mail

q quit  ? help  Tab panel  ↑↓ scroll  z zoom  Space freeze  / filter"
    );
}

#[test]
fn a_larger_screen_shows_more() {
    let now = Instant::now();
    assert_eq!(
        drawn(&model(now), now, 120, 40),
        "\
taskyard  127.0.0.1:50051  up 2 h 03 min                                                                          ● live
pool     ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╸──────────  74% busy; 6 of 8 workers run a task
rates     12.3/s arrive                              ██    11.9/s complete                              ██  last 100 s
tasks    1,234 queued, 6 running, 120,345 succeeded
advice   the load is 8.2 workers; 8 workers cannot keep up, and the wait grows; 9 workers hold a mean wait of 1 s
         (taskyard resize 9)
━━ [1] queues ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━
QUEUE                      WAITING  RUNNING  IN/S  OUT/S    RUNS  WAITED  FAILED  WAIT NOW  BUSY
default                      1,200        4  10.2   9.50  412 ms   1.5 s      12     3.4 s   52%
mail                            34        4  10.2   9.50  412 ms   1.5 s      12         -   52%  paused
reports-for-the-customers        0        4  10.2   9.50  412 ms   1.5 s      12     3.4 s   52%
── [2] workers ─────────────────────────────────────────────────────────────────────────────────────────────────────────
WORKER    TASK            KIND  QUEUE  ATTEMPT    FOR  FINISHED  BUSY
worker-1  t1zq8x5kd1      exec  mail         1  3.4 s     1,234   75%  ━━━━━━━╸──
worker-2  t1zq8x5kd2      exec  mail         1  3.4 s     1,234   75%  ━━━━━━━╸──
worker-3  t1zq8x5kd3      exec  mail         1  3.4 s     1,234   75%  ━━━━━━━╸──
worker-4  t1zq8x5kd4      exec  mail         1  3.4 s     1,234   75%  ━━━━━━━╸──
worker-5  t1zq8x5kd5      exec  mail         1  3.4 s     1,234   75%  ━━━━━━━╸──
worker-6  t1zq8x5kd6      exec  mail         1  3.4 s     1,234   75%  ━━━━━━━╸──
worker-7  idle                                            1,234   75%  ━━━━━━━╸──
worker-8  idle                                            1,234   75%  ━━━━━━━╸──
── [3] events, 0/s ─────────────────────────────────────────────────────────────────────────────────────────────────────
-             SUBMITTED        t1zq8x5kd7      exec
-             STARTED          t1zq8x5kd7      exec      worker-3
-             SUCCEEDED        t1zq8x5kd7      exec      worker-3   ran 412 ms
-             QUEUE_PAUSED     queue mail













q quit  ? help  Tab panel  ↑↓ scroll  z zoom  Space freeze  / filter  Enter details"
    );
}

#[test]
fn a_small_screen_shows_one_panel() {
    let now = Instant::now();
    assert_eq!(
        drawn(&model(now), now, 40, 10),
        "\
taskyard  127.0.0.1:50051         ● live
pool     ━━━━━━━━━╸───  74% busy; 6 of …
rates    12.3/s arrive, 11.9/s complete
━━ [1] queues ━━━━━━━━━━━━━━━━━━━━━━━━━━
QUEUE       WAITING  RUNNING
default       1,200        4
mail             34        4  paused
repor…mers        0        4

q quit  ? help  Tab panel  ↑↓ scroll"
    );
}

#[test]
fn a_tiny_screen_says_how_busy_it_is() {
    let now = Instant::now();
    let mut model = model(now);
    assert_eq!(
        drawn(&model, now, 20, 5),
        "\
74% busy      ● live
━━ [1] queues ━━━━━━
QUEUE    WAITING
default    1,200
q quit  ? help"
    );
    model.stats(Err(Status::unavailable("gone")), now);
    assert_eq!(drawn(&model, now, 20, 5).lines().next(), Some("74% busy ✗ no answer"));
    assert_eq!(drawn(&model, now, 15, 3), "top: too small\nq quits\n");
}

#[test]
fn the_help_names_every_key() {
    let now = Instant::now();
    let mut model = model(now);
    model.command(Command::Help);
    let text = drawn(&model, now, 80, 24);
    let shown: Vec<_> = text.lines().skip(6).take(10).collect();
    assert_eq!(
        shown.join("\n"),
        "\
━━ keys ━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━ ? or Esc closes this ━━
q      quit; so do Esc and Ctrl-C
?      this help
Tab    next panel; Shift-Tab: the one before; 1 2 3: that one
↑↓     scroll and select; so do k j; PgUp PgDn: a page; Home End: to the ends
z      this panel on the whole screen, and back
Space  freeze the picture, and let it go on
/      only rows that have in them what you write; Esc: all again
Enter  everything about the selected row
       events scroll on by themselves while the newest is in sight"
    );
    model.command(Command::Back);
    assert!(drawn(&model, now, 80, 24).contains("[1] queues"));
}

/// The first line of the screen.
fn first(model: &Model, now: Instant, width: u16) -> String {
    drawn(model, now, width, 24).lines().next().unwrap_or_default().to_owned()
}

#[test]
fn how_it_stands_with_the_server_is_told() {
    let now = Instant::now();
    let mut model = model(now);
    model.seen(Ok(Seen::Draining), now);
    assert!(first(&model, now, 80).ends_with(" ◌ draining, about to end"));
    model.stats(Err(Status::unavailable("refused by it")), now);
    let later = now + Duration::from_secs(12);
    assert_eq!(
        first(&model, later, 80),
        "taskyard  127.0.0.1:50051                   ✗ no answer for 12 s; looking for it"
    );
    let text = drawn(&model, later, 80, 24);
    assert!(text.contains("1,234 queued") && text.contains("worker-4"), "it stays:\n{text}");
    assert!(text.contains("\nproblem  refused by it\n"), "{text}");
    model.stats(Err(Status::permission_denied("not you")), now);
    assert!(drawn(&model, now, 80, 24).contains("\nproblem  not you\n"));
    assert!(first(&model, now, 80).ends_with(" ✗ refused"));
}

#[test]
fn a_picture_that_stands_still_says_so() {
    let now = Instant::now();
    let mut model = model(now);
    model.command(Command::Freeze);
    assert!(first(&model, now, 80).ends_with("   FROZEN: Space lets it go on   ● live"));
    assert!(drawn(&model, now, 20, 5).starts_with("74%   FROZEN  ● live"));
}

#[test]
fn a_zoomed_panel_has_the_screen() {
    let now = Instant::now();
    let mut model = model(now);
    model.command(Command::Focus(Panel::Workers));
    model.command(Command::Zoom);
    let text = drawn(&model, now, 80, 24);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(
        lines[0],
        "127.0.0.1:50051  74% busy; 6 of 8 workers run a task                      ● live"
    );
    assert!(lines[1].starts_with("━━ [2] workers ━━"), "{text}");
    assert!(lines[10].starts_with("worker-8"), "{text}");
    assert!(!text.contains("queues"), "{text}");
}

#[test]
fn nothing_is_said_where_there_is_nothing() {
    let now = Instant::now();
    let mut model = Model::new("a:1", vec!["q".into()]);
    let text = drawn(&model, now, 80, 24);
    for words in
        ["no queue of those names", "not told yet", "nothing has happened", "only those named"]
    {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    model.seen(Err(Status::resource_exhausted("too many watchers")), now);
    let text = drawn(&model, now, 80, 24);
    assert!(text.contains("\ntoo many watchers\n"), "{text}");
    assert!(text.contains(" stopped; looking for the stream ──"), "{text}");
}

/// Names, numbers and texts as bad as they can be, and very many of them.
fn hostile(now: Instant) -> Model {
    let bad = |number: usize| match number % 5 {
        0 => "a\u{1b}[2J\u{7}\nb".to_owned(),
        1 => "界".repeat(127),
        2 => "x".repeat(255),
        3 => "e\u{301}\u{200d}👩\u{200d}🚀\u{202e}".to_owned(),
        _ => "\t".repeat(60),
    };
    let mut model = Model::new(&bad(0), Vec::new());
    let mut stats =
        stats((0..300).map(|n| queue(&bad(n), u64::MAX >> 1, QueueBlock::MaxRunning)).collect());
    let most = u64::from(u32::MAX);
    let counts = TaskCounts {
        scheduled: most,
        queued: most,
        running: most,
        succeeded: most,
        failed: most,
        cancelled: most,
    };
    stats.pool = stats.pool.map(|pool| PoolStats {
        arrival_rate: 1e300,
        completion_rate: f64::NAN,
        busy_share: f64::INFINITY,
        counts: Some(counts),
        ..pool
    });
    stats.advice = Some(SizingAdvice { summary: bad(2) + &bad(1), ..SizingAdvice::default() });
    model.stats(Ok(stats), now);
    let workers = (0..5_000).map(|n| worker(n % 7, &bad(n), &bad(n + 1)));
    let workers = workers.enumerate().map(|(n, worker)| Worker { leaving: n % 2 == 0, ..worker });
    model.pool(Ok(GetPoolResponse {
        pool: Some(Pool { size: 1, workers: workers.collect() }),
        drain_time_left: None,
    }));
    let events = (0..1_000).map(|n| Event {
        kind: bad(n),
        worker: bad(n + 2),
        ..event(EventType::Failed, "", Some(i64::from(u32::MAX)))
    });
    model.seen(Ok(seen(events.collect())), now);
    model
}

#[test]
fn nothing_breaks_the_picture_at_any_size() {
    let now = Instant::now();
    let mut model = hostile(now);
    let sizes = (1..100).step_by(7).map(|width| (width, 1 + width % 50)).chain([
        (20, 5),
        (300, 90),
        (1_000, 3),
    ]);
    for (width, height) in sizes {
        for panel in Panel::ALL {
            model.command(Command::Focus(panel));
            for step in [Command::Zoom, Command::Scroll(Scroll::End), Command::Zoom] {
                model.resized(Size { width, height });
                model.command(step);
                let text = drawn(&model, now, width, height);
                for line in text.lines() {
                    assert!(measure_text_width(line) <= width.into(), "{width}x{height}: {line:?}");
                    assert!(!line.chars().any(char::is_control), "{width}x{height}: {line:?}");
                }
                let has_title = text.lines().any(|line| line.contains("━━ ["));
                assert!(has_title || width < 16 || height < 4, "{width}x{height}:\n{text}");
            }
        }
    }
}
