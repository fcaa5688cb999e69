//! Sockets: reads requests, has them carried out, and sends answers, or whatever else a test wants.

use std::sync::{Arc, Mutex};

use pegasus_gateway::frame::{Message, Progress, RequestHeader, find};
use pegasus_gateway::{ErrorName, Rpc, answer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use crate::cluster::State;
use crate::{Fault, lock, rows, scans};

/// What listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The meta server that leads.
    Leader,
    /// One that does not.
    Follower,
    /// A storage node.
    Node(usize),
}

/// What becomes of a request.
enum Ending {
    /// Its answer is sent.
    Answered,
    /// Nothing is sent.
    Silent,
    /// These bytes are sent at once.
    Raw(Vec<u8>),
    /// The connection ends.
    Closed,
}

/// Accepts connections until it is dropped.
pub(crate) async fn serve(listener: TcpListener, role: Role, state: Arc<Mutex<State>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(talk(stream, role, state.clone()));
    }
}

async fn talk(mut stream: TcpStream, role: Role, state: Arc<Mutex<State>>) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let mut received = Vec::new();
    let mut held: Vec<Vec<u8>> = Vec::new();
    loop {
        loop {
            let Ok(progress) = find(&received) else { return };
            let Progress::Whole { header, body_at, end } = progress else { break };
            let body: Vec<u8> = received.drain(..end).skip(body_at).collect();
            let mut out = Vec::new();
            match carry_out(&header, &body, role, &mut lock(&state), &mut out) {
                Ending::Answered => held.push(out),
                Ending::Silent => {}
                Ending::Closed => return,
                Ending::Raw(bytes) => held.push(bytes),
            }
            if held.len() >= lock(&state).reverse {
                let answers: Vec<u8> = held.drain(..).rev().flatten().collect();
                if stream.write_all(&answers).await.is_err() {
                    return;
                }
            }
        }
        match stream.read_buf(&mut received).await {
            Ok(1..) => {}
            _ => return,
        }
    }
}

fn carry_out(header: &RequestHeader, body: &[u8], role: Role, state: &mut State, out: &mut Vec<u8>) -> Ending {
    let Ok(message) = Message::parse(body) else { return Ending::Closed };
    let Some(rpc) = Rpc::from_name(message.name) else {
        answer::append_error(out, message.name, message.sequence, ErrorName::HandlerNotFound);
        return Ending::Answered;
    };
    let fault = state.next_fault(rpc);
    match fault {
        Some(Fault::CloseBefore) => return Ending::Closed,
        Some(Fault::Silence) => return Ending::Silent,
        Some(Fault::Bytes(bytes)) => return Ending::Raw(bytes),
        Some(Fault::Error(name)) => {
            append_any_error(out, &message, name);
            return Ending::Answered;
        }
        Some(Fault::CloseAfter | Fault::Cut(_)) | None => {}
    }
    if perform(header, &message, rpc, role, state, out).is_none() {
        out.clear();
        answer::append_error(out, message.name, message.sequence, ErrorName::InvalidParameters);
    }
    match fault {
        Some(Fault::CloseAfter) => Ending::Closed,
        Some(Fault::Cut(bytes)) => {
            out.truncate(out.len().saturating_sub(bytes));
            let total = (out.len() as u32).to_be_bytes();
            out[..total.len()].copy_from_slice(&total);
            Ending::Answered
        }
        _ if rpc == Rpc::ClearScanner => Ending::Silent,
        _ => Ending::Answered,
    }
}

/// `None` if the argument cannot be read.
fn perform(
    header: &RequestHeader,
    message: &Message<'_>,
    rpc: Rpc,
    role: Role,
    state: &mut State,
    out: &mut Vec<u8>,
) -> Option<()> {
    let leads = role == Role::Leader;
    let node = match role {
        Role::Node(node) => node,
        Role::Leader | Role::Follower => {
            match rpc {
                Rpc::QueryCfg => state.configuration(&message.argument().ok()?, leads, out, message.sequence),
                Rpc::CreateApp => state.create_app(&message.argument().ok()?, leads, out, message.sequence),
                _ => answer::append_error(out, message.name, message.sequence, ErrorName::HandlerNotFound),
            }
            return Some(());
        }
    };
    if matches!(rpc, Rpc::GetScanner | Rpc::Scan | Rpc::ClearScanner) {
        return scans::perform(header, message, rpc, node, state, out);
    }
    match state.partition(node, header.app_id, header.partition_index) {
        Some(partition) => rows::perform(message, rpc, &mut partition.rows, out),
        None => {
            answer::append_error(out, message.name, message.sequence, ErrorName::ObjectNotFound);
            Some(())
        }
    }
}

/// An answer with an error name that need not be a known one.
fn append_any_error(out: &mut Vec<u8>, message: &Message<'_>, name: &str) {
    // The layout of an answer with a known name, with the name replaced.
    let known = ErrorName::Unknown.text();
    answer::append_error(out, message.name, message.sequence, ErrorName::Unknown);
    let mut replaced = Vec::with_capacity(out.len());
    replaced.extend(((out.len() - known.len() + name.len()) as u32).to_be_bytes());
    replaced.extend((name.len() as u32).to_be_bytes());
    replaced.extend(name.as_bytes());
    replaced.extend(&out[2 * size_of::<u32>() + known.len()..]);
    *out = replaced;
}
