//! What each message changes.

use taskyard_client::Batch;
use taskyard_proto::v1::{PoolStats, QueueStats, TaskCounts, Worker};

use super::*;

const SCREEN: Size = Size { width: 80, height: 24 };

fn stats(queues: usize, run: i64) -> GetStatsResponse {
    let queue = |number| QueueStats { queue: format!("q{number}"), ..QueueStats::default() };
    GetStatsResponse {
        pool: Some(PoolStats { arrival_rate: 3.0, ..PoolStats::default() }),
        queues: (0..queues).map(queue).collect(),
        start_time: Some(prost_types::Timestamp { seconds: run, nanos: 0 }),
        ..GetStatsResponse::default()
    }
}

fn pool(workers: usize) -> GetPoolResponse {
    let workers = vec![Worker::default(); workers];
    GetPoolResponse { pool: Some(Pool { size: 1, workers }), drain_time_left: None }
}

fn events(numbers: Range<u64>) -> Seen {
    let events = numbers.map(|seq| Event { seq, ..Event::default() }).collect();
    Seen::Events(Batch { events, ..Batch::default() })
}

/// With 50 rows in every panel, on a screen.
fn model() -> Model {
    let now = Instant::now();
    let mut model = Model::new("http://a:1", Vec::new());
    model.resized(SCREEN);
    model.stats(Ok(stats(50, 1)), now);
    model.pool(Ok(pool(50)));
    model.seen(Ok(events(0..50)), now);
    model
}

fn rows(model: &Model, panel: Panel) -> usize {
    Layout::new(SCREEN, model.wishes()).rows(panel)
}

fn in_sight(model: &Model, panel: Panel) -> Range<usize> {
    model.window(panel, rows(model, panel))
}

fn numbers(model: &Model) -> Vec<u64> {
    let window = in_sight(model, Panel::Events);
    model.picture().events.range(window).map(|event| event.seq).collect()
}

fn lost() -> Status {
    Status::unavailable("gone")
}

#[test]
fn keys_that_end_it_do() {
    assert_eq!(model().command(Command::Quit), Flow::Quit);
    assert_eq!(model().command(Command::Back), Flow::Quit);
    let mut model = model();
    assert_eq!(model.command(Command::Help), Flow::GoOn);
    assert!(model.help);
    assert_eq!(model.command(Command::Back), Flow::GoOn, "it closes the help");
    assert!(!model.help);
    model.command(Command::Help);
    assert_eq!(model.command(Command::Quit), Flow::Quit);
}

#[test]
fn focus_and_zoom_are_moved_by_keys() {
    let mut model = model();
    assert_eq!(model.focus, Panel::Queues);
    model.command(Command::Next);
    assert_eq!(model.focus, Panel::Workers);
    model.command(Command::Previous);
    model.command(Command::Previous);
    assert_eq!(model.focus, Panel::Events);
    model.command(Command::Focus(Panel::Queues));
    assert_eq!(model.focus, Panel::Queues);
    let before = rows(&model, Panel::Queues);
    model.command(Command::Zoom);
    assert!(rows(&model, Panel::Queues) > before);
    model.command(Command::Zoom);
    assert_eq!(rows(&model, Panel::Queues), before);
}

#[test]
fn every_panel_scrolls_within_its_bounds() {
    for panel in Panel::ALL {
        let mut model = model();
        model.command(Command::Focus(panel));
        let rows = rows(&model, panel);
        let mut at = |scroll| {
            model.command(Command::Scroll(scroll));
            in_sight(&model, panel)
        };
        assert_eq!(at(Scroll::Home), 0..rows);
        assert_eq!(at(Scroll::Up), 0..rows);
        if panel == Panel::Events {
            assert_eq!(at(Scroll::Down), 0..rows, "another row is selected");
        }
        assert_eq!(at(Scroll::Down), 1..rows + 1);
        assert_eq!(at(Scroll::PageDown), rows..2 * rows, "a row stays in sight");
        assert_eq!(at(Scroll::PageUp), 1..rows + 1);
        assert_eq!(at(Scroll::End), 50 - rows..50);
        assert_eq!(at(Scroll::Down), 50 - rows..50);
        if panel != Panel::Events {
            assert_eq!(at(Scroll::Up), 50 - rows..50, "another row is selected");
        }
        assert_eq!(at(Scroll::Up), 49 - rows..49);
    }
}

#[test]
fn the_busiest_queues_come_first() {
    let mut model = Model::new("http://127.0.0.1:50051", Vec::new());
    model.resized(SCREEN);
    let queue = |name: String, busy_share, queued| QueueStats {
        queue: name,
        busy_share,
        counts: Some(TaskCounts { queued, ..TaskCounts::default() }),
        ..QueueStats::default()
    };
    let idle = (0..50).map(|number| queue(format!("idle-{number:02}"), 0.0, 0));
    let busy = [("a", 0.2, 0), ("z", 0.9, 3), ("waits", 0.0, 7)];
    let busy = busy.map(|(name, share, queued)| queue(name.to_owned(), share, queued));
    let queues = idle.chain(busy).collect();
    model.stats(Ok(GetStatsResponse { queues, ..GetStatsResponse::default() }), Instant::now());
    let first: Vec<_> = model.queues()[..4].iter().map(|queue| queue.queue.as_str()).collect();
    assert_eq!(first, ["z", "a", "waits", "idle-00"]);
    for c in "IDLE-4".chars() {
        model.command(Command::Write(c));
    }
    assert_eq!(model.len(Panel::Queues), 10);
    model.command(Command::Scroll(Scroll::Down));
    model.command(Command::Details);
    assert!(matches!(&model.details, Some(Row::Queue(queue)) if queue.queue.starts_with("idle-4")));
    // What is on top is left first.
    assert_eq!(model.command(Command::Back), Flow::GoOn);
    assert!(model.details.is_none());
    assert_eq!(model.command(Command::Back), Flow::GoOn);
    assert_eq!(model.len(Panel::Queues), 53);
    assert_eq!(model.command(Command::Back), Flow::Quit);
}

#[test]
fn what_is_in_sight_never_is_beyond_what_there_is() {
    let mut model = model();
    model.command(Command::Scroll(Scroll::End));
    model.stats(Ok(stats(2, 1)), Instant::now());
    assert_eq!(model.window(Panel::Queues, 4), 0..2);
    assert_eq!(model.window(Panel::Queues, 0), 2..2);
    model.stats(Ok(stats(0, 1)), Instant::now());
    assert_eq!(model.window(Panel::Queues, 4), 0..0);
}

#[test]
fn only_the_newest_events_are_kept() {
    let now = Instant::now();
    let mut model = model();
    model.seen(Ok(events(50..50 + KEPT as u64)), now);
    assert_eq!(model.len(Panel::Events), KEPT);
    model.seen(Ok(events(2_000..9_000)), now);
    let kept: Vec<_> = model.picture().events.iter().map(|event| event.seq).collect();
    assert_eq!(kept, (8_000..9_000).collect::<Vec<_>>());
    model.seen(Ok(events(9_000..9_001)), now);
    assert_eq!((model.len(Panel::Events), numbers(&model).last()), (KEPT, Some(&9_000)));
}

#[test]
fn new_events_do_not_move_those_that_are_looked_at() {
    let now = Instant::now();
    let mut model = model();
    let newest = numbers(&model);
    model.seen(Ok(events(50..51)), now);
    assert_eq!(numbers(&model).last(), Some(&50), "the newest is followed");
    model.command(Command::Focus(Panel::Events));
    model.command(Command::Scroll(Scroll::Up));
    assert_eq!(numbers(&model), newest);
    model.seen(Ok(events(51..90)), now);
    assert_eq!(numbers(&model), newest);
    model.seen(Ok(events(90..5_000)), now);
    assert_eq!(numbers(&model).first(), Some(&4_000), "they are no longer kept");
    model.command(Command::Scroll(Scroll::End));
    model.seen(Ok(events(5_000..5_001)), now);
    assert_eq!(numbers(&model).last(), Some(&5_000));
}

#[test]
fn a_frozen_picture_stands_still_while_all_goes_on() {
    let now = Instant::now();
    let mut model = model();
    model.command(Command::Freeze);
    let before = numbers(&model);
    model.seen(Ok(events(50..90)), now);
    model.stats(Ok(stats(2, 1)), now);
    model.pool(Ok(pool(2)));
    assert!(model.is_frozen());
    assert_eq!(numbers(&model), before);
    assert_eq!(Panel::ALL.map(|panel| model.len(panel)), [50, 50, 50]);
    model.command(Command::Focus(Panel::Events));
    model.command(Command::Scroll(Scroll::Home));
    assert_eq!(numbers(&model).first(), Some(&0), "it can be scrolled");
    model.command(Command::Freeze);
    assert!(!model.is_frozen());
    assert_eq!(Panel::ALL.map(|panel| model.len(panel)), [2, 2, 90]);
    assert_eq!(numbers(&model).last(), Some(&89));
}

#[test]
fn a_server_that_has_gone_is_told_and_what_was_seen_stays() {
    let begun = Instant::now();
    let later = begun + Duration::from_secs(3);
    let mut model = model();
    model.seen(Ok(Seen::Lost(lost())), begun);
    model.stats(Err(lost()), later);
    model.pool(Err(lost()));
    assert_eq!(model.link, Link::Lost { since: begun, why: "gone".into() });
    assert_eq!(model.no_events.as_deref(), Some("gone"));
    assert_eq!(Panel::ALL.map(|panel| model.len(panel)), [50, 50, 50]);
    model.stats(Ok(stats(1, 2)), later);
    assert_eq!(model.link, Link::Up);
    model.seen(Ok(Seen::Restored), later);
    assert_eq!(model.no_events, None);
}

#[test]
fn a_drain_is_told_until_another_server_runs() {
    let now = Instant::now();
    let mut model = model();
    model.seen(Ok(Seen::Draining), now);
    model.stats(Ok(stats(1, 1)), now);
    assert_eq!(model.link, Link::Draining);
    model.stats(Ok(stats(1, 2)), now);
    assert_eq!(model.link, Link::Up);
    let details = tonic_types::ErrorDetails::with_error_info("DRAINING", "taskyard", []);
    let draining = <Status as tonic_types::StatusExt>::with_error_details(
        tonic::Code::Unavailable,
        "draining",
        details,
    );
    model.seen(Ok(Seen::Lost(draining)), now);
    assert_eq!(model.link, Link::Draining);
    model.stats(Err(lost()), now);
    assert!(matches!(model.link, Link::Lost { .. }));
}

#[test]
fn a_drain_of_another_run_is_history() {
    let now = Instant::now();
    let draining = |seconds| {
        let time = Some(prost_types::Timestamp { seconds, nanos: 0 });
        let event = Event { time, r#type: EventType::Draining.into(), ..Event::default() };
        Ok(Seen::Events(Batch { events: vec![event], ..Batch::default() }))
    };
    let mut model = model();
    model.stats(Ok(stats(1, 100)), now);
    model.seen(draining(99), now);
    assert_eq!(model.link, Link::Up);
    model.seen(draining(101), now);
    assert_eq!(model.link, Link::Draining);
    model.stats(Ok(stats(1, 102)), now);
    assert_eq!(model.link, Link::Up);
    let mut held = stats(1, 102);
    held.queues[0].block = QueueBlock::Draining.into();
    model.stats(Ok(held), now);
    assert_eq!(model.link, Link::Draining);
}

#[test]
fn a_refusal_is_no_outage() {
    let now = Instant::now();
    let mut model = model();
    model.seen(Err(Status::resource_exhausted("too many watchers")), now);
    assert_eq!((&model.link, model.no_events.as_deref()), (&Link::Up, Some("too many watchers")));
    model.seen(Ok(Seen::Started), now);
    assert_eq!(model.no_events, None);
    model.stats(Err(Status::permission_denied("not you")), now);
    assert_eq!(model.link, Link::Refused("not you".into()));
}

#[test]
fn only_queues_that_are_wanted_are_kept() {
    let mut model = Model::new("a:1", vec!["q3".into(), "nosuch".into()]);
    model.stats(Ok(stats(50, 1)), Instant::now());
    let names: Vec<_> = model.picture().stats.queues.iter().map(|q| q.queue.as_str()).collect();
    assert_eq!(names, ["q3"]);
}

#[test]
fn the_rate_of_events_is_measured_between_figures() {
    let begun = Instant::now();
    let mut model = Model::new("a:1", Vec::new());
    model.stats(Ok(stats(1, 1)), begun);
    model.seen(Ok(events(0..500)), begun);
    model.stats(Ok(stats(1, 1)), begun + Duration::from_millis(100));
    assert!(model.picture().event_rate.abs() < f64::EPSILON, "too soon to tell");
    model.stats(Ok(stats(1, 1)), begun + Duration::from_secs(2));
    assert!((model.picture().event_rate - 250.0).abs() < f64::EPSILON);
    model.stats(Err(lost()), begun + Duration::from_secs(3));
    assert!(model.picture().event_rate.abs() < f64::EPSILON);
}
