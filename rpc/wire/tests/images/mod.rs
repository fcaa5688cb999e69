//! One frame of every message with fixed contents, and a reader for each that touches all of it.
//!
//! Shared by `golden.rs` (the bytes never change by accident) and `hostile.rs` (changed bytes never hurt).

use std::net::SocketAddr;

use pegasus_wire::frame::WireError;
use pegasus_wire::messages::{ErrorReply, Hello};
use pegasus_wire::{
    Ballot, ClusterId, Configuration, Durability, Frame, FrameBuilder, FrameHeader, MessageKind, NodeId, NodeInfo,
    PartitionId, Status, TableId, TableProperties,
};

pub(crate) mod control;
pub(crate) mod data;
mod peer;

/// A frame with a name, and how to read it.
pub(crate) struct Image {
    /// File name in `tests/golden`, without its ending.
    pub(crate) name: &'static str,
    /// The kind in its header.
    pub(crate) kind: MessageKind,
    /// The whole frame.
    pub(crate) bytes: Vec<u8>,
    /// Checks the body as this message and touches every byte of it.
    pub(crate) read: fn(&Frame) -> Result<u64, WireError>,
}

pub(crate) const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef);
pub(crate) const REQUEST_ID: u64 = 0x1122_3344_5566_7788;
pub(crate) const TIME_LEFT_MS: u32 = 5000;
pub(crate) const TIMESTAMP_MICROS: u64 = 1_700_000_000_123_456;

/// All images; every kind of `MessageKind::ALL` occurs.
pub(crate) fn all() -> Vec<Image> {
    let mut images = Vec::new();
    connection(&mut images);
    data::images(&mut images);
    peer::images(&mut images);
    control::images(&mut images);
    images
}

pub(crate) fn partition() -> PartitionId {
    PartitionId::new(2, 7)
}

pub(crate) fn configuration() -> Configuration {
    Configuration { ballot: Ballot(3), primary: Some(NodeId(0xA1)), secondaries: vec![NodeId(0xB2), NodeId(0xC3)] }
}

pub(crate) fn table() -> TableProperties {
    TableProperties {
        table: TableId(2),
        name: "temperatures".into(),
        partition_count: 8,
        replica_count: 3,
        durability: Durability::Written,
    }
}

pub(crate) fn node() -> NodeInfo {
    NodeInfo { node: NodeId(0xA1), address: address(34801), admin_address: address(34901), cores: 2, alive: true }
}

pub(crate) fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

pub(crate) fn address_v6(port: u16) -> SocketAddr {
    SocketAddr::from(([0xfe80, 0, 0, 0, 0, 0, 0, 1], port))
}

/// Stands for the body of a `Write`; the wire does not look into an attachment.
pub(crate) const PAYLOAD: &[u8] = b"\x00payload of a mutation\xFF";

fn connection(images: &mut Vec<Image>) {
    let hello = Hello { version_min: 1, version_max: 1, cluster: Some(CLUSTER) };
    images.push(request("hello", MessageKind::HELLO, &hello, read_owned::<Hello>));
    let stranger = Hello { version_min: 1, version_max: 2, cluster: None };
    images.push(request("hello_of_a_client", MessageKind::HELLO, &stranger, read_owned::<Hello>));

    let header = FrameHeader::request(MessageKind::WRITE, REQUEST_ID, TIME_LEFT_MS);
    let error = ErrorReply { message: "node a1 is not the primary of 2.7".into(), endpoint: Some(address_v6(34802)) };
    let mut bytes = Vec::new();
    FrameBuilder::append_error(&mut bytes, &header, Status::NotPrimary, &error);
    images.push(Image { name: "error_answer", kind: MessageKind::WRITE, bytes, read: read_owned::<ErrorReply> });

    let mut bytes = Vec::new();
    FrameBuilder::append_empty(&mut bytes, FrameHeader::answer(MessageKind::GET, REQUEST_ID, Status::NotFound), &[]);
    images.push(Image { name: "empty_answer", kind: MessageKind::GET, bytes, read: |frame| Ok(sum(&frame.body)) });
}

/// What `FrameBuilder::append` accepts, spelled once.
trait Body:
    for<'a> rkyv::Serialize<
        rkyv::api::high::HighSerializer<&'a mut Vec<u8>, rkyv::ser::allocator::ArenaHandle<'a>, rkyv::rancor::Error>,
    >
{
}

impl<T> Body for T where
    T: for<'a> rkyv::Serialize<
            rkyv::api::high::HighSerializer<
                &'a mut Vec<u8>,
                rkyv::ser::allocator::ArenaHandle<'a>,
                rkyv::rancor::Error,
            >,
        >
{
}

type Read = fn(&Frame) -> Result<u64, WireError>;

fn request(name: &'static str, kind: MessageKind, body: &impl Body, read: Read) -> Image {
    build(name, FrameHeader::request(kind, REQUEST_ID, TIME_LEFT_MS), body, read)
}

fn answer(name: &'static str, kind: MessageKind, body: &impl Body, read: Read) -> Image {
    build(name, FrameHeader::answer(kind, REQUEST_ID, Status::Ok), body, read)
}

fn one_way(name: &'static str, kind: MessageKind, status: Status, body: &impl Body, read: Read) -> Image {
    build(name, FrameHeader { kind, status, request_id: 0, time_left_ms: 0 }, body, read)
}

fn build(name: &'static str, header: FrameHeader, body: &impl Body, read: Read) -> Image {
    let mut bytes = Vec::new();
    FrameBuilder::append(&mut bytes, header, body, &[]);
    Image { name, kind: header.kind, bytes, read }
}

/// Sums the bytes, so that each of them is read.
fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte)).sum()
}

fn read_owned<T>(frame: &Frame) -> Result<u64, WireError>
where
    T: rkyv::Archive + std::fmt::Debug,
    T::Archived: for<'v> rkyv::bytecheck::CheckBytes<rkyv::api::high::HighValidator<'v, rkyv::rancor::Error>>
        + rkyv::Deserialize<T, rkyv::api::high::HighDeserializer<rkyv::rancor::Error>>,
{
    let message: T = frame.decode()?;
    Ok(sum(format!("{message:?}").as_bytes()) + sum(&frame.attachment))
}
