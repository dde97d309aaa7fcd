//! Names that exist nowhere: a mistyped one is told, rather than answered with nothing.
//!
//! Owns the looking up and the wording. Must not know what the names are for.

use taskyard_client::{Admin, CallRetryPolicy, Client, Tasks};
use taskyard_proto::v1::{ListKindsRequest, ListQueuesRequest, ListQueuesResponse};
use taskyard_text::{closest, quoted};

use super::output::{note, printable};

/// Queues among which one is looked for that was meant: as many as a page has.
const LOOKED_AT: i32 = 1_000;

/// Tells which of these queues and kinds do not exist. That is no error: a queue comes into
/// being with its first task, and tasks may be of a kind that the server had once. What the
/// server has against it will be told by the call that this goes before.
pub async fn say_unknown(client: &Client, queues: &[String], kinds: &[String]) {
    for queue in queues {
        if let Some(told) = unknown_queue(&client.admin(), queue).await {
            note(told);
        }
    }
    if kinds.is_empty() {
        return;
    }
    let ask = async |mut client: Tasks, request| client.list_kinds(request).await;
    let response = CallRetryPolicy::BRIEF.ask(&client.tasks(), &ListKindsRequest {}, ask).await;
    let Ok(response) = response else { return };
    let known: Vec<_> = response.kinds.iter().map(|kind| kind.kind.as_str()).collect();
    for kind in kinds.iter().filter(|kind| !known.contains(&kind.as_str())) {
        let meant = did_you_mean(kind, known.iter().copied());
        note(format!("the server has no kind {}{meant}", quoted(kind)));
    }
}

/// What to tell of a queue that does not exist; `None` if it does, or nobody knows.
pub async fn unknown_queue(admin: &Admin, queue: &str) -> Option<String> {
    let one = ListQueuesRequest { queue: queue.to_owned(), ..Default::default() };
    let found = queues(admin, one).await?;
    if queue.is_empty() || !found.queues.is_empty() {
        return None;
    }
    let page = ListQueuesRequest { page_size: LOOKED_AT, ..Default::default() };
    let others = queues(admin, page).await.unwrap_or_default().queues;
    let meant = did_you_mean(queue, others.iter().map(|other| other.queue.as_str()));
    Some(format!("there is no queue {}{meant}", quoted(queue)))
}

async fn queues(admin: &Admin, request: ListQueuesRequest) -> Option<ListQueuesResponse> {
    let ask = async |mut admin: Admin, request| admin.list_queues(request).await;
    CallRetryPolicy::BRIEF.ask(admin, &request, ask).await.ok()
}

/// `; did you mean mail?`, or nothing.
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    closest(written, known)
        .map(|meant| format!("; did you mean {}?", printable(meant)))
        .unwrap_or_default()
}
