//! The connections to one address: opened when they are needed, opened again when they have ended.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use pegasus_gateway::frame::RequestHeader;
use pegasus_gateway::thrift::Value;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::connection::{Connection, Request};
use crate::judge::CallError;

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A server at one address.
pub(crate) struct Node {
    address: SocketAddr,
    slots: Vec<Slot>,
    next: AtomicUsize,
}

/// Place for one connection.
#[derive(Default)]
struct Slot {
    open: Mutex<Option<Arc<Connection>>>,
    /// Held by the one who opens it.
    opening: tokio::sync::Mutex<Failed>,
}

/// The last attempt to open it that failed.
#[derive(Default)]
struct Failed {
    at: Option<Instant>,
    reason: String,
}

impl Node {
    /// Nothing is opened yet.
    pub(crate) fn new(address: SocketAddr, connections: usize) -> Node {
        let slots = (0..connections.max(1)).map(|_| Slot::default()).collect();
        Node { address, slots, next: AtomicUsize::new(0) }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sends a request on one of the connections and waits for its answer.
    pub(crate) async fn call<'a, T: Value<'a>>(
        &self,
        header: &RequestHeader,
        request: &Request<T>,
        deadline: Instant,
    ) -> Result<Bytes, CallError> {
        let slot = self.slot();
        let connection = match slot.live() {
            Some(connection) => connection,
            None => slot.open(self.address, deadline).await?,
        };
        connection.call(header, request, deadline).await
    }

    /// Sends a request that is not answered, if there is an open connection.
    pub(crate) fn post<'a, T: Value<'a>>(&self, header: &RequestHeader, request: &Request<T>) {
        if let Some(connection) = self.slots.iter().find_map(Slot::live) {
            connection.post(header, request);
        }
    }

    /// Opens a connection, if none is open.
    pub(crate) async fn reach(&self, deadline: Instant) -> Result<(), CallError> {
        self.slot().open(self.address, deadline).await.map(|_| ())
    }

    fn slot(&self) -> &Slot {
        match self.slots.as_slice() {
            [only] => only,
            slots => &slots[self.next.fetch_add(1, Ordering::Relaxed) % slots.len()],
        }
    }
}

impl Slot {
    fn place(&self) -> MutexGuard<'_, Option<Arc<Connection>>> {
        self.open.lock().expect("no holder of the place panics")
    }

    fn live(&self) -> Option<Arc<Connection>> {
        self.place().as_ref().filter(|connection| connection.is_open()).cloned()
    }

    async fn open(&self, address: SocketAddr, deadline: Instant) -> Result<Arc<Connection>, CallError> {
        let asked = Instant::now();
        let mut failed =
            timeout_at(deadline, self.opening.lock()).await.map_err(|_| CallError::Late { sent: false })?;
        if let Some(connection) = self.live() {
            return Ok(connection);
        }
        // Those who waited while it failed need not each find out by themselves.
        if failed.at.is_some_and(|at| at >= asked) {
            return Err(CallError::NotSent(failed.reason.clone()));
        }
        match connect(address, deadline.min(asked + CONNECT_TIMEOUT)).await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                *self.place() = Some(connection.clone());
                Ok(connection)
            }
            Err(reason) => {
                *failed = Failed { at: Some(Instant::now()), reason: reason.clone() };
                Err(CallError::NotSent(reason))
            }
        }
    }
}

async fn connect(address: SocketAddr, deadline: Instant) -> Result<Connection, String> {
    match timeout_at(deadline, TcpStream::connect(address)).await {
        Ok(Ok(stream)) => Connection::start(stream).map_err(|error| format!("cannot connect: {error}")),
        Ok(Err(error)) => Err(format!("cannot connect: {error}")),
        Err(_) => Err("cannot connect in time".to_owned()),
    }
}
