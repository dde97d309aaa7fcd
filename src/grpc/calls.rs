//! Calls that can be ended from outside of them.
//!
//! A response whose client does not read is not asked for its next message, so it
//! cannot end by itself, and what HTTP/2 keeps of it stays. Cutting its call drops
//! both: the client is told by a reset of the stream.

use std::{
    cell::OnceCell,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;

tokio::task_local! {
    /// Made by the first who wants to end the call, so that others pay nothing.
    static CALL: OnceCell<Arc<Call>>;
}

/// One call of a client, with its response.
#[derive(Debug, Default)]
pub struct Call {
    is_cut: AtomicBool,
    waker: AtomicWaker,
}

impl Call {
    /// The call that is being served; `None` outside of a connection.
    pub fn current() -> Option<Arc<Self>> {
        CALL.try_with(|call| Arc::clone(call.get_or_init(Arc::default))).ok()
    }

    /// Ends it, wherever it stands.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::Release);
        self.waker.wake();
    }

    fn poll_cut(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.is_cut.load(Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Serves a call: runs `future` to its end, or until the call is cut.
pub async fn serve(future: impl Future) {
    let mut future = pin!(future);
    let served = poll_fn(|cx| {
        if future.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        CALL.with(|call| call.get().map_or(Poll::Pending, |call| call.poll_cut(cx)))
    });
    CALL.scope(OnceCell::new(), served).await;
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn a_call_ends_when_it_is_cut() {
        let (told, call) = tokio::sync::oneshot::channel();
        let served = tokio::spawn(serve(async move {
            drop(told.send(Call::current()));
            std::future::pending::<()>().await;
        }));
        call.await.unwrap().expect("a call").cut();
        tokio::time::timeout(std::time::Duration::from_mins(1), served)
            .await
            .expect("it does not end")
            .unwrap();
    }

    #[test]
    fn a_call_that_ends_by_itself_needs_nobody() {
        assert_eq!(serve(async {}).now_or_never(), Some(()));
        assert!(Call::current().is_none(), "outside of a call");
    }
}
