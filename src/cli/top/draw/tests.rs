//! Pictures of a fixed service, as text.

use std::time::Duration;

use ratatui::{Terminal, backend::TestBackend};
use tonic::Status;

use super::{
    super::keys::{Command, Scroll},
    *,
};
use crate::{
    client::{Batch, Seen},
    proto::v1::{
        CrewStats, Event, EventType, Execution, GetPoolResponse, GetStatsResponse, Pool,
        QueueBlock, QueueStats, SizingAdvice, TaskCounts, Worker,
    },
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
        crew: Some(CrewStats {
            workers: 8,
            busy_workers: 6,
            busy_share: 0.74,
            arrival_rate: 12.34,
            completion_rate: 11.9,
            counts: Some(counts),
            ..CrewStats::default()
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

fn seen(events: Vec<Event>) -> Result<Seen, Status> {
    Ok(Seen::Events(Batch { events, ..Batch::default() }))
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
    model.pool(Ok(GetPoolResponse { pool: Some(Pool { size: 8, workers }) }));
    let events = vec![
        event(EventType::Submitted, "", None),
        event(EventType::Started, "worker-3", None),
        event(EventType::Succeeded, "worker-3", Some(412)),
        Event { queue: "mail".into(), r#type: EventType::QueuePaused.into(), ..Event::default() },
    ];
    model.seen(seen(events), now);
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
fn print() {
    let now = Instant::now();
    for (w, h) in [(80, 24), (120, 40), (40, 10), (20, 5)] {
        eprintln!("{}", drawn(&model(now), now, w, h));
    }
    let mut m = model(now);
    m.command(Command::Help);
    eprintln!("{}", drawn(&m, now, 80, 24));
    m.command(Command::Scroll(Scroll::Up));
}
