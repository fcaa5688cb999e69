//! Who may connect to whom; certificates; addresses.
#![cfg(all(feature = "glommio", feature = "tokio"))]
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;

use common::*;
use futures_util::future::join;
use pegasus_rpc::{
    Alpn, Authority, CloseCode, Endpoint, EndpointOptions, Identity, IdentityError, Role, RpcError, Runtime,
};
use pegasus_wire::ClusterId;

on_both!(
    another_ca_is_refused,
    the_wrong_role_of_a_server_is_refused,
    a_client_may_not_pose_as_a_peer,
    an_application_protocol_that_is_not_served,
    clusters_are_kept_apart,
    a_port_in_use,
    nobody_there,
);

const BOTH: EndpointOptions = EndpointOptions { cluster: None, accepts: &[Alpn::Data, Alpn::Peer] };

fn server(runtime: &Runtime, ca: &Ca, role: Role, options: EndpointOptions) -> Endpoint {
    Endpoint::bind(runtime.clone(), loopback(), ca.identity(role), options).unwrap()
}

async fn another_ca_is_refused(runtime: Runtime) {
    let (ours, theirs) = (Ca::new(), Ca::new());
    let endpoint = server(&runtime, &theirs, Role::Replica, BOTH);
    let address = endpoint.local_address();
    let error = ours.client(&runtime).connect(address, Role::Replica, Alpn::Data).await.unwrap_err();
    assert!(matches!(error, RpcError::Untrusted { .. }), "{error}");

    // The connecting side trusts the server, the server does not trust it: a certificate of one CA, the trust of both.
    let (a, b) = (Authority::generate().unwrap(), Authority::generate().unwrap());
    let issued = a.issue(Role::Client).unwrap();
    let both = format!("{}{}", a.certificate(), b.certificate());
    let stranger = Identity::from_pem(&issued.certificate, &issued.key, &both).unwrap();
    let issued = b.issue(Role::Replica).unwrap();
    let strict = Identity::from_pem(&issued.certificate, &issued.key, b.certificate()).unwrap();
    let endpoint = Endpoint::bind(runtime.clone(), loopback(), strict, BOTH).unwrap();
    let client = Endpoint::client(runtime.clone(), stranger).unwrap();
    let error = client.connect(endpoint.local_address(), Role::Replica, Alpn::Data).await.unwrap_err();
    assert!(matches!(error, RpcError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
}

async fn the_wrong_role_of_a_server_is_refused(runtime: Runtime) {
    let ca = Ca::new();
    let endpoint = server(&runtime, &ca, Role::Client, BOTH);
    let error = ca.client(&runtime).connect(endpoint.local_address(), Role::Replica, Alpn::Data).await.unwrap_err();
    assert!(matches!(error, RpcError::Untrusted { .. }), "{error}");
    let accepted = ca.client(&runtime).connect(endpoint.local_address(), Role::Client, Alpn::Data).await;
    assert_eq!(accepted.unwrap().peer_role(), Role::Client);
}

async fn a_client_may_not_pose_as_a_peer(runtime: Runtime) {
    let ca = Ca::new();
    let endpoint = server(&runtime, &ca, Role::Replica, BOTH);
    let address = endpoint.local_address();
    for role in [Role::Client, Role::Meta] {
        let client = Endpoint::client(runtime.clone(), ca.identity(role)).unwrap();
        let error = client.connect(address, Role::Replica, Alpn::Peer).await.unwrap_err();
        assert!(matches!(error, RpcError::Refused { .. }), "{error}");
        assert!(error.to_string().contains("replica"), "{error}");
    }
    let replica = Endpoint::client(runtime.clone(), ca.identity(Role::Replica)).unwrap();
    let (served, _connection) = join(endpoint.accept(), replica.connect(address, Role::Replica, Alpn::Peer)).await;
    let served = served.unwrap();
    assert_eq!((served.peer_role(), served.alpn()), (Role::Replica, Alpn::Peer), "the refused were not delivered");
}

async fn an_application_protocol_that_is_not_served(runtime: Runtime) {
    let ca = Ca::new();
    let endpoint = server(&runtime, &ca, Role::Replica, BOTH);
    let error = ca.client(&runtime).connect(endpoint.local_address(), Role::Replica, Alpn::Meta).await.unwrap_err();
    assert!(matches!(error, RpcError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("application protocol"), "{error}");
}

async fn clusters_are_kept_apart(runtime: Runtime) {
    let ca = Ca::new();
    let in_cluster = |cluster| EndpointOptions { cluster, ..BOTH };
    let endpoint = server(&runtime, &ca, Role::Replica, in_cluster(Some(ClusterId(1))));
    let address = endpoint.local_address();
    let stranger = server(&runtime, &ca, Role::Replica, in_cluster(Some(ClusterId(2))));
    let error = stranger.connect(address, Role::Replica, Alpn::Peer).await.unwrap_err();
    assert!(matches!(error, RpcError::WrongCluster { .. }), "{error}");
    assert!(error.to_string().contains("0000000000000001"), "{error}");

    // Who does not know its cluster yet is let in; once it knows, not to others.
    let newcomer = server(&runtime, &ca, Role::Replica, in_cluster(None));
    newcomer.connect(address, Role::Replica, Alpn::Peer).await.unwrap();
    newcomer.set_cluster(ClusterId(1));
    newcomer.connect(address, Role::Replica, Alpn::Peer).await.unwrap();
    newcomer.set_cluster(ClusterId(3));
    assert_eq!(newcomer.cluster(), Some(ClusterId(3)));
    let error = newcomer.connect(address, Role::Replica, Alpn::Peer).await.unwrap_err();
    assert!(matches!(error, RpcError::WrongCluster { .. }), "{error}");
}

async fn a_port_in_use(runtime: Runtime) {
    let ca = Ca::new();
    let endpoint = server(&runtime, &ca, Role::Replica, BOTH);
    let address = endpoint.local_address();
    let bind = |address| Endpoint::bind(runtime.clone(), address, ca.identity(Role::Replica), BOTH);
    assert_eq!(bind(address).unwrap_err(), RpcError::AddressInUse { address });
    // An address of nobody here (reserved for documentation).
    let error = bind("192.0.2.1:4000".parse().unwrap()).unwrap_err();
    assert!(matches!(error, RpcError::CannotBind { .. }), "{error}");
}

async fn nobody_there(runtime: Runtime) {
    let ca = Ca::new();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let error = ca.client(&runtime).connect(address, Role::Replica, Alpn::Data).await.unwrap_err();
    assert!(matches!(error, RpcError::ConnectTimeout { .. }), "{error}");
    let error = ca.client(&runtime).connect("127.0.0.1:0".parse().unwrap(), Role::Replica, Alpn::Data).await;
    assert!(matches!(error, Err(RpcError::Setup { .. })), "{error:?}");
}

#[test]
fn identities_survive_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tls");
    let authority = Authority::generate().unwrap();
    authority.save(&path).unwrap();
    authority.write_identity(&path, Role::Meta).unwrap();
    // A CA loaded again issues what the first one's files trust.
    let loaded = Authority::load(&path).unwrap();
    loaded.write_identity(&path, Role::Client).unwrap();
    for role in [Role::Meta, Role::Client] {
        assert_eq!(Identity::load_directory(&path, role).unwrap().role(), role);
    }
    for secret in ["ca.key", "meta.key", "client.key"] {
        let mode = std::fs::metadata(path.join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    assert!(matches!(authority.save(&path), Err(IdentityError::Exists { .. })));
}

#[test]
fn unusable_identities_say_why() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let authority = Authority::generate().unwrap();
    authority.save(path).unwrap();
    authority.write_identity(path, Role::Meta).unwrap();
    authority.write_identity(path, Role::Client).unwrap();
    let file = |name: &str| path.join(name);
    let load = |certificate: &str, key: &str, ca: &str| {
        Identity::load(&file(certificate), &file(key), &file(ca)).unwrap_err().to_string()
    };
    let missing = load("replica.crt", "meta.key", "ca.crt");
    assert!(missing.contains("cannot read") && missing.contains("replica.crt"), "{missing}");
    let swapped = load("meta.crt", "client.key", "ca.crt");
    assert!(swapped.contains("client.key") && swapped.contains("does not fit"), "{swapped}");
    let no_key = load("meta.crt", "meta.crt", "ca.crt");
    assert!(no_key.contains("no private key"), "{no_key}");
    let no_certificate = load("meta.key", "meta.key", "ca.crt");
    assert!(no_certificate.contains("no certificate"), "{no_certificate}");
    let no_role = load("ca.crt", "ca.key", "ca.crt");
    assert!(no_role.contains("ca.crt"), "{no_role}");

    let other = Authority::generate().unwrap();
    std::fs::write(file("other.crt"), other.certificate()).unwrap();
    let untrusted = load("meta.crt", "meta.key", "other.crt");
    assert!(untrusted.contains("not signed by the CA"), "{untrusted}");
    std::fs::write(file("ca.crt"), other.certificate()).unwrap();
    let mixed = Authority::load(path).unwrap_err().to_string();
    assert!(mixed.contains("not made together"), "{mixed}");
}

#[test]
fn close_codes_are_stable() {
    let codes = [CloseCode::Normal, CloseCode::ShuttingDown, CloseCode::WrongCluster, CloseCode::NoCommonVersion];
    assert_eq!(codes.map(CloseCode::code), [0, 1, 2, 3]);
}
