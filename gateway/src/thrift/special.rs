//! Types that the field header calls structures, but whose bytes are raw: no inner fields, no stop (facts 2.3).

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

use pegasus_wire::PartitionId;

use super::{FieldType, Reader, ThriftError, Value, Writer};

/// Bytes, with their length before them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blob<'a>(pub &'a [u8]);

/// An error by its name, for example `ERR_OK`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ErrorCode<'a>(pub &'a str);

/// A partition: the table's number in the low half, the partition's index in the high half. Signed, because clients say
/// -1 where they mean none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gpid {
    /// The table's number.
    pub app_id: i32,
    /// Index of the partition.
    pub partition_index: i32,
}

/// An IPv4 address and a port, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RpcAddress(pub Option<SocketAddrV4>);

/// A host by its name, and a port. Only servers of Apache say it; it is read so that what follows can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostPort<'a> {
    /// The name.
    pub host: &'a str,
    /// The port.
    pub port: u16,
    /// 0 for none, 1 for a host.
    pub kind: u8,
}

/// Says in the lowest two bits of an address that it is one.
const IPV4: i64 = 1;

impl From<PartitionId> for Gpid {
    fn from(id: PartitionId) -> Gpid {
        // Numbers count from 1 and indexes from 0, far below 2^31; one beyond would come out as another bit pattern.
        Gpid { app_id: id.table.0.cast_signed(), partition_index: id.index.cast_signed() }
    }
}

impl From<SocketAddr> for RpcAddress {
    /// The protocol has no other addresses than IPv4.
    fn from(address: SocketAddr) -> RpcAddress {
        match address {
            SocketAddr::V4(address) => RpcAddress(Some(address)),
            SocketAddr::V6(address) => {
                RpcAddress(address.ip().to_ipv4_mapped().map(|ip| SocketAddrV4::new(ip, address.port())))
            }
        }
    }
}

impl<'a> Value<'a> for Blob<'a> {
    const TYPE: FieldType = FieldType::Struct;
    const BYTES_MIN: usize = 4;

    fn read(reader: &mut Reader<'a>) -> Result<Blob<'a>, ThriftError> {
        reader.bytes().map(Blob)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.bytes(self.0);
    }
}

impl<'a> Value<'a> for ErrorCode<'a> {
    const TYPE: FieldType = FieldType::Struct;
    const BYTES_MIN: usize = 4;

    fn read(reader: &mut Reader<'a>) -> Result<ErrorCode<'a>, ThriftError> {
        reader.text().map(ErrorCode)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.bytes(self.0.as_bytes());
    }
}

impl<'a> Value<'a> for Gpid {
    const TYPE: FieldType = FieldType::Struct;
    const BYTES_MIN: usize = 8;

    fn read(reader: &mut Reader<'a>) -> Result<Gpid, ThriftError> {
        let both = reader.i64()?;
        Ok(Gpid { app_id: both as i32, partition_index: (both >> 32) as i32 })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        let index = i64::from(self.partition_index) << 32;
        writer.i64(index | i64::from(self.app_id.cast_unsigned()));
    }
}

impl<'a> Value<'a> for RpcAddress {
    const TYPE: FieldType = FieldType::Struct;
    const BYTES_MIN: usize = 8;

    fn read(reader: &mut Reader<'a>) -> Result<RpcAddress, ThriftError> {
        let address = reader.i64()?;
        if address & 3 != IPV4 {
            return Ok(RpcAddress(None));
        }
        let ip = Ipv4Addr::from_bits((address >> 32) as u32);
        Ok(RpcAddress(Some(SocketAddrV4::new(ip, (address >> 16) as u16))))
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.i64(self.0.map_or(0, |address| {
            let ip = i64::from(address.ip().to_bits()) << 32;
            ip | i64::from(address.port()) << 16 | IPV4
        }));
    }
}

impl<'a> Value<'a> for HostPort<'a> {
    const TYPE: FieldType = FieldType::Struct;
    const BYTES_MIN: usize = 7;

    fn read(reader: &mut Reader<'a>) -> Result<HostPort<'a>, ThriftError> {
        Ok(HostPort { host: reader.text()?, port: reader.i16()?.cast_unsigned(), kind: reader.byte()? })
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.bytes(self.host.as_bytes());
        writer.i16(self.port.cast_signed());
        writer.byte(self.kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_the_one_of_the_facts() {
        let mut out = Vec::new();
        let address: SocketAddr = "127.0.0.1:34801".parse().unwrap();
        RpcAddress::from(address).write(&mut Writer::new(&mut out));
        assert_eq!(out, 0x7f00_0001_87f1_0001_u64.to_be_bytes());
        assert_eq!(RpcAddress::read(&mut Reader::new(&out)).unwrap().0.map(SocketAddr::V4), Some(address));
        assert_eq!(RpcAddress::read(&mut Reader::new(&[0; 8])), Ok(RpcAddress(None)));
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:34801".parse().unwrap();
        assert_eq!(RpcAddress::from(mapped), RpcAddress::from(address));
        assert_eq!(RpcAddress::from("[::1]:34801".parse::<SocketAddr>().unwrap()), RpcAddress(None));
        let high = RpcAddress(Some(SocketAddrV4::new(Ipv4Addr::new(255, 255, 255, 254), 65_535)));
        out.clear();
        high.write(&mut Writer::new(&mut out));
        assert_eq!(RpcAddress::read(&mut Reader::new(&out)), Ok(high));
    }

    #[test]
    fn a_gpid_keeps_both_halves_apart() {
        for gpid in [(2, 7), (-1, -1), (i32::MAX, i32::MIN), (-5, 3), (0, 0)] {
            let gpid = Gpid { app_id: gpid.0, partition_index: gpid.1 };
            let mut out = Vec::new();
            gpid.write(&mut Writer::new(&mut out));
            assert_eq!(Gpid::read(&mut Reader::new(&out)), Ok(gpid));
        }
        let mut out = Vec::new();
        Gpid { app_id: 2, partition_index: 7 }.write(&mut Writer::new(&mut out));
        assert_eq!(out, [0, 0, 0, 7, 0, 0, 0, 2]);
    }
}
