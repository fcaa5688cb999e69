//! What clients and servers say: every request and answer as a structure (facts 2.5, 2.6 and 2.10).

pub mod admin;
pub mod meta;
pub mod read;
pub mod write;
