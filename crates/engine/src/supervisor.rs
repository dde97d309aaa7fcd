//! What must live for the server to live: its threads and its long tasks.
//!
//! Owns the one terminal error: that a part of the server has ended by a panic, which
//! part, and why. Whoever answers callers looks here, or is told by the server, so that
//! nobody mistakes a defect for an orderly end. Must not know what the parts do.
//!
//! A part is supervised if the server is of no use, or not to be trusted, without it:
//! the owner of the state, the accept loop, a worker. What belongs to one caller (a
//! question to a reader, a call, a connection) is not: its panic is answered to that
//! caller, where that is possible, and logged.

use std::{
    any::Any,
    fmt, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use futures_util::FutureExt as _;
use tokio::sync::watch;

/// A part of the server has failed, and with it the server. Shown as a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    part: Arc<str>,
    cause: Arc<str>,
}

impl Failure {
    /// Which thread or task.
    #[must_use]
    pub fn part(&self) -> &str {
        &self.part
    }

    /// What its panic said.
    #[must_use]
    pub fn cause(&self) -> &str {
        &self.cause
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} panicked: {}", self.part, self.cause)
    }
}

impl std::error::Error for Failure {}

/// Runs the parts, and knows the first of them that failed. Clones are the same.
#[derive(Clone, Debug)]
pub struct Supervisor {
    failure: Arc<watch::Sender<Option<Failure>>>,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self { failure: Arc::new(watch::Sender::new(None)) }
    }
}

impl Supervisor {
    /// Runs a part on a thread of its own. It may end by returning.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn thread(
        &self,
        name: impl Into<String>,
        part: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let (name, supervisor) = (name.into(), self.clone());
        let thread = thread::Builder::new().name(name.clone());
        thread.spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(part)) {
                supervisor.fail(&name, &*panic);
            }
        })?;
        Ok(())
    }

    /// A part that is a task: to be spawned by its owner, who may also drop it.
    pub fn task<N: Into<String>, P: Future<Output = ()> + Send>(
        &self,
        name: N,
        part: P,
    ) -> impl Future<Output = ()> + Send + use<N, P> {
        let (name, supervisor) = (name.into(), self.clone());
        async move {
            if let Err(panic) = AssertUnwindSafe(part).catch_unwind().await {
                supervisor.fail(&name, &*panic);
            }
        }
    }

    /// A part has failed with this panic. Only the first failure is told to others:
    /// what fails after it may fail because of it.
    pub fn fail(&self, part: &str, panic: &(dyn Any + Send)) {
        let failure = Failure { part: part.into(), cause: message_of(panic).into() };
        tracing::error!(part, cause = %failure.cause, "the server has failed and ends");
        self.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                *first = Some(failure);
            }
            is_first
        });
    }

    /// The failure, if there is one.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        self.failure.borrow().clone()
    }

    /// Returns once a part has failed.
    pub fn failed(&self) -> impl Future<Output = Failure> + Send + use<> {
        let mut failure = self.failure.subscribe();
        async move {
            let failed = failure.wait_for(Option::is_some).await;
            let failed = failed.ok().and_then(|failure| failure.clone());
            match failed {
                Some(failure) => failure,
                // Nobody is left who could fail.
                None => std::future::pending().await,
            }
        }
    }
}

/// What a panic says.
#[must_use]
pub fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_is_what_everybody_hears() {
        let supervisor = Supervisor::default();
        let failed = supervisor.failed();
        supervisor.task("orderly", async {}).await;
        assert_eq!(supervisor.failure(), None);
        supervisor.task("first", async { panic!("a {}", "reason") }).await;
        supervisor.task("second", async { panic!("another") }).await;
        assert_eq!(failed.await.to_string(), "first panicked: a reason");
        assert_eq!(supervisor.failed().await.part(), "first", "also who asks later");
    }

    #[tokio::test]
    async fn a_thread_is_a_part() {
        let supervisor = Supervisor::default();
        supervisor.thread("orderly", || {}).expect("it starts");
        supervisor.thread("store", || panic!("torn")).expect("it starts");
        let failure = supervisor.failed().await;
        assert_eq!((failure.part(), failure.cause()), ("store", "torn"));
    }
}
