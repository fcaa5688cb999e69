//! What the proofs have in common: commands that make a cluster of their own, ask everything the data model has of it,
//! with or without killing its nodes meanwhile, and end with a verdict.
//!
//! ```text
//! stage: cluster (chaos::setup) ---> play: the work, on a thread and a runtime of its own
//!                                     |    meanwhile kills, by the plan of the seed (chaos::course)
//!                                     v
//!                                    settle: serves, whole, equal copies
//!                                     v
//!                                    play: the last look, undisturbed ---> report, whose last line is the verdict
//! ```
//!
//! The proofs are [`crate::model`], [`crate::counters`], [`crate::scans`], [`crate::expiry`] and [`crate::throttle`].
//! Each owns its options and its judgement. Nothing here knows what is proved.

pub mod report;
pub mod stage;

pub use report::{Conclusion, Report};
pub use stage::{Bench, Stage, StageOptions};
