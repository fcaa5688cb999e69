//! What a client needs to know before it can connect.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::Error;

/// Default time an operation on rows may take.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(5);
/// Default time a question to the meta service may take.
pub const META_TIMEOUT: Duration = Duration::from_secs(10);
/// Default time one attempt of a read may take before the route is asked for again.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// Options of [`crate::Client::connect`].
///
/// ```
/// use pegasus_client::ClientOptions;
/// use std::time::Duration;
///
/// let meta = "127.0.0.1:34601".parse().expect("an address");
/// let mut options = ClientOptions::new(vec![meta], "./onebox/tls");
/// options.operation_timeout = Duration::from_secs(1);
/// assert!(options.certificate.ends_with("client.crt"));
/// ```
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// Addresses of the meta servers, in any order; at least one.
    pub meta_servers: Vec<SocketAddr>,
    /// The client's certificate chain, a PEM file.
    pub certificate: PathBuf,
    /// The certificate's private key, a PEM file.
    pub key: PathBuf,
    /// Certificate of the authority that every server is verified against, a PEM file.
    pub ca: PathBuf,
    /// How long an operation on rows may take, all its attempts together.
    pub operation_timeout: Duration,
    /// How long a question to the meta service may take, all its attempts together.
    pub meta_timeout: Duration,
    /// How long one attempt of a read may take; after it the route is asked for again and the read sent anew.
    /// Writes are not cut short: a write that was sent is never sent again.
    pub attempt_timeout: Duration,
}

impl ClientOptions {
    /// Options for a cluster whose client identity lies in `tls_directory` as `client.crt`, `client.key` and `ca.crt`.
    pub fn new(meta_servers: Vec<SocketAddr>, tls_directory: impl AsRef<Path>) -> ClientOptions {
        let directory = tls_directory.as_ref();
        ClientOptions {
            meta_servers,
            certificate: directory.join("client.crt"),
            key: directory.join("client.key"),
            ca: directory.join("ca.crt"),
            operation_timeout: OPERATION_TIMEOUT,
            meta_timeout: META_TIMEOUT,
            attempt_timeout: ATTEMPT_TIMEOUT,
        }
    }

    pub(crate) fn validate(&self) -> Result<(), Error> {
        if self.meta_servers.is_empty() {
            return Err(Error::Setup("at least one meta server address is needed".into()));
        }
        let timeouts = [
            ("operation_timeout", self.operation_timeout),
            ("meta_timeout", self.meta_timeout),
            ("attempt_timeout", self.attempt_timeout),
        ];
        for (name, timeout) in timeouts {
            if timeout.is_zero() || timeout > Duration::from_secs(24 * 3600) {
                return Err(Error::Setup(format!("{name} must be above zero and at most a day; it is {timeout:?}")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_options_are_named() {
        let meta = "127.0.0.1:34601".parse().expect("an address");
        assert!(ClientOptions::new(vec![meta], "tls").validate().is_ok());
        let text = ClientOptions::new(vec![], "tls").validate().unwrap_err().to_string();
        assert!(text.contains("meta server"), "{text}");
        let mut options = ClientOptions::new(vec![meta], "tls");
        options.attempt_timeout = Duration::ZERO;
        let text = options.validate().unwrap_err().to_string();
        assert!(text.contains("attempt_timeout"), "{text}");
    }
}
