//! The cluster's own certificate authority, for onebox and for clusters without another one.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::identity::{IdentityError, Role, check_signed};

/// A CA: its certificate and its private key.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A freshly issued certificate with its private key, both PEM.
#[derive(Clone)]
pub struct IssuedPem {
    /// The certificate.
    pub certificate: String,
    /// The private key; keep it readable by its owner only.
    pub key: String,
}

impl Authority {
    /// Makes a new CA with a new key.
    pub fn generate() -> Result<Authority, IdentityError> {
        let key = KeyPair::generate().map_err(issue_error)?;
        let certificate_pem = authority_parameters().self_signed(&key).map_err(issue_error)?.pem();
        Ok(Authority { certificate_pem, issuer: Issuer::new(authority_parameters(), key) })
    }

    /// Loads `ca.crt` and `ca.key` of a directory, as written by [`Authority::save`].
    pub fn load(directory: &Path) -> Result<Authority, IdentityError> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).map_err(|source| IdentityError::Read { path, source })
        };
        let certificate_pem = read("ca.crt")?;
        let key = KeyPair::from_pem(&read("ca.key")?).map_err(|error| IdentityError::Bad {
            what: directory.join("ca.key").display().to_string(),
            detail: error.to_string(),
        })?;
        let authority = Authority { certificate_pem, issuer: Issuer::new(authority_parameters(), key) };
        // A certificate of another CA would only show when the first peer refuses what was issued.
        authority.check(&authority.issue(Role::Client)?).map_err(|detail| IdentityError::Bad {
            what: directory.join("ca.crt").display().to_string(),
            detail: format!("it was not made together with ca.key: {detail}"),
        })?;
        Ok(authority)
    }

    /// Writes `ca.crt` and `ca.key` (readable by the owner only). Makes the directory; never overwrites a CA.
    pub fn save(&self, directory: &Path) -> Result<(), IdentityError> {
        make_directory(directory)?;
        let path = directory.join("ca.key");
        if path.exists() {
            return Err(IdentityError::Exists { path });
        }
        write(&path, &self.issuer.key().serialize_pem(), PRIVATE)?;
        write(&directory.join("ca.crt"), &self.certificate_pem, PUBLIC)
    }

    /// The CA's certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a certificate of the role with a new key.
    pub fn issue(&self, role: Role) -> Result<IssuedPem, IdentityError> {
        let key = KeyPair::generate().map_err(issue_error)?;
        let mut parameters = CertificateParams::new(vec![role.dns_name().to_owned()]).map_err(issue_error)?;
        parameters.distinguished_name = common_name(role.dns_name());
        parameters.use_authority_key_identifier_extension = true;
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Storage nodes and meta servers both accept and open connections.
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = parameters.signed_by(&key, &self.issuer).map_err(issue_error)?;
        Ok(IssuedPem { certificate: certificate.pem(), key: key.serialize_pem() })
    }

    /// Issues a certificate and writes `<role>.crt`, `<role>.key` and `ca.crt` into a directory, which is made if
    /// it does not exist. Earlier files of that role are replaced.
    pub fn write_identity(&self, directory: &Path, role: Role) -> Result<(), IdentityError> {
        let issued = self.issue(role)?;
        make_directory(directory)?;
        write(&directory.join(format!("{role}.key")), &issued.key, PRIVATE)?;
        write(&directory.join(format!("{role}.crt")), &issued.certificate, PUBLIC)?;
        write(&directory.join("ca.crt"), &self.certificate_pem, PUBLIC)
    }

    fn check(&self, issued: &IssuedPem) -> Result<(), String> {
        let parse = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| error.to_string());
        let mut trust = RootCertStore::empty();
        trust.add(parse(&self.certificate_pem)?).map_err(|error| error.to_string())?;
        check_signed(&[parse(&issued.certificate)?], &trust)
    }
}

impl std::fmt::Debug for Authority {
    /// Never shows the key.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for IssuedPem {
    /// Never shows the key.
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("IssuedPem").finish_non_exhaustive()
    }
}

/// The same for every CA, so that a CA can be loaded again from its key alone.
fn authority_parameters() -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = common_name("Pegasus cluster CA");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    parameters
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, name);
    distinguished_name
}

fn issue_error(error: rcgen::Error) -> IdentityError {
    IdentityError::Issue(error.to_string())
}

fn make_directory(directory: &Path) -> Result<(), IdentityError> {
    std::fs::create_dir_all(directory).map_err(|source| IdentityError::Write { path: directory.to_owned(), source })
}

/// File modes.
const PRIVATE: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// Writes beside the file and renames, so that a reader never sees half of it.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), IdentityError> {
    let beside = path.with_extension("new");
    let attempt = || -> std::io::Result<()> {
        let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&beside)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&beside, path)
    };
    attempt().map_err(|source| IdentityError::Write { path: path.to_owned(), source })
}
