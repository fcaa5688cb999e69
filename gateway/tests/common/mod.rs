//! What the tests of the codecs share: values drawn from entropy, a second description of every layout, the methods
//! with their types, and frames with fixed values.

#![allow(dead_code, reason = "every test binary uses its own part of this")]

pub(crate) mod allocations;
pub(crate) mod crafted;
pub(crate) mod fixed;
pub(crate) mod hex;
pub(crate) mod layout;
pub(crate) mod methods;
pub(crate) mod source;
