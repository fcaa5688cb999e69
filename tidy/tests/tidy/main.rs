//! The rules of this repository. See the modules; each test is one rule.

#![allow(clippy::unwrap_used)]

mod documents;
mod imports;
mod purity;
mod scanner;
mod scripts;
mod sources;
mod workspace;

/// Fails with every breach of a rule at once, and with what to do about them.
fn report(what_to_do: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{what_to_do}\n  {}\n", breaches.join("\n  "));
}
