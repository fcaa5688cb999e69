//! A bare TCP echo, for comparison: no encryption, no frames, no streams, tokio on both sides.
//!
//! The server is a thread of this process with a runtime of its own. The client keeps `depth` messages in flight on
//! one connection; answers come back in order, so each belongs to the oldest message.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::failure::Failure;
use crate::measure::{Latency, Measurement, ThreadClock, process_cpu};

/// Measures echoes of `payload_bytes` (at least 1) at each depth, for `seconds` each; depths with too many bytes in
/// flight are left out. Call it inside a tokio runtime.
pub async fn measure(payload_bytes: usize, depths: &[usize], seconds: Duration) -> Result<Vec<Measurement>, Failure> {
    let (ready, wait_ready) = std::sync::mpsc::channel();
    let thread = thread::Builder::new()
        .name("tcp-server".to_owned())
        .spawn(move || run_server(&ready))
        .map_err(Failure::at("start the TCP echo server"))?;
    let (address, clock) = wait_ready.recv().map_err(|_| Failure::new("the TCP echo server did not start"))?;
    let mut measurements = Vec::new();
    let mut stream = TcpStream::connect::<SocketAddr>(address).await.map_err(Failure::at("connect by TCP"))?;
    stream.set_nodelay(true).map_err(Failure::at("set up a TCP connection"))?;
    for &depth in depths.iter().filter(|depth| **depth * payload_bytes <= IN_FLIGHT_BYTES_MAX) {
        measurements.push(measure_depth(&mut stream, clock, payload_bytes, depth, seconds).await?);
    }
    // The server serves one connection and ends with it.
    drop(stream);
    let ended = thread.join().map_err(|_| Failure::new("the TCP echo server panicked"))?;
    ended.map_err(Failure::at("serve TCP echoes"))?;
    Ok(measurements)
}

async fn measure_depth(
    stream: &mut TcpStream,
    server: ThreadClock,
    payload_bytes: usize,
    depth: usize,
    seconds: Duration,
) -> Result<Measurement, Failure> {
    let doing = "exchange messages by TCP";
    let messages = vec![0x5A; payload_bytes * depth];
    let mut answers = vec![0; messages.len()];
    let mut latency = Latency::new();
    let clocks =
        || server.read().map(|server| (process_cpu(), server)).ok_or_else(|| Failure::new("the server has ended"));
    let (start, (process_before, server_before)) = (Instant::now(), clocks()?);

    let mut sent_at: VecDeque<Instant> = VecDeque::with_capacity(depth);
    let mut partial = 0;
    let mut to_send = depth;
    loop {
        if to_send > 0 {
            let now = Instant::now();
            sent_at.extend(std::iter::repeat_n(now, to_send));
            stream.write_all(&messages[..to_send * payload_bytes]).await.map_err(Failure::at(doing))?;
        }
        if sent_at.is_empty() {
            break;
        }
        let received = stream.read(&mut answers).await.map_err(Failure::at(doing))?;
        if received == 0 {
            return Err(Failure::new("the TCP echo server closed the connection"));
        }
        let whole = (partial + received) / payload_bytes;
        partial = (partial + received) % payload_bytes;
        let now = Instant::now();
        for sent in sent_at.drain(..whole) {
            latency.record(now - sent);
        }
        to_send = if start.elapsed() < seconds { whole } else { 0 };
    }

    let (wall, (process_after, server_after)) = (start.elapsed(), clocks()?);
    let server_used = server_after - server_before;
    Ok(Measurement::new(format!("tcp echo {payload_bytes} B"), depth, &latency, wall)
        .with_client_cpu((process_after - process_before).saturating_sub(server_used))
        .with_server_cpu(server_used))
}

fn run_server(ready: &std::sync::mpsc::Sender<(SocketAddr, ThreadClock)>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        // If the starter has gone, the accept below never comes and the process ends anyway.
        let _ = ready.send((listener.local_addr()?, ThreadClock::current()));
        let (mut stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let received = stream.read(&mut buffer).await?;
            if received == 0 {
                return Ok(());
            }
            stream.write_all(&buffer[..received]).await?;
        }
    })
}

const BUFFER_BYTES: usize = 64 * 1024;
/// Depths with more in flight are left out: beyond what the sockets' buffers hold, both sides could wait for the
/// other to read.
const IN_FLIGHT_BYTES_MAX: usize = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_messages_come_back() {
        let measurements = measure(100, &[1, 8], Duration::from_millis(50)).await.unwrap();
        assert_eq!(measurements.len(), 2);
        for measurement in measurements {
            assert!(measurement.operations >= measurement.depth as u64, "{measurement:?}");
            assert!(measurement.server_cpu_us.unwrap() > 0.0);
        }
    }

    #[tokio::test]
    async fn depths_that_could_lock_up_are_left_out() {
        let measurements = measure(64 * 1024, &[1, 64], Duration::from_millis(20)).await.unwrap();
        assert_eq!(measurements.iter().map(|measurement| measurement.depth).collect::<Vec<_>>(), [1]);
    }
}
