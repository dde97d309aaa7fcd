//! The task service through a real client.

mod support;

use support::{Watch, Yard, sleep, submit, wait};
use taskyard::proto::v1::{EventType, TaskState};

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_submitted_run_and_watched() {
    let yard = Yard::start().await;
    let mut client = yard.client().await;
    let mut watch = Watch::oldest(&mut client).await;
    let submitted = submit(&mut client, sleep("1ms")).await;
    let ended = wait(&mut client, &submitted.task_id).await;
    assert_eq!(ended.state(), TaskState::Succeeded);
    assert_eq!(ended.attempt, 1);

    let of_task = EventType::Submitted;
    let first = watch.until(of_task).await;
    let second = watch.event().await;
    let third = watch.event().await;
    assert_eq!(
        [first.r#type(), second.r#type(), third.r#type()],
        [EventType::Submitted, EventType::Started, EventType::Succeeded]
    );
    assert_eq!(third.worker, ended.worker);
    assert!(third.ran.is_some() && third.waited.is_some());
    let (report, _) = yard.drain().await;
    assert!(report.complete, "{report:?}");
}
