//! `sleep`: succeeds after a while. For trying things out, and for tests that
//! need a task which runs.

use std::time::Duration;

use taskyard_text::{quoted, units};

use super::{Error, Execution, Handler, Output, Violation, args};
use crate::task::Data;

/// Waits for `args.duration`, a text such as `1.5s` or `1h 30m`, required, from
/// 0 to [`Sleep::MAX`]. No other argument is taken.
///
/// When it is cancelled it returns at once, with the retryable reason `CANCELLED`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sleep;

impl Sleep {
    /// The longest sleep: 24 hours.
    pub const MAX: Duration = Duration::from_hours(24);
}

impl Handler for Sleep {
    fn check(&self, payload: &Data) -> Result<(), Vec<Violation>> {
        duration(payload).map(drop)
    }

    fn check_may_block(&self) -> bool {
        false
    }

    async fn run(&self, execution: Execution) -> Result<Output, Error> {
        let duration = duration(&execution.payload).map_err(|wrong| args::refused(&wrong))?;
        tokio::select! {
            biased;
            () = execution.cancelled() => {
                Err(Error::retryable("CANCELLED", "stopped before its time was over"))
            }
            () = tokio::time::sleep(duration) => Ok(Output::empty()),
        }
    }
}

/// How long the payload asks to sleep, or all that is wrong with it.
fn duration(payload: &Data) -> Result<Duration, Vec<Violation>> {
    let mut args = args::object(payload)?;
    let duration = args::required_string(args.remove("duration"), "args.duration", "1.5s")
        .and_then(|text| within_bounds(&text));
    let unknown = args::unknown("args", args.keys(), &["duration"]);
    match duration {
        Ok(duration) if unknown.is_empty() => Ok(duration),
        duration => Err(duration.err().into_iter().chain(unknown).collect()),
    }
}

fn within_bounds(text: &str) -> Result<Duration, Violation> {
    match units::parse_duration(text) {
        Ok(duration) if duration <= Sleep::MAX => Ok(duration),
        Ok(_) => Err(format!("{} is too long; write a duration from 0s to 24h", quoted(text))),
        Err(wrong) => Err(wrong.to_string()),
    }
    .map_err(|wrong| Violation::new("args.duration", wrong))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handler::args::testing::execution;

    fn fields(args: &str) -> Vec<String> {
        let violations = Sleep.check(&Data::Json(args.into())).expect_err("refused");
        violations.into_iter().map(|violation| violation.field).collect()
    }

    #[test]
    fn a_duration_within_bounds_is_accepted() {
        for text in ["0s", "1.5s", "1h 30m", "24h"] {
            let args = format!(r#"{{"duration":"{text}"}}"#);
            assert_eq!(Sleep.check(&Data::Json(args.into())), Ok(()), "{text}");
        }
    }

    #[test]
    fn every_other_duration_is_refused_by_name() {
        for duration in [r#""-1s""#, r#""24h 1ns""#, r#""soon""#, r#""30""#, "30", "null", "[]"] {
            assert_eq!(fields(&format!(r#"{{"duration":{duration}}}"#)), ["args.duration"]);
        }
        assert_eq!(fields("{}"), ["args.duration"]);
    }

    #[test]
    fn all_that_is_wrong_is_said_at_once() {
        let args = r#"{"duration":"-1s","a":1,"b":2}"#;
        assert_eq!(fields(args), ["args.duration", "args.a", "args.b"]);
        assert_eq!(fields(r#"{"duration":"1s","durration":"1s"}"#), ["args.durration"]);
    }

    #[test]
    fn a_payload_without_args_is_refused() {
        assert!(Sleep.check(&Data::Empty).is_err());
        assert!(Sleep.check(&Data::Bytes("1s".into())).is_err());
        assert_eq!(fields(r#""1s""#), ["args"]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_sleeps_exactly_so_long() {
        let start = tokio::time::Instant::now();
        let output = Sleep.run(execution(r#"{"duration":"1h 30m"}"#)).await;
        assert_eq!(output, Ok(Output::empty()));
        assert_eq!(start.elapsed().as_secs(), 90 * 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancelled_sleep_returns_at_once() {
        let start = tokio::time::Instant::now();
        let execution = execution(r#"{"duration":"24h"}"#);
        let cancel = execution.cancel.clone();
        let (result, ()) = tokio::join!(Sleep.run(execution), async { cancel.cancel() });
        let error = result.expect_err("cancelled");
        assert_eq!((error.failure.reason.as_str(), error.permanent), ("CANCELLED", false));
        assert!(start.elapsed().is_zero());
    }
}
