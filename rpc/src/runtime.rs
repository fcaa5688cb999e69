//! Which executor carries the transport's tasks, sockets and timers.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use quinn::AsyncTimer;

/// A handle to the executor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Runtime {
    inner: Arc<dyn quinn::Runtime>,
}

impl Runtime {
    /// The glommio executor of the current thread. Everything made with it stays on this thread.
    ///
    /// # Panics
    ///
    /// When it is used outside a glommio executor.
    #[cfg(feature = "glommio")]
    pub fn glommio() -> Runtime {
        Runtime { inner: Arc::new(crate::glommio_runtime::GlommioRuntime) }
    }

    /// The tokio runtime of the current context.
    ///
    /// # Panics
    ///
    /// When it is used outside a tokio runtime.
    #[cfg(feature = "tokio")]
    pub fn tokio() -> Runtime {
        Runtime { inner: Arc::new(crate::tokio_runtime::TokioRuntime) }
    }

    /// Runs the future to its end in the background.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        self.inner.spawn(Box::pin(future));
    }

    /// Completes at `deadline`, at once if it has passed.
    pub fn sleep_until(&self, deadline: Instant) -> Sleep {
        Sleep { timer: self.inner.new_timer(deadline) }
    }

    /// The executor's clock.
    pub fn now(&self) -> Instant {
        self.inner.now()
    }

    /// `future`'s output, or `None` if the deadline passes first.
    pub async fn timeout_at<F: Future>(&self, deadline: Instant, future: F) -> Option<F::Output> {
        use futures_util::future::{Either, select};
        let future = std::pin::pin!(future);
        match select(future, self.sleep_until(deadline)).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }

    pub(crate) fn quinn(&self) -> Arc<dyn quinn::Runtime> {
        Arc::clone(&self.inner)
    }
}

/// A timer. See [`Runtime::sleep_until`].
#[derive(Debug)]
pub struct Sleep {
    timer: Pin<Box<dyn AsyncTimer>>,
}

impl Sleep {
    /// Moves the deadline.
    pub fn reset(&mut self, deadline: Instant) {
        self.timer.as_mut().reset(deadline);
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll(context)
    }
}
