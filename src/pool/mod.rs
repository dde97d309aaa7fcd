//! The crew: a fixed number of workers that execute tasks.
//!
//! Owns the workers, timeouts, cancellation, and turning whatever a handler
//! does (return, fail, panic, hang) into an outcome. Must not know RPC, SQL or
//! who is watching. A worker takes its next task only when it has a free hand,
//! so a task that waits is always waiting in the store.

mod retry;
mod worker;

use std::{num::NonZeroU32, sync::Arc, time::Duration};

use tokio::{task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{handler::Registry, store::Store, task::WorkerId};

use worker::{Tally, Worker};

/// How the crew behaves.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Workers in the crew.
    pub workers: NonZeroU32,
    /// How long a signalled handler has to return before it is dropped.
    pub cancel_grace: Duration,
    /// Bytes of a result; a larger one fails the task.
    pub max_result: usize,
}

/// The workers of one server.
#[derive(Debug)]
pub struct Pool {
    crew: JoinSet<()>,
    tally: Arc<Tally>,
    interrupt: CancellationToken,
    stop_handlers: CancellationToken,
}

/// How the executions ended that ran when a drain began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// By themselves.
    pub finished: u64,
    /// By the drain; their tasks run again at the next start.
    pub interrupted: u64,
    /// Not at all: the handler blocks its thread. Recovery deals with them.
    pub stuck: usize,
}

impl Pool {
    /// Starts the workers. Each is a tokio task, joined by [`Pool::drain`].
    #[must_use]
    pub fn start(store: &Arc<dyn Store>, registry: &Arc<Registry>, settings: Settings) -> Self {
        let tally = Arc::new(Tally::default());
        let interrupt = CancellationToken::new();
        let stop_handlers = CancellationToken::new();
        let mut crew = JoinSet::new();
        for number in 1..=settings.workers.get() {
            let worker = Worker {
                id: WorkerId(number),
                store: Arc::clone(store),
                registry: Arc::clone(registry),
                settings,
                tally: Arc::clone(&tally),
                interrupt: interrupt.clone(),
                stop_handlers: stop_handlers.clone(),
            };
            crew.spawn(worker.run());
        }
        Self { crew, tally, interrupt, stop_handlers }
    }

    /// From now on, how executions end counts for the report of a drain.
    pub fn begin_drain(&self) {
        self.tally.begin_drain();
    }

    /// Waits for the workers to leave, which they do when the store answers
    /// their turn with [`crate::store::Turn::Stop`]. Executions that still run
    /// at `interrupt_at` are signalled, and dropped at `stop_at`; whatever has
    /// not ended by `give_up_at` is left behind.
    pub async fn drain(
        mut self,
        interrupt_at: Instant,
        stop_at: Instant,
        give_up_at: Instant,
    ) -> Drained {
        for (deadline, then) in [
            (interrupt_at, Some(&self.interrupt)),
            (stop_at, Some(&self.stop_handlers)),
            (give_up_at, None),
        ] {
            let all_left = async { while self.crew.join_next().await.is_some() {} };
            if tokio::time::timeout_at(deadline, all_left).await.is_ok() {
                break;
            }
            if let Some(signal) = then {
                signal.cancel();
            }
        }
        let (finished, interrupted) = self.tally.ended_in_drain();
        Drained { finished, interrupted, stuck: self.crew.len() }
    }
}
