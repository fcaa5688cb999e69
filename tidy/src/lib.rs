//! Repository rules as tests: who may import whom, how long a file may be, what a document must name.
//!
//! Everything is in `tests/tidy`; this library is empty. Each rule is one test, and its message says what to do.
//! A rule reads files and runs `cargo tree`; it must never write, build or reach the network.
