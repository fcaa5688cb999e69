//! QUIC parameters, all derived from `pegasus_wire::limits` or stated here with their reason.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pegasus_wire::limits::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES, STREAMS_PER_CONNECTION_MAX};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt,
};
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::crypto::tls13::{Hkdf, OkmBlock};

use crate::identity::Identity;
use crate::tls;

/// A connection that heard nothing for this long is lost.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A quiet connection is kept alive this often; several times within the idle timeout.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Largest datagram sent or taken.
pub(crate) const DATAGRAM_BYTES_MAX: u16 = 16 * 1024;
/// Wanted size of the socket buffers; the system may grant less (net.core.rmem_max, net.core.wmem_max).
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// Bytes a connection may have written and not yet acknowledged; beyond it writers wait.
const SEND_WINDOW_BYTES: u64 = 2 * STREAM_WINDOW_BYTES as u64;
/// Assumed round trip before the first measurement. A lost first packet (a peer that is just starting) is sent again
/// after three of these.
const INITIAL_RTT: Duration = Duration::from_millis(50);

const _: () = assert!(KEEP_ALIVE.as_millis() * 3 < IDLE_TIMEOUT.as_millis());

/// Parameters of every connection, for both sides.
pub(crate) fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_PER_CONNECTION_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(window(STREAM_WINDOW_BYTES))
        .receive_window(window(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .max_idle_timeout(Some(
            IdleTimeout::try_from(IDLE_TIMEOUT).expect("the idle timeout fits a variable-length integer"),
        ))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(discovery()));
    Arc::new(config)
}

/// Datagrams start at the size every path carries and grow by probing: jumbo frames on a network that has them, the
/// full size on loopback. Fewer, larger datagrams cost less per byte.
fn discovery() -> MtuDiscoveryConfig {
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(DATAGRAM_BYTES_MAX);
    discovery
}

fn window(bytes: usize) -> VarInt {
    VarInt::from_u64(bytes as u64).expect("windows fit a variable-length integer")
}

/// Parameters of an endpoint bound to `address`.
///
/// Stateless resets are keyed by the private key and the address, so that a process that was killed and started again
/// on the same port tells the peers of its predecessor at once that their connections are gone. With a random key they
/// would find out by their idle timeout. The address is part of the key because nodes may share a certificate, and a
/// reset made by one must not end a connection of another.
pub(crate) fn endpoint(identity: &Identity, address: SocketAddr) -> EndpointConfig {
    let mut config = EndpointConfig::new(Arc::new(ResetKey::derive(identity, address)));
    config
        .max_udp_payload_size(DATAGRAM_BYTES_MAX)
        .expect("the largest datagram is within what UDP allows")
        .cid_generator(|| Box::new(RandomConnectionIds(tls::provider())));
    config
}

/// Random connection ids. quinn's default signs them with a random key and drops what an earlier process handed out;
/// those must be answered with a stateless reset instead.
struct RandomConnectionIds(Arc<CryptoProvider>);

impl ConnectionIdGenerator for RandomConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CONNECTION_ID_BYTES];
        self.0.secure_random.fill(&mut bytes).expect("the system's random source works");
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Long enough never to meet by chance among the connections of a core.
const CONNECTION_ID_BYTES: usize = 8;

/// HMAC-SHA-256 key for stateless resets.
struct ResetKey {
    hkdf: &'static dyn Hkdf,
    key: OkmBlock,
}

impl ResetKey {
    fn derive(identity: &Identity, address: SocketAddr) -> ResetKey {
        let suite = TLS13_AES_128_GCM_SHA256.tls13().expect("a TLS 1.3 suite");
        let hkdf = suite.hkdf_provider;
        let salt = format!("pegasus stateless reset {address}");
        let expander = hkdf.extract_from_secret(Some(salt.as_bytes()), identity.key().secret_der());
        let key = expander.expand_block(&[b"reset"]);
        ResetKey { hkdf, key }
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(self.hkdf.hmac_sign(&self.key, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        RESET_SIGNATURE_BYTES
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let expected = self.hkdf.hmac_sign(&self.key, data);
        // Compared without an early exit, so that timing tells nothing.
        let difference = expected.as_ref().iter().zip(signature).fold(0, |seen, (a, b)| seen | (a ^ b));
        if expected.as_ref().len() == signature.len() && difference == 0 { Ok(()) } else { Err(CryptoError) }
    }
}

/// SHA-256.
const RESET_SIGNATURE_BYTES: usize = 32;
