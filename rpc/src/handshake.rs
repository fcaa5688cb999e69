//! The Hello exchange: the first frame of a connection, each way, on its first stream.
//!
//! ```text
//!   connecting side                         accepting side
//!        |  TLS 1.3, both certificates, ALPN      |
//!        | <------------------------------------> |  role fits the ALPN?  no: close forbidden
//!        |  HELLO versions, cluster               |
//!        | -------------------------------------> |  common version? same cluster?  no: close with the reason
//!        |               HELLO versions, cluster  |
//!        | <------------------------------------- |
//!   the same checks                               |
//! ```

use pegasus_wire::messages::Hello;
use pegasus_wire::{ClusterId, FrameBuilder, FrameHeader, MessageKind};

use crate::close::CloseCode;
use crate::connection::Connection;
use crate::endpoint::Alpn;
use crate::error::RpcError;
use crate::frame_io::{FrameReader, FrameWriter};
use crate::identity::Role;
use crate::tls;

/// The connecting side, after TLS. `role` is what TLS has made sure of.
pub(crate) async fn connecting(
    quinn: quinn::Connection,
    role: Role,
    alpn: Alpn,
    hello: Hello,
) -> Result<Connection, RpcError> {
    let address = quinn.remote_address();
    match connecting_hello(&quinn, &hello).await {
        Ok(version) => Ok(Connection::new(quinn, role, alpn, version)),
        // If the peer closed the connection, its reason says more than the failed stream.
        Err(error) => Err(match quinn.close_reason() {
            None | Some(quinn::ConnectionError::LocallyClosed) => error.at(address),
            Some(reason) => RpcError::from_attempt(address, reason),
        }),
    }
}

async fn connecting_hello(quinn: &quinn::Connection, hello: &Hello) -> Result<u16, RpcError> {
    let (send, receive) = quinn.open_bi().await.map_err(RpcError::from_connection)?;
    say(send, hello).await?;
    let theirs = hear(receive, quinn).await?;
    agree(quinn, hello, &theirs)
}

/// The accepting side, after TLS. On failure the connection has been closed with the reason.
pub(crate) async fn accepting(
    quinn: quinn::Connection,
    cluster: impl FnOnce() -> Option<ClusterId>,
) -> Result<Connection, RpcError> {
    let (alpn, role) = tls::agreed(&quinn).map_err(|detail| refuse(&quinn, CloseCode::Forbidden, detail))?;
    if !alpn.admits(role) {
        let detail = format!("{} needs the certificate of a replica, this one is of a {role}", alpn.name());
        return Err(refuse(&quinn, CloseCode::Forbidden, detail));
    }
    let (send, receive) = quinn.accept_bi().await.map_err(RpcError::from_connection)?;
    let theirs = hear(receive, &quinn).await?;
    let ours = Hello::ours(cluster());
    let version = agree(&quinn, &ours, &theirs)?;
    say(send, &ours).await?;
    Ok(Connection::new(quinn, role, alpn, version))
}

async fn say(send: quinn::SendStream, hello: &Hello) -> Result<(), RpcError> {
    let mut bytes = Vec::new();
    FrameBuilder::append(&mut bytes, FrameHeader::request(MessageKind::HELLO, 0, 0), hello, &[]);
    let mut writer = FrameWriter::new(send);
    writer.write(&bytes).await?;
    writer.finish();
    Ok(())
}

async fn hear(receive: quinn::RecvStream, quinn: &quinn::Connection) -> Result<Hello, RpcError> {
    let mut reader = FrameReader::new(receive, quinn.clone());
    let malformed = |detail: String| refuse(quinn, CloseCode::Malformed, detail);
    let frame = reader.next().await?.ok_or_else(|| malformed("the stream ended before a Hello".to_owned()))?;
    if frame.header.kind != MessageKind::HELLO {
        return Err(malformed(format!("{} instead of a Hello", frame.header.kind)));
    }
    frame.decode::<Hello>().map_err(|error| malformed(error.to_string()))
}

/// The version to use.
fn agree(quinn: &quinn::Connection, ours: &Hello, theirs: &Hello) -> Result<u16, RpcError> {
    if let (Some(our_cluster), Some(their_cluster)) = (ours.cluster, theirs.cluster)
        && our_cluster != their_cluster
    {
        let detail = format!("clusters {our_cluster} and {their_cluster}");
        return Err(refuse(quinn, CloseCode::WrongCluster, detail));
    }
    ours.common_version(theirs).ok_or_else(|| {
        let range = |hello: &Hello| format!("{} to {}", hello.version_min, hello.version_max);
        let detail = format!("versions {} and {}", range(ours), range(theirs));
        refuse(quinn, CloseCode::NoCommonVersion, detail)
    })
}

/// Closes the connection and tells both sides why.
fn refuse(quinn: &quinn::Connection, code: CloseCode, detail: String) -> RpcError {
    quinn.close(code.varint(), detail.as_bytes());
    match code {
        CloseCode::Malformed => RpcError::Malformed { detail },
        _ => RpcError::ClosedByPeer { code, reason: detail }.at(quinn.remote_address()),
    }
}
