//! Writes, with Pegasus's semantics, written apart from the engine on purpose.

use std::cmp::Ordering;

use pegasus_client::now_seconds;
use pegasus_wire::key::{decode, encode};
use pegasus_wire::messages::data::{
    ArchivedCheckAndWrite, ArchivedExpiryChange, ArchivedIncrement, ArchivedRowOperation, ArchivedWrite, Check,
    CheckReply, IncrementReply, WriteReply,
};
use pegasus_wire::{Decree, Frame, FrameBuilder, FrameHeader, PartitionId, Status};

use super::store::{Node, Partition, alive, hash_key_of, refuse};

const DECREE: Decree = Decree(7);

impl Node {
    pub fn write(&self, frame: &Frame, header: FrameHeader, out: &mut Vec<u8>) {
        let write = frame.body::<ArchivedWrite<'_>>().unwrap();
        let partition = PartitionId::from(&write.partition);
        if self.serves(partition, header, out) {
            self.store.change(partition, |rows| carry_out(rows, &write.hash_key, &write.operations));
            FrameBuilder::append(out, header, &WriteReply { decree: DECREE }, &[]);
        }
    }

    pub fn increment(&self, frame: &Frame, header: FrameHeader, out: &mut Vec<u8>) {
        let asked = frame.body::<ArchivedIncrement<'_>>().unwrap();
        let partition = PartitionId::from(&asked.partition);
        if !self.serves(partition, header, out) {
            return;
        }
        let stored = encode(&asked.hash_key, &asked.sort_key);
        let sum = self.store.change(partition, |rows| {
            let (value, expiry) = alive(rows, &stored).cloned().unwrap_or_default();
            let number = if value.is_empty() { Some(0) } else { parse_integer(&value) };
            let sum = number.ok_or("the value is no integer")?.checked_add(asked.increment.to_native());
            let sum = sum.ok_or("the sum is beyond 64 bits")?;
            let expiry = match &asked.expiry {
                ArchivedExpiryChange::Keep => expiry,
                ArchivedExpiryChange::Set(second) => second.to_native(),
                ArchivedExpiryChange::Clear => 0,
            };
            rows.insert(stored.clone(), (sum.to_string().into_bytes(), expiry));
            Ok::<i64, &str>(sum)
        });
        match sum {
            Ok(value) => FrameBuilder::append(out, header, &IncrementReply { value, decree: DECREE }, &[]),
            Err(reason) => refuse(header, Status::InvalidArgument, reason, out),
        }
    }

    pub fn check_and_write(&self, frame: &Frame, header: FrameHeader, out: &mut Vec<u8>) {
        let asked = frame.body::<ArchivedCheckAndWrite<'_>>().unwrap();
        let partition = PartitionId::from(&asked.partition);
        if !self.serves(partition, header, out) {
            return;
        }
        let stored = encode(&asked.hash_key, &asked.check_sort_key);
        let outcome = self.store.change(partition, |rows| {
            let value = alive(rows, &stored).map(|(value, _)| value.clone());
            let written = passes(value.as_deref(), Check::from(asked.check), &asked.operand)?;
            if written {
                carry_out(rows, &asked.hash_key, &asked.operations);
            }
            Ok::<_, &str>((written, value))
        });
        match outcome {
            Ok((written, value)) => {
                let reply = CheckReply { written, exists: value.is_some(), decree: DECREE };
                let attachment = value.filter(|_| asked.return_value).unwrap_or_default();
                FrameBuilder::append(out, header, &reply, &attachment);
            }
            Err(reason) => refuse(header, Status::InvalidArgument, reason, out),
        }
    }
}

fn carry_out(rows: &mut Partition, hash_key: &[u8], operations: &[ArchivedRowOperation<'_>]) {
    for operation in operations {
        match operation {
            ArchivedRowOperation::Put { sort_key, value, expiry_seconds } => {
                rows.insert(encode(hash_key, sort_key), (value.to_vec(), expiry_seconds.to_native()));
            }
            ArchivedRowOperation::Delete { sort_key } => {
                rows.remove(&encode(hash_key, sort_key));
            }
            ArchivedRowOperation::DeleteRange { range } => {
                let range = range.plain();
                rows.retain(|key, _| hash_key_of(key) != hash_key || !range.contains(decode(key).unwrap().1));
            }
        }
    }
}

fn passes(value: Option<&[u8]>, check: Check, operand: &[u8]) -> Result<bool, &'static str> {
    match (check, value) {
        (Check::Nothing, _) => return Ok(true),
        (Check::NotExist, value) => return Ok(value.is_none()),
        (Check::NotExistOrEmpty, value) => return Ok(value.is_none_or(<[u8]>::is_empty)),
        (_, None) => return Ok(false),
        _ => {}
    }
    let value = value.unwrap();
    let integers = || -> Result<Ordering, &'static str> {
        let value = parse_integer(value).ok_or("the value is no integer")?;
        Ok(value.cmp(&parse_integer(operand).ok_or("the operand is no integer")?))
    };
    Ok(match check {
        Check::Nothing | Check::NotExist | Check::NotExistOrEmpty => unreachable!(),
        Check::Exist => true,
        Check::NotEmpty => !value.is_empty(),
        Check::MatchAnywhere => operand.is_empty() || value.windows(operand.len()).any(|window| window == operand),
        Check::MatchPrefix => value.starts_with(operand),
        Check::MatchPostfix => value.ends_with(operand),
        Check::BytesLess => value < operand,
        Check::BytesLessOrEqual => value <= operand,
        Check::BytesEqual => value == operand,
        Check::BytesGreaterOrEqual => value >= operand,
        Check::BytesGreater => value > operand,
        Check::IntegerLess => integers()?.is_lt(),
        Check::IntegerLessOrEqual => integers()?.is_le(),
        Check::IntegerEqual => integers()?.is_eq(),
        Check::IntegerGreaterOrEqual => integers()?.is_ge(),
        Check::IntegerGreater => integers()?.is_gt(),
    })
}

/// Decimal text alone: what the tests here need.
fn parse_integer(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds from now until a row expires; 0 for never.
pub fn ttl_of(rows: &Partition, hash_key: &[u8], sort_key: &[u8]) -> u32 {
    rows[&encode(hash_key, sort_key)].1.saturating_sub(now_seconds())
}
