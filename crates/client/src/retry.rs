//! Trying again: for how long, with which backoffs in between, and on which answers.

use std::{
    ops::{ControlFlow, Range},
    time::Duration,
};

use rand::Rng as _;
use tokio::time::Instant;
use tonic::{Response, Status};

use super::status::{Pushback, is_lost, pushback};

/// How long to try again when a call found no server or a draining one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallRetryPolicy {
    /// No try begins later than this after the first one that failed in an outage.
    max_elapsed: Duration,
}

impl CallRetryPolicy {
    /// For somebody who waits at the prompt: 4.5 s, which is five answers of a server that
    /// drains.
    pub const BRIEF: Self = Self { max_elapsed: Duration::from_millis(4_500) };
    /// For what should survive a drain and a restart of the server: 1 min, as a watch.
    pub const PATIENT: Self = Self { max_elapsed: Duration::from_mins(1) };

    /// A try that stood for longer than this, as one that waited for room or for the end
    /// of a task, did not fail in the outage before it: the next one begins with it.
    const STOOD: Duration = Self::PATIENT.max_elapsed;

    /// A longer pushback of the server ends the tries: people want to know.
    const LONGEST_PUSHBACK: Duration = Duration::from_secs(30);

    /// Calls until there is an answer. Only to be used for what may safely be
    /// repeated.
    ///
    /// # Errors
    /// The last status.
    pub async fn call<T, Answer>(self, call: impl FnMut() -> Answer) -> Result<T, Status>
    where
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        self.call_until(None, call).await
    }

    /// [`Self::call`], of which no call begins after that moment.
    pub(super) async fn call_until<T, Answer>(
        self,
        end: Option<Instant>,
        mut call: impl FnMut() -> Answer,
    ) -> Result<T, Status>
    where
        Answer: Future<Output = Result<Response<T>, Status>>,
    {
        let mut failures = 0;
        let mut since = None;
        loop {
            let begun = Instant::now();
            let status = match call().await {
                Ok(response) => return Ok(response.into_inner()),
                Err(status) => status,
            };
            if begun.elapsed() > Self::STOOD {
                failures = 0;
                since = None;
            }
            failures += 1;
            let lasts = since.get_or_insert_with(Instant::now).elapsed();
            match self.after(failures, lasts, &status) {
                ControlFlow::Continue(delay)
                    if end.is_none_or(|end| Instant::now() + delay < end) =>
                {
                    tokio::time::sleep(delay).await;
                }
                _ => return Err(status),
            }
        }
    }

    /// [`Self::call`] of one method with one request, as often as it takes.
    ///
    /// # Errors
    /// The last status.
    pub async fn ask<Client: Clone, Request: Clone, T>(
        self,
        client: &Client,
        request: &Request,
        method: impl AsyncFn(Client, Request) -> Result<Response<T>, Status>,
    ) -> Result<T, Status> {
        self.call(|| method(client.clone(), request.clone())).await
    }

    /// Whether to try again after this many failures, the first of which was so long
    /// ago, and after which backoff.
    fn after(self, failures: u32, lasts: Duration, status: &Status) -> ControlFlow<(), Duration> {
        let delay = match pushback(status) {
            _ if !is_lost(status) => return ControlFlow::Break(()),
            Pushback::Unsaid => backoff(failures),
            Pushback::After(asked) if asked <= Self::LONGEST_PUSHBACK => {
                asked.max(Duration::from_millis(10))
            }
            Pushback::After(_) | Pushback::Never => return ControlFlow::Break(()),
        };
        if lasts + delay > self.max_elapsed {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(delay)
    }
}

/// The backoff after so many failures in a row: doubles from 100 ms up to 5 s, of
/// which between half and all is taken, so that many clients spread.
pub fn backoff(failures: u32) -> Duration {
    rand::rng().random_range(backoff_range(failures))
}

fn backoff_range(failures: u32) -> Range<Duration> {
    let doublings = failures.saturating_sub(1).min(10);
    let whole = Duration::from_millis(100 << doublings).min(Duration::from_secs(5));
    whole / 2..whole
}

/// A random request id, in the form of a version 4 UUID: with it, repeating a
/// submission whose outcome is unknown is safe.
pub fn new_request_id() -> String {
    let random: u128 = rand::rng().random();
    let versioned = random & !(0xf << 76) | 0x4 << 76;
    let hex = format!("{:032x}", versioned & !(0x3 << 62) | 0x2 << 62);
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

    use super::*;

    #[test]
    fn backoffs_grow_and_are_bounded() {
        let ms = Duration::from_millis;
        assert_eq!(backoff_range(1), ms(50)..ms(100));
        assert_eq!(backoff_range(3), ms(200)..ms(400));
        assert_eq!(backoff_range(1000), ms(2500)..ms(5000));
    }

    #[test]
    fn only_lost_calls_are_repeated() {
        let after = |status| CallRetryPolicy::BRIEF.after(1, Duration::ZERO, &status);
        assert!(after(Status::unavailable("")).is_continue());
        assert!(after(Status::invalid_argument("")).is_break());
        assert!(after(Status::resource_exhausted("")).is_break());
    }

    #[test]
    fn a_pushback_is_honoured() {
        let mut status = Status::unavailable("");
        let mut push = |value: &'static str| {
            let value = tonic::metadata::MetadataValue::from_static(value);
            status.metadata_mut().insert("grpc-retry-pushback-ms", value);
            CallRetryPolicy::BRIEF.after(1, Duration::ZERO, &status)
        };
        assert_eq!(push("700"), ControlFlow::Continue(Duration::from_millis(700)));
        assert_eq!(push("-1"), ControlFlow::Break(()));
        assert_eq!(push("3600000"), ControlFlow::Break(()));
    }

    /// A server that drains for half a minute, and is back a moment after.
    #[tokio::test(start_paused = true)]
    async fn a_drain_is_waited_for_and_its_end_is_noticed() {
        let mut draining = Status::unavailable("draining");
        let a_second = tonic::metadata::MetadataValue::from_static("1000");
        draining.metadata_mut().insert("grpc-retry-pushback-ms", a_second);
        let begun = Instant::now();
        let answer = CallRetryPolicy::PATIENT
            .call(|| {
                std::future::ready(match begun.elapsed().as_secs() {
                    0..30 => Err(draining.clone()),
                    30..40 => Err(Status::unavailable("nobody")),
                    seconds => Ok(Response::new(seconds)),
                })
            })
            .await;
        let seconds = answer.expect("an answer");
        assert!((40..46).contains(&seconds), "{seconds} s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_stood_for_long_ends_the_outage_before_it() {
        let calls = AtomicU32::new(0);
        let call = async || {
            let call = calls.fetch_add(1, Relaxed);
            if call % 3 == 2 {
                tokio::time::sleep(Duration::from_secs(100)).await;
            }
            if call < 12 { Err(Status::unavailable("lost")) } else { Ok(Response::new(call)) }
        };
        let answer = CallRetryPolicy::PATIENT.call(call).await;
        assert_eq!(answer.expect("an answer"), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_command_asks_a_draining_server_five_times() {
        let mut draining = Status::unavailable("draining");
        let a_second = tonic::metadata::MetadataValue::from_static("1000");
        draining.metadata_mut().insert("grpc-retry-pushback-ms", a_second);
        let calls = AtomicU32::new(0);
        let call = || {
            calls.fetch_add(1, Relaxed);
            std::future::ready(Err::<Response<()>, _>(draining.clone()))
        };
        CallRetryPolicy::BRIEF.call(call).await.expect_err("it drains for longer");
        assert_eq!(calls.into_inner(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_for_tries_ends() {
        let begun = Instant::now();
        let calls = AtomicU32::new(0);
        let answer: Result<(), _> = CallRetryPolicy::PATIENT
            .call(|| {
                calls.fetch_add(1, Relaxed);
                std::future::ready(Err(Status::unavailable("nobody")))
            })
            .await;
        assert_eq!(answer.expect_err("nobody").message(), "nobody");
        let lasted = begun.elapsed();
        assert!(lasted > Duration::from_secs(54) && lasted <= Duration::from_mins(1), "{lasted:?}");
        assert!((15..40).contains(&calls.into_inner()));
    }

    #[tokio::test]
    async fn a_call_is_repeated_until_it_is_answered() {
        let mut soon = Status::unavailable("");
        let at_once = tonic::metadata::MetadataValue::from_static("0");
        soon.metadata_mut().insert("grpc-retry-pushback-ms", at_once);
        let mut calls = 0;
        let answer = CallRetryPolicy::BRIEF
            .call(|| {
                calls += 1;
                std::future::ready(match calls {
                    3 => Ok(Response::new(calls)),
                    _ => Err(soon.clone()),
                })
            })
            .await;
        assert_eq!(answer.ok(), Some(3));
    }

    #[test]
    fn request_ids_are_version_4_uuids() {
        let id = new_request_id();
        let form: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(form, [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
        assert_ne!(id, new_request_id());
    }
}
