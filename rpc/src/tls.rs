//! TLS configurations: 1.3 only, mutual certificates always, no resumption and no early data.

use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::CertificateDer;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig, version};

use crate::endpoint::Alpn;
use crate::identity::{Identity, Role};

/// Cryptography by ring. AES-128-GCM comes first: it is as safe as needed here and the cheapest per packet.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

/// For the accepting side: peers must show a certificate of the CA.
pub(crate) fn server_config(identity: &Identity, accepts: &[Alpn]) -> Result<QuicServerConfig, String> {
    let verifier = WebPkiClientVerifier::builder_with_provider(identity.trust(), provider())
        .build()
        .map_err(|error| error.to_string())?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.chain(), identity.key())
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = accepts.iter().map(|alpn| alpn.wire_name().to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map_err(|error| error.to_string())
}

/// For the connecting side: shows our certificate; the peer's is checked against the CA and the name that is given
/// when connecting.
pub(crate) fn client_config(identity: &Identity, alpn: Alpn) -> Result<QuicClientConfig, String> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| error.to_string())?
        .with_root_certificates(identity.trust())
        .with_client_auth_cert(identity.chain(), identity.key())
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = vec![alpn.wire_name().to_vec()];
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    QuicClientConfig::try_from(config).map_err(|error| error.to_string())
}

/// What TLS agreed on: the application protocol and the peer's role.
pub(crate) fn agreed(connection: &quinn::Connection) -> Result<(Alpn, Role), String> {
    let alpn = connection
        .handshake_data()
        .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
        .and_then(|data| Alpn::from_wire_name(data.protocol.as_deref()?))
        .ok_or("no known application protocol was agreed on")?;
    let chain = connection
        .peer_identity()
        .and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok())
        .ok_or("the peer showed no certificate")?;
    let certificate = chain.first().ok_or("the peer showed no certificate")?;
    Ok((alpn, Role::of(certificate)?))
}
