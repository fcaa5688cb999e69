//! The runtime the client side of every measurement runs on.

use crate::failure::Failure;

/// A tokio runtime with this many threads. With one, everything runs on the calling thread, which spares the wake-ups
/// between threads and is the fairest choice where servers and client share few CPUs.
pub fn client_runtime(threads: u16) -> Result<tokio::runtime::Runtime, Failure> {
    let mut builder = match threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    if threads > 1 {
        builder.worker_threads(usize::from(threads));
    }
    builder.enable_all().build().map_err(Failure::at("start the client's runtime"))
}
