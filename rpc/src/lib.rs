//! The transport between our own processes: QUIC on glommio (storage nodes) and on tokio (meta service, clients,
//! tools) behind one API.
//!
//! What it gives: connections whose peer is known by its certificate ([`identity`]), ordered streams of frames
//! ([`FrameReader`], [`FrameWriter`], [`Outbox`]), pipelined calls with deadlines ([`Channel`]), and a connection
//! that comes back by itself ([`Reconnecting`]).
//!
//! What it must never do: send a request a second time (only the caller knows whether it had an effect); accept a
//! peer without checking its certificate against the cluster's CA; queue without a bound (`pegasus_wire::limits`);
//! block the thread it runs on; panic because of what a peer sent.
//!
//! ```text
//!   caller -- Channel::call --> Outbox --> writer task --> quinn connection task --> UDP socket
//!      ^                                                          |
//!      +-- slot of the call <-- reader task <-- FrameReader <-----+
//! ```
//!
//! Reading order: [`identity`], [`runtime`], [`endpoint`], [`connection`], [`frame_io`], [`outbox`], [`channel`],
//! [`reconnect`], [`error`]. On glommio everything made by this crate stays on the executor that made it: the types
//! are `Send + Sync` because quinn asks for it, and moving them to another thread panics.

mod authority;
mod calls;
pub mod channel;
pub mod close;
pub mod connection;
pub mod endpoint;
pub mod error;
pub mod frame_io;
#[cfg(feature = "glommio")]
mod glommio_runtime;
#[cfg(feature = "glommio")]
mod glommio_socket;
mod handshake;
pub mod identity;
pub mod outbox;
pub mod reconnect;
pub mod runtime;
mod tls;
#[cfg(feature = "tokio")]
mod tokio_runtime;
mod transport;
#[cfg(any(feature = "glommio", feature = "tokio"))]
mod udp;
mod waiters;

pub use channel::Channel;
pub use close::CloseCode;
pub use connection::{Connection, ConnectionStatistics};
pub use endpoint::{Alpn, Endpoint, EndpointOptions};
pub use error::{CallError, Closed, RpcError};
pub use frame_io::{FrameReader, FrameWriter};
pub use identity::{Authority, Identity, IdentityError, IssuedPem, Role};
pub use outbox::Outbox;
pub use reconnect::Reconnecting;
pub use runtime::Runtime;
