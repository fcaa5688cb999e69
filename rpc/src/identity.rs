//! Who a process is: its certificate, its key, and the CA it trusts.
//!
//! Every process has a certificate issued by the cluster's CA. Its role is a DNS name in the certificate
//! (`meta.pegasus`, `replica.pegasus`, `client.pegasus`), exactly one. The connecting side demands the name of the
//! role it expects; the accepting side derives the role from the certificate after TLS has checked it against the CA.
//! There is no mode without verification.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use webpki::EndEntityCert;

pub use crate::authority::{Authority, IssuedPem};
use crate::tls;

/// What a process is allowed to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A meta server.
    Meta,
    /// A storage node.
    Replica,
    /// Anyone who only reads and writes data.
    Client,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 3] = [Role::Meta, Role::Replica, Role::Client];

    /// The role's word; also the stem of its file names.
    pub fn name(self) -> &'static str {
        match self {
            Role::Meta => "meta",
            Role::Replica => "replica",
            Role::Client => "client",
        }
    }

    /// The DNS name that stands for the role in a certificate.
    pub fn dns_name(self) -> &'static str {
        match self {
            Role::Meta => "meta.pegasus",
            Role::Replica => "replica.pegasus",
            Role::Client => "client.pegasus",
        }
    }

    /// The role named by a certificate; an error unless it names exactly one.
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Result<Role, String> {
        let parsed = EndEntityCert::try_from(certificate).map_err(|error| format!("not a certificate: {error}"))?;
        let mut named = Role::ALL.into_iter().filter(|role| {
            let name = ServerName::try_from(role.dns_name()).expect("role names are DNS names");
            parsed.verify_is_valid_for_subject_name(&name).is_ok()
        });
        match (named.next(), named.next()) {
            (Some(role), None) => Ok(role),
            (None, _) => Err("the certificate names no role; issue it with a name like replica.pegasus".to_owned()),
            (Some(first), Some(second)) => {
                Err(format!("the certificate names more than one role ({first} and {second}); issue one per role"))
            }
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// Why certificates could not be loaded, made or stored.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read.
    #[error("cannot read {}: {source}; check the path and its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}; check the directory and its permissions", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The bytes are not what they should be.
    #[error("{what} is not usable: {detail}")]
    Bad {
        /// Which part: a path, or "certificate", "key", "CA".
        what: String,
        /// What is wrong and what to do.
        detail: String,
    },
    /// Key generation or signing failed.
    #[error("cannot make a certificate: {0}")]
    Issue(String),
    /// A CA is there already; it is never overwritten.
    #[error("{} exists already; remove the directory to start over with a new CA", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

/// A certificate with its key, checked against the CA it came with. Cheap to clone.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    role: Role,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    trust: Arc<RootCertStore>,
}

impl Identity {
    /// Loads PEM files: a certificate (with intermediates, if any), its private key, and the CA's certificate.
    ///
    /// Errors name the file. The certificate must be signed by the CA, must belong to the key and must name exactly
    /// one role.
    pub fn load(certificate: &Path, key: &Path, ca: &Path) -> Result<Identity, IdentityError> {
        let certificate_pem = read(certificate)?;
        let key_pem = read(key)?;
        let ca_pem = read(ca)?;
        let name = |path: &Path| path.display().to_string();
        Identity::build((&name(certificate), &certificate_pem), (&name(key), &key_pem), (&name(ca), &ca_pem))
    }

    /// Loads `<role>.crt`, `<role>.key` and `ca.crt` of a directory.
    pub fn load_directory(directory: &Path, role: Role) -> Result<Identity, IdentityError> {
        let file = |ending: &str| directory.join(format!("{role}.{ending}"));
        Identity::load(&file("crt"), &file("key"), &directory.join("ca.crt"))
    }

    /// Like [`Identity::load`], from PEM texts in memory.
    pub fn from_pem(certificate: &str, key: &str, ca: &str) -> Result<Identity, IdentityError> {
        Identity::build(
            ("the certificate", certificate.as_bytes()),
            ("the key", key.as_bytes()),
            ("the CA certificate", ca.as_bytes()),
        )
    }

    /// The role in the certificate.
    pub fn role(&self) -> Role {
        self.inner.role
    }

    fn build(
        (certificate_name, certificate): (&str, &[u8]),
        (key_name, key): (&str, &[u8]),
        (ca_name, ca): (&str, &[u8]),
    ) -> Result<Identity, IdentityError> {
        let bad = |what: &str, detail: String| IdentityError::Bad { what: what.to_owned(), detail };
        let chain = certificates(certificate).map_err(|detail| bad(certificate_name, detail))?;
        let key = PrivateKeyDer::from_pem_slice(key)
            .map_err(|error| bad(key_name, format!("no private key in PEM form in it ({error})")))?;
        let mut trust = RootCertStore::empty();
        for root in certificates(ca).map_err(|detail| bad(ca_name, detail))? {
            trust.add(root).map_err(|error| bad(ca_name, format!("not a CA certificate: {error}")))?;
        }
        check_signed(&chain, &trust)
            .map_err(|detail| bad(certificate_name, format!("not signed by the CA in {ca_name}: {detail}")))?;
        let role = Role::of(&chain[0]).map_err(|detail| bad(certificate_name, detail))?;
        let identity = Identity { inner: Arc::new(Inner { role, chain, key, trust: Arc::new(trust) }) };
        // rustls compares key and certificate when a configuration is made.
        tls::client_config(&identity, crate::Alpn::Data)
            .map_err(|error| bad(key_name, format!("it does not fit {certificate_name}: {error}")))?;
        Ok(identity)
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.inner.chain.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.inner.key.clone_key()
    }

    pub(crate) fn trust(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.inner.trust)
    }
}

impl fmt::Debug for Identity {
    /// Never shows the key.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Identity").field("role", &self.inner.role).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, IdentityError> {
    std::fs::read(path).map_err(|source| IdentityError::Read { path: path.to_owned(), source })
}

/// All certificates of a PEM text, at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("not PEM: {error}"))?;
    if found.is_empty() { Err("no certificate in PEM form in it".to_owned()) } else { Ok(found) }
}

/// Checks that the chain leads to the CA, so that a mix-up shows at start and not at the first connection.
pub(crate) fn check_signed(chain: &[CertificateDer<'static>], trust: &RootCertStore) -> Result<(), String> {
    let parsed = EndEntityCert::try_from(&chain[0]).map_err(|error| format!("not a certificate: {error}"))?;
    parsed
        .verify_for_usage(
            tls::provider().signature_verification_algorithms.all,
            &trust.roots,
            &chain[1..],
            UnixTime::now(),
            webpki::KeyUsage::client_auth(),
            None,
            None,
        )
        .map(|_| ())
        .map_err(|error| error.to_string())
}
