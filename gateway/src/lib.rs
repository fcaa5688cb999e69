//! The protocol of Apache Pegasus's clients: Thrift over TCP, as bytes in memory.
//!
//! Bytes become plain structures here and structures bytes; what they mean to us is in `mapping`. Everything is pure:
//! no sockets, no clocks, no state. What comes from a peer may be anything, so nothing here panics or takes more
//! memory than a small multiple of the bytes it was given.
//!
//! ```text
//!   receive buffer --> frame --> message (name, sequence, arguments) --> messages::* --> mapping --> our operations
//!   send buffer   <-- answer <------------------------------------------ messages::* <-- mapping <-- outcomes
//! ```
//!
//! The source for every layout is the fact file of Apache Pegasus, sections 2.1 to 2.10; layouts that are the same for
//! a client and a server are written once and go both ways, so the performance driver uses them too.

pub mod answer;
pub mod error_name;
pub mod frame;
pub mod limits;
pub mod mapping;
pub mod messages;
pub mod rpc;
pub mod storage_code;
pub mod thrift;

pub use error_name::ErrorName;
pub use rpc::Rpc;
pub use storage_code::StorageCode;
