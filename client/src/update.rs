//! Writes that depend on what is there: increments, and writes under a condition.
//!
//! The primary reads and writes in one step, in the order of all writes of the partition. What it decides is replicated
//! as an ordinary write, so such an operation takes effect once or not at all; like every write it is never sent again
//! unless it is certain that it had no effect.

use bytes::Bytes;
use pegasus_wire::key::{check_hash_key, check_sort_key};
use pegasus_wire::limits::VALUE_BYTES_MAX;
use pegasus_wire::messages::data::{
    Check, CheckAndWrite, CheckReply, ExpiryChange, Increment, IncrementReply, RowOperation,
};
use pegasus_wire::{FrameBuilder, MessageKind};

use crate::batch::{WriteBatch, check_write, expiry_from_now};
use crate::dispatch::Target;
use crate::error::Error;
use crate::retry::Effect;
use crate::table::Table;

/// What becomes of the time to live of a row that is incremented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TtlChange {
    /// It stays; a new row has none, or the table's `default_ttl`.
    #[default]
    Keep,
    /// So many seconds from now; 0 is the same as [`TtlChange::Clear`].
    Set(u32),
    /// The row lives until it is deleted, or for the table's `default_ttl`.
    Clear,
}

impl TtlChange {
    fn as_wire(self) -> ExpiryChange {
        match self {
            TtlChange::Keep => ExpiryChange::Keep,
            TtlChange::Clear | TtlChange::Set(0) => ExpiryChange::Clear,
            TtlChange::Set(seconds) => ExpiryChange::Set(expiry_from_now(seconds)),
        }
    }
}

/// A condition on the value of one row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowCheck<'a> {
    /// Sort key of the row.
    pub sort_key: &'a [u8],
    /// The condition.
    pub check: Check,
    /// What it compares with; not used by the first five checks.
    pub operand: &'a [u8],
    /// Answer with the value that was found.
    pub return_value: bool,
}

/// A put under a condition on the value of a row, which may be another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckAndSet<'a> {
    /// Sort key of the row that is checked.
    pub check_sort_key: &'a [u8],
    /// The condition.
    pub check: Check,
    /// What it compares with; not used by the first five checks.
    pub operand: &'a [u8],
    /// Sort key of the row that is put.
    pub set_sort_key: &'a [u8],
    /// Its value.
    pub value: &'a [u8],
    /// How long it lives; 0 means until it is deleted, or for the table's `default_ttl`.
    pub ttl_seconds: u32,
    /// Answer with the value that was found.
    pub return_value: bool,
}

/// What came of a write under a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckOutcome {
    /// The condition held, and the write is carried out.
    pub written: bool,
    /// The row that was checked existed.
    pub exists: bool,
    /// Its value before the write, if it existed and was asked for.
    pub value: Option<Bytes>,
}

/// What came of [`Table::compare_exchange`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CompareExchange {
    /// The value was the one expected, and is the one desired now.
    Exchanged,
    /// It was this one, or there was no row; nothing is changed.
    Different(Option<Bytes>),
}

impl Table {
    /// Adds to the number in a row and gives the sum; the time to live stays. See [`Table::incr_with`].
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// assert_eq!(table.incr("page:home", "views", 1).await?, 1);
    /// assert_eq!(table.incr("page:home", "views", -3).await?, -2);
    /// assert_eq!(table.get("page:home", "views").await?.as_deref(), Some(&b"-2"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn incr(&self, hash_key: impl AsRef<[u8]>, sort_key: impl AsRef<[u8]>, by: i64) -> Result<i64, Error> {
        self.incr_with(hash_key, sort_key, by, TtlChange::Keep).await
    }

    /// Adds to the number in a row and gives the sum. A row that is missing, has expired or is empty counts as 0, and
    /// the sum is written as decimal text. A number may also be there as hexadecimal (0x) or octal (0) text and begin
    /// with blanks. With `by` 0 the row is written all the same.
    ///
    /// Errors: [`Error::InvalidArgument`] if the value is no number or the sum is beyond 64 bits, and nothing is
    /// changed; [`Error::Unknown`] if the answer was lost: the increment has happened or not, and is not sent again.
    /// All of [`Table`] apply.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::{Ttl, TtlChange};
    ///
    /// table.incr_with("user:1", "logins", 1, TtlChange::Set(3600)).await?;
    /// assert!(matches!(table.ttl("user:1", "logins").await?, Some(Ttl::Seconds(3590..))));
    /// table.incr_with("user:1", "logins", 1, TtlChange::Clear).await?;
    /// assert_eq!(table.ttl("user:1", "logins").await?, Some(Ttl::Never));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn incr_with(
        &self,
        hash_key: impl AsRef<[u8]>,
        sort_key: impl AsRef<[u8]>,
        by: i64,
        ttl: TtlChange,
    ) -> Result<i64, Error> {
        let (hash_key, sort_key) = (hash_key.as_ref(), sort_key.as_ref());
        check_hash_key(hash_key).map_err(Error::invalid)?;
        check_sort_key(sort_key).map_err(Error::invalid)?;
        let (target, kind) = (Target::hash_key(hash_key), MessageKind::INCREMENT);
        let expiry = ttl.as_wire();
        let call = self.core.call(target, kind, Effect::Write, self.deadline(), |out, header, partition| {
            let request = Increment { partition, hash_key, sort_key, increment: by, expiry };
            FrameBuilder::append(out, header, &request, &[]);
        });
        Ok(call.await?.decode::<IncrementReply>().map_err(Error::unreadable_write)?.value)
    }

    /// Puts a row if a row of the same hash key passes a check, in one step.
    ///
    /// A check that fails is no error: [`CheckOutcome::written`] is false. A row that is missing or has expired fails
    /// all checks but [`Check::Nothing`], [`Check::NotExist`] and [`Check::NotExistOrEmpty`].
    ///
    /// Limits: those of [`Table::set`]; the operand is at most as long as a value.
    ///
    /// Errors: [`Error::InvalidArgument`] for what is over a limit, and if numbers are to be compared and the value or
    /// the operand is none; [`Error::Unknown`] if the answer was lost. All of [`Table`] apply.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::{Check, CheckAndSet};
    ///
    /// table.set("job:1", "tries", "3").await?;
    /// let give_up = CheckAndSet {
    ///     check_sort_key: b"tries",
    ///     check: Check::IntegerGreaterOrEqual,
    ///     operand: b"3",
    ///     set_sort_key: b"state",
    ///     value: b"failed",
    ///     ttl_seconds: 0,
    ///     return_value: true,
    /// };
    /// let outcome = table.check_and_set("job:1", &give_up).await?;
    /// assert!(outcome.written && outcome.exists);
    /// assert_eq!(outcome.value.as_deref(), Some(&b"3"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn check_and_set(
        &self,
        hash_key: impl AsRef<[u8]>,
        request: &CheckAndSet<'_>,
    ) -> Result<CheckOutcome, Error> {
        let CheckAndSet { check_sort_key, check, operand, set_sort_key, value, ttl_seconds, return_value } = *request;
        let condition = RowCheck { sort_key: check_sort_key, check, operand, return_value };
        let expiry_seconds = expiry_from_now(ttl_seconds);
        let put = RowOperation::Put { sort_key: set_sort_key, value, expiry_seconds };
        self.check_and_write(hash_key.as_ref(), &condition, &[put]).await
    }

    /// Carries out the operations of a batch if a row of the same hash key passes a check, all or none, in one step.
    ///
    /// Limits: those of [`Table::write`]; the operand is at most as long as a value. Outcomes and errors are those of
    /// [`Table::check_and_set`].
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::{Check, RowCheck, WriteBatch};
    ///
    /// let unlocked = RowCheck { sort_key: b"lock", check: Check::NotExistOrEmpty, operand: b"", return_value: true };
    /// let mut batch = WriteBatch::new();
    /// batch.put_with_ttl("lock", "worker 7", 30).put("state", "running").delete("error");
    /// assert!(table.check_and_mutate("job:1", &unlocked, &batch).await?.written);
    ///
    /// let outcome = table.check_and_mutate("job:1", &unlocked, &batch).await?;
    /// assert!(!outcome.written);
    /// assert_eq!(outcome.value.as_deref(), Some(&b"worker 7"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn check_and_mutate(
        &self,
        hash_key: impl AsRef<[u8]>,
        check: &RowCheck<'_>,
        batch: &WriteBatch<'_>,
    ) -> Result<CheckOutcome, Error> {
        self.check_and_write(hash_key.as_ref(), check, batch.operations()).await
    }

    /// Puts a row if its value is the one expected; `None` expects that there is no row. `ttl_seconds` is of the new
    /// value; 0 means until it is deleted, or for the table's `default_ttl`.
    ///
    /// Limits and errors are those of [`Table::check_and_set`].
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::CompareExchange;
    ///
    /// let first = table.compare_exchange("leader", "", None, "node 1", 10).await?;
    /// assert_eq!(first, CompareExchange::Exchanged);
    /// let second = table.compare_exchange("leader", "", None, "node 2", 10).await?;
    /// assert_eq!(second, CompareExchange::Different(Some("node 1".into())));
    /// let third = table.compare_exchange("leader", "", Some(b"node 1"), "node 3", 10).await?;
    /// assert_eq!(third, CompareExchange::Exchanged);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn compare_exchange(
        &self,
        hash_key: impl AsRef<[u8]>,
        sort_key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        desired: impl AsRef<[u8]>,
        ttl_seconds: u32,
    ) -> Result<CompareExchange, Error> {
        let (sort_key, value) = (sort_key.as_ref(), desired.as_ref());
        let (check, operand) = expected.map_or((Check::NotExist, &[][..]), |expected| (Check::BytesEqual, expected));
        let condition = RowCheck { sort_key, check, operand, return_value: true };
        let put = RowOperation::Put { sort_key, value, expiry_seconds: expiry_from_now(ttl_seconds) };
        let outcome = self.check_and_write(hash_key.as_ref(), &condition, &[put]).await?;
        Ok(if outcome.written { CompareExchange::Exchanged } else { CompareExchange::Different(outcome.value) })
    }

    async fn check_and_write(
        &self,
        hash_key: &[u8],
        condition: &RowCheck<'_>,
        operations: &[RowOperation<'_>],
    ) -> Result<CheckOutcome, Error> {
        condition.validate()?;
        check_write(hash_key, operations)?;
        let RowCheck { sort_key: check_sort_key, check, operand, return_value } = *condition;
        let (target, kind) = (Target::hash_key(hash_key), MessageKind::CHECK_AND_WRITE);
        let call = self.core.call(target, kind, Effect::Write, self.deadline(), |out, header, partition| {
            let request =
                CheckAndWrite { partition, hash_key, check_sort_key, check, operand, operations, return_value };
            FrameBuilder::append(out, header, &request, &[]);
        });
        let frame = call.await?;
        let CheckReply { written, exists, .. } = frame.decode().map_err(Error::unreadable_write)?;
        Ok(CheckOutcome { written, exists, value: (return_value && exists).then_some(frame.attachment) })
    }
}

impl RowCheck<'_> {
    fn validate(&self) -> Result<(), Error> {
        check_sort_key(self.sort_key).map_err(Error::invalid)?;
        if self.operand.len() > VALUE_BYTES_MAX {
            return Err(Error::InvalidArgument(format!(
                "the operand of the check has {} bytes, the limit is {VALUE_BYTES_MAX} (value_bytes_max)",
                self.operand.len()
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::now_seconds;

    #[test]
    fn zero_seconds_to_live_are_no_time_to_live() {
        assert_eq!(TtlChange::Set(0).as_wire(), ExpiryChange::Clear);
        assert_eq!(TtlChange::default().as_wire(), ExpiryChange::Keep);
        let ExpiryChange::Set(second) = TtlChange::Set(100).as_wire() else { panic!("it is set") };
        assert!((99..=100).contains(&(second - now_seconds())));
    }

    #[test]
    fn operands_have_the_limit_of_values() {
        let operand = vec![0; VALUE_BYTES_MAX + 1];
        let check = RowCheck { sort_key: b"", check: Check::BytesEqual, operand: &operand, return_value: false };
        assert!(check.validate().unwrap_err().to_string().contains("value_bytes_max"));
        assert!(RowCheck { operand: &operand[1..], ..check }.validate().is_ok());
        let sort_key = vec![0; 1025];
        let check = RowCheck { sort_key: &sort_key, operand: b"", ..check };
        assert!(check.validate().unwrap_err().to_string().contains("sort_key_bytes_max"));
    }
}
