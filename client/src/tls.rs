//! Identities. A cluster has one authority; every process shows a certificate that it issued, and the role in the
//! certificate says what the process may do.
//!
//! Tools that start a cluster make the authority and the certificates with [`Authority`]; a client only needs
//! the files.

pub use pegasus_rpc::{Authority, Identity, Role};
