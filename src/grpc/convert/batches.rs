//! A `SubmitBatchRequest`, checked as a whole; its requests are checked one by
//! one, as those of other calls are.

use std::collections::HashMap;

use super::Checks;
use crate::{
    grpc::request::{BoundedSubmitBatchRequest, MAX_REQUESTS},
    handler::Violation,
};

/// Checks what a batch must be whatever is in it.
///
/// # Errors
/// Everything that is wrong with it.
pub fn batch(given: &BoundedSubmitBatchRequest) -> Result<(), Vec<Violation>> {
    let BoundedSubmitBatchRequest { requests, left_out, .. } = given;
    let mut checks = Checks::default();
    if requests.is_empty() {
        checks.wrong("requests", "is empty");
    }
    let sent = requests.len() + left_out;
    if sent > MAX_REQUESTS {
        checks.wrong("requests", format!("there are {sent}; at most {MAX_REQUESTS}"));
        return checks.finish(());
    }
    let mut known = HashMap::with_capacity(requests.len());
    for (at, request) in requests.iter().enumerate() {
        if request.request_id.is_empty() {
            continue;
        }
        if let Some(first) = known.get(request.request_id.as_str()) {
            let wrong = format!("is that of requests[{first}], too");
            checks.wrong(&format!("requests[{at}].request_id"), wrong);
        } else {
            known.insert(request.request_id.as_str(), at);
        }
    }
    checks.finish(())
}

/// What is wrong with the request at `at`, as the batch names it.
pub fn of_request(at: usize, wrong: Vec<Violation>) -> impl Iterator<Item = Violation> {
    wrong.into_iter().map(move |Violation { field, description }| Violation {
        field: format!("requests[{at}].{field}"),
        description,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1;

    fn requests(ids: &[&str]) -> Vec<v1::SubmitRequest> {
        let request =
            |id: &&str| v1::SubmitRequest { request_id: (*id).into(), ..Default::default() };
        ids.iter().map(request).collect()
    }

    fn wrong(requests: Vec<v1::SubmitRequest>) -> Vec<String> {
        told(&BoundedSubmitBatchRequest { requests, ..Default::default() })
    }

    fn told(batch: &BoundedSubmitBatchRequest) -> Vec<String> {
        let wrong = super::batch(batch).err().unwrap_or_default();
        wrong.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn every_repeated_id_is_named() {
        assert_eq!(wrong(requests(&["", "", "a", "b"])), [""; 0]);
        let repeated = wrong(requests(&["a", "", "b", "a", "b", "a"]));
        assert_eq!(
            repeated,
            ["requests[3].request_id", "requests[4].request_id", "requests[5].request_id"]
        );
    }

    #[test]
    fn a_batch_has_one_to_a_thousand_requests() {
        assert_eq!(wrong(vec![]), ["requests"]);
        assert_eq!(wrong(requests(&[""; MAX_REQUESTS])), [""; 0]);
        let (requests, atomic) = (requests(&[""; MAX_REQUESTS]), true);
        let more = BoundedSubmitBatchRequest { requests, left_out: 1, atomic };
        assert_eq!(told(&more), ["requests"]);
    }
}
