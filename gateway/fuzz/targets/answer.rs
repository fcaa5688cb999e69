//! What a client reads: the length of an answer, its begin, its result.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pegasus_gateway::Rpc;
use pegasus_gateway::answer::{Answer, length};
use pegasus_gateway::limits::ANSWER_BYTES_MAX;

#[path = "../../tests/common/methods.rs"]
#[allow(dead_code, reason = "this target reads answers only")]
mod methods;

fuzz_target!(|bytes: &[u8]| {
    match length(bytes) {
        Ok(Some(stated)) => assert!((4..=ANSWER_BYTES_MAX).contains(&stated)),
        Ok(None) => assert!(bytes.len() < 4),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    let Ok(answer) = Answer::parse(bytes) else { return };
    for &rpc in Rpc::ALL {
        let _ = methods::read_result(rpc, &answer);
    }
});
