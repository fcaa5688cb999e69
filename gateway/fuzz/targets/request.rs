//! What a server reads: a frame, the begin of its message, its argument.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pegasus_gateway::Rpc;
use pegasus_gateway::frame::{Message, Progress, find};

#[path = "../../tests/common/methods.rs"]
#[allow(dead_code, reason = "this target reads requests only")]
mod methods;

fuzz_target!(|bytes: &[u8]| {
    match find(bytes) {
        Ok(Progress::Needs(needed)) => assert!(needed > bytes.len()),
        Ok(Progress::Whole { body_at, end, .. }) => {
            assert!(body_at <= end && end <= bytes.len());
            read(&bytes[body_at..end]);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    // The same bytes without a header, so that lengths in it are no obstacle.
    read(bytes);
});

fn read(body: &[u8]) {
    let Ok(message) = Message::parse(body) else { return };
    match Rpc::from_name(message.name) {
        Some(rpc) => drop(methods::read_argument(rpc, &message)),
        None => {
            for &rpc in Rpc::ALL {
                let _ = methods::read_argument(rpc, &message);
            }
        }
    }
}
