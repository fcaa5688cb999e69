//! quinn on glommio: tasks, timers and (in `glommio_socket`) UDP.
//!
//! quinn wants `Send + Sync` objects; glommio's live on one thread. `SendWrapper` bridges the two honestly: a use from
//! another thread panics, and there is none, because an executor's endpoint, connections and tasks stay on it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use quinn::{AsyncTimer, AsyncUdpSocket};
use send_wrapper::SendWrapper;

use crate::glommio_socket::GlommioSocket;

/// The executor of the current thread.
#[derive(Debug)]
pub(crate) struct GlommioRuntime;

impl quinn::Runtime for GlommioRuntime {
    fn new_timer(&self, deadline: Instant) -> Pin<Box<dyn AsyncTimer>> {
        Box::pin(GlommioTimer { state: SendWrapper::new(TimerState { deadline, armed: None }) })
    }

    fn spawn(&self, future: Pin<Box<dyn Future<Output = ()> + Send>>) {
        glommio::spawn_local(future).detach();
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(Arc::new(GlommioSocket::new(socket)?))
    }
}

/// A timer that is cheap to move.
///
/// quinn moves a connection's timer with nearly every packet, mostly to a later moment. The executor's timer is left
/// where it is then; when it fires early, the poll that follows arms it again. So a moved timer costs a comparison.
#[derive(Debug)]
struct GlommioTimer {
    state: SendWrapper<TimerState>,
}

#[derive(Debug)]
struct TimerState {
    /// When the timer expires.
    deadline: Instant,
    /// The executor's timer, at or before the deadline; `None` if it never was needed.
    armed: Option<Armed>,
}

#[derive(Debug)]
struct Armed {
    timer: glommio::timer::Timer,
    at: Instant,
    waker: Waker,
}

impl AsyncTimer for GlommioTimer {
    fn reset(mut self: Pin<&mut Self>, deadline: Instant) {
        self.state.deadline = deadline;
    }

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let state = &mut *self.state;
        let now = Instant::now();
        if now >= state.deadline {
            return Poll::Ready(());
        }
        if let Some(armed) = &state.armed
            && now < armed.at
            && armed.at <= state.deadline
            && armed.waker.will_wake(context.waker())
        {
            return Poll::Pending;
        }
        state.arm(now, context)
    }
}

impl TimerState {
    fn arm(&mut self, now: Instant, context: &mut Context<'_>) -> Poll<()> {
        let wait = self.deadline.saturating_duration_since(now);
        let armed = match &mut self.armed {
            Some(armed) => {
                armed.timer.reset(wait);
                armed
            }
            None => self.armed.insert(Armed {
                timer: glommio::timer::Timer::new(wait),
                at: self.deadline,
                waker: context.waker().clone(),
            }),
        };
        armed.at = self.deadline;
        armed.waker.clone_from(context.waker());
        Pin::new(&mut armed.timer).poll(context).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn expire(timer: &mut Pin<Box<dyn AsyncTimer>>) -> Instant {
        std::future::poll_fn(|context| timer.as_mut().poll(context)).await;
        Instant::now()
    }

    /// Polls once with the task's waker, so that the executor's timer is armed.
    async fn arm(timer: &mut Pin<Box<dyn AsyncTimer>>) {
        let pending = std::future::poll_fn(|context| Poll::Ready(timer.as_mut().poll(context).is_pending())).await;
        assert!(pending);
    }

    #[test]
    fn a_moved_timer_expires_at_its_last_deadline() {
        let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound);
        let run = || async {
            let start = Instant::now();
            let at = |milliseconds| start + Duration::from_millis(milliseconds);
            let mut timer = quinn::Runtime::new_timer(&GlommioRuntime, at(10));
            arm(&mut timer).await;
            // Later: the executor's timer fires early and is armed again.
            timer.as_mut().reset(at(60));
            assert!(expire(&mut timer).await >= at(60));
            assert!(expire(&mut timer).await >= at(60), "it stays expired");
            // Earlier, and used again after it has expired.
            timer.as_mut().reset(at(60_000));
            arm(&mut timer).await;
            timer.as_mut().reset(at(90));
            let expired = expire(&mut timer).await;
            assert!(expired >= at(90) && expired < at(30_000));
        };
        executor.spawn(run).unwrap().join().unwrap();
    }
}
