//! A UDP socket for quinn on glommio.
//!
//! Data moves through quinn-udp's non-blocking calls, which know segmentation offload in both directions. Waiting goes
//! through the ring, on a duplicate of the descriptor:
//!
//! - readable: one pending `peek_from`. When it completes, the socket is drained until a receive comes back short.
//!   The completed peek is dropped without being polled again: that keeps glommio from trying the next peek as a
//!   system call first, which would fail each time.
//! - writable: after a send that would have blocked, a one-byte datagram to the socket's own address goes through the
//!   ring; it completes when the send buffer has room. quinn drops the byte like any other garbage.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use quinn_udp::{BATCH_SIZE, UdpSocketState};
use send_wrapper::SendWrapper;

use crate::udp::{RECEIVE_SEGMENTS, send_in_pieces};

/// The socket of one endpoint.
pub(crate) struct GlommioSocket {
    inner: SendWrapper<Inner>,
    address: SocketAddr,
}

type RingFuture = Pin<Box<dyn Future<Output = glommio::Result<(), ()>>>>;

struct Inner {
    socket: std::net::UdpSocket,
    state: UdpSocketState,
    /// The duplicate the ring works on.
    ring: Rc<glommio::net::UdpSocket>,
    /// The pending peek.
    peek: RefCell<Option<RingFuture>>,
    peek_done: Arc<PeekDone>,
    peek_waker: Waker,
    /// The last receive came back short, so the socket is empty until the next peek completes.
    drained: Cell<bool>,
    /// The last send would have blocked.
    blocked: Cell<bool>,
}

/// Woken by the ring when the peek completes; remembers that, and wakes quinn's endpoint task.
#[derive(Default)]
struct PeekDone {
    done: AtomicBool,
    task: AtomicWaker,
}

impl Wake for PeekDone {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.done.store(true, Ordering::Release);
        self.task.wake();
    }
}

impl GlommioSocket {
    pub(crate) fn new(socket: std::net::UdpSocket) -> io::Result<GlommioSocket> {
        let state = UdpSocketState::new((&socket).into())?;
        let address = socket.local_addr()?;
        let descriptor = socket.try_clone()?.into_raw_fd();
        // SAFETY: `into_raw_fd` gave up ownership of an open UDP socket, so the new owner is the only one.
        let ring = Rc::new(unsafe { glommio::net::UdpSocket::from_raw_fd(descriptor) });
        let peek_done = Arc::new(PeekDone::default());
        let peek_waker = Waker::from(Arc::clone(&peek_done));
        let inner = Inner {
            socket,
            state,
            ring,
            peek: RefCell::new(None),
            peek_done,
            peek_waker,
            drained: Cell::new(false),
            blocked: Cell::new(false),
        };
        Ok(GlommioSocket { inner: SendWrapper::new(inner), address })
    }

    /// Where a datagram to ourselves goes.
    fn own_address(&self) -> SocketAddr {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        SocketAddr::new(ip, self.address.port())
    }
}

impl Inner {
    /// Ready when the socket may hold something; else registers the task.
    fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut peek = self.peek.borrow_mut();
        if peek.is_none() {
            self.peek_done.done.store(false, Ordering::Release);
            match self.start_peek() {
                Ok(Some(pending)) => *peek = Some(pending),
                Ok(None) => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        self.peek_done.task.register(context.waker());
        if !self.peek_done.done.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        *peek = None;
        Poll::Ready(Ok(()))
    }

    /// Hands a peek to the ring. `None`: there is something already.
    fn start_peek(&self) -> io::Result<Option<RingFuture>> {
        let ring = Rc::clone(&self.ring);
        let mut peek: RingFuture = Box::pin(async move {
            let mut byte = [0];
            ring.peek_from(&mut byte).await.map(|_| ())
        });
        match peek.as_mut().poll(&mut Context::from_waker(&self.peek_waker)) {
            Poll::Pending => Ok(Some(peek)),
            Poll::Ready(Ok(())) => Ok(None),
            Poll::Ready(Err(error)) => Err(error.into()),
        }
    }

    fn receive(&self, buffers: &mut [IoSliceMut<'_>], meta: &mut [RecvMeta]) -> io::Result<usize> {
        let received = self.state.recv((&self.socket).into(), buffers, meta);
        match &received {
            Ok(datagrams) => self.drained.set(*datagrams < buffers.len().min(BATCH_SIZE)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.drained.set(true),
            Err(_) => {}
        }
        received
    }
}

impl AsyncUdpSocket for GlommioSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(WritablePoller { socket: self, probe: SendWrapper::new(None) })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let inner = &*self.inner;
        let sent = send_in_pieces(transmit, |piece| inner.state.send((&inner.socket).into(), piece));
        let blocked = matches!(&sent, Err(error) if error.kind() == ErrorKind::WouldBlock);
        inner.blocked.set(blocked);
        sent
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let inner = &*self.inner;
        loop {
            if inner.drained.get() {
                match inner.poll_readable(context) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Ready(Ok(())) => inner.drained.set(false),
                }
            }
            match inner.receive(buffers, meta) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // ICMP messages surface here. They may be forged, and QUIC has its own timeouts.
                Err(error) if is_about_a_peer(error.kind()) => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.state.gro_segments().min(RECEIVE_SEGMENTS)
    }

    fn may_fragment(&self) -> bool {
        self.inner.state.may_fragment()
    }
}

fn is_about_a_peer(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
    )
}

impl fmt::Debug for GlommioSocket {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("GlommioSocket").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Waits for room in the send buffer, for one connection.
struct WritablePoller {
    socket: Arc<GlommioSocket>,
    probe: SendWrapper<Option<RingFuture>>,
}

impl UdpPoller for WritablePoller {
    fn poll_writable(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let inner = &*this.socket.inner;
        if !inner.blocked.get() {
            *this.probe = None;
            return Poll::Ready(Ok(()));
        }
        let own_address = this.socket.own_address();
        let probe = this.probe.get_or_insert_with(|| {
            let ring = Rc::clone(&inner.ring);
            Box::pin(async move { ring.send_to(&[0], own_address).await.map(|_| ()) })
        });
        if probe.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        // Also after an error: the send that follows will tell.
        *this.probe = None;
        inner.blocked.set(false);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for WritablePoller {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("WritablePoller").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn on_executor<F: Future<Output = ()> + 'static>(test: impl FnOnce() -> F + Send + 'static) {
        glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound).spawn(test).unwrap().join().unwrap();
    }

    fn socket(address: &str) -> Arc<GlommioSocket> {
        Arc::new(GlommioSocket::new(std::net::UdpSocket::bind(address).unwrap()).unwrap())
    }

    async fn receive(socket: &GlommioSocket) -> Vec<Vec<u8>> {
        let mut bytes = vec![0; 4 * 65_536];
        std::future::poll_fn(|context| {
            let mut buffers: Vec<_> = bytes.chunks_mut(65_536).map(IoSliceMut::new).collect();
            let mut meta = vec![RecvMeta::default(); buffers.len()];
            socket.poll_recv(context, &mut buffers, &mut meta).map(|received| {
                let filled = buffers.iter().zip(&meta).take(received.unwrap());
                filled.map(|(buffer, meta)| buffer[..meta.len].to_vec()).collect()
            })
        })
        .await
    }

    /// Each datagram is waited for through the ring, again and again on the same socket.
    #[test]
    fn receives_after_waiting() {
        on_executor(|| async {
            let socket = socket("127.0.0.1:0");
            let peer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            for round in 0..20u8 {
                let address = socket.address;
                let peer = peer.try_clone().unwrap();
                glommio::spawn_local(async move {
                    glommio::timer::sleep(Duration::from_millis(2)).await;
                    peer.send_to(&[round; 10], address).unwrap();
                })
                .detach();
                assert_eq!(receive(&socket).await, [vec![round; 10]]);
            }
            // What came before the wait is not missed either.
            peer.send_to(b"early", socket.address).unwrap();
            assert_eq!(receive(&socket).await, [b"early".to_vec()]);
        });
    }

    /// The probe for room completes when there is room, also on sockets bound to all addresses.
    #[test]
    fn writable_again_after_being_blocked() {
        on_executor(|| async {
            for address in ["127.0.0.1:0", "0.0.0.0:0", "[::]:0"] {
                let socket = socket(address);
                let mut poller = Arc::clone(&socket).create_io_poller();
                let ready = std::future::poll_fn(|context| Poll::Ready(poller.as_mut().poll_writable(context))).await;
                assert!(ready.is_ready(), "nothing is blocked yet");
                socket.inner.blocked.set(true);
                std::future::poll_fn(|context| poller.as_mut().poll_writable(context)).await.unwrap();
                assert!(!socket.inner.blocked.get());
                assert_eq!(receive(&socket).await, [[0].to_vec()], "the probe arrives as garbage");
            }
        });
    }
}
