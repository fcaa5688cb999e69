//! GET from an administration port, with a bound on everything. No more of HTTP than these ports speak.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::failure::Failure;

/// The body of an answer with status 200; anything else is a failure with the reason.
pub fn get(address: SocketAddr, path: &str, within: Duration) -> Result<String, Failure> {
    let doing = format!("GET http://{address}{path}");
    let answer = exchange(address, path, within).map_err(Failure::at(&doing))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer.as_str(), ""));
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        Some(status) => Err(Failure::new(format!("{doing}: {status}: {}", body.trim()))),
        None => Err(Failure::new(format!("{doing}: the answer is no HTTP"))),
    }
}

fn exchange(address: SocketAddr, path: &str, within: Duration) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, within)?;
    stream.set_read_timeout(Some(within))?;
    stream.set_write_timeout(Some(within))?;
    // In one piece: formatting into a socket is a write, and a packet, for each part.
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n").as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Far above what a status of a thousand copies takes.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    /// All lines up to the empty one, however many packets they come in.
    fn head_of_request(stream: &TcpStream) -> String {
        let lines = BufReader::new(stream).lines().map(Result::unwrap);
        lines.take_while(|line| !line.is_empty()).fold(String::new(), |head, line| head + &line + "\r\n")
    }

    fn answered(answer: &'static str) -> Result<String, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let request = head_of_request(&stream);
            stream.write_all(answer.as_bytes()).unwrap();
            request
        });
        let outcome = get(address, "/digest/1.0", Duration::from_secs(20));
        assert!(server.join().unwrap().starts_with("GET /digest/1.0 HTTP/1.1\r\n"));
        outcome
    }

    #[test]
    fn bodies_and_refusals() {
        assert_eq!(answered("HTTP/1.1 200 OK\r\nA: b\r\n\r\n{}").unwrap(), "{}");
        let refused = answered("HTTP/1.1 409 Conflict\r\n\r\nask again\n").unwrap_err().to_string();
        assert!(refused.contains("409") && refused.contains("ask again"), "{refused}");
        assert!(answered("").is_err());
    }

    #[test]
    fn nobody_there_is_a_failure() {
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(get(closed, "/", Duration::from_secs(5)).is_err());
    }
}
