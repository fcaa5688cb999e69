//! Operations on the rows of one table.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use pegasus_wire::key::{check_hash_key, check_sort_key};
use pegasus_wire::messages::data::{ArchivedGetReply, Get, RowOperation, Write};
use pegasus_wire::{Frame, FrameBuilder, MessageKind, Status, TableProperties};

use crate::batch::{WriteBatch, check_write, expiry_from_now};
use crate::client::deadline_in;
use crate::dispatch::{TableCore, Target};
use crate::error::Error;
use crate::keys::SortKeyRange;
use crate::retry::Effect;
use crate::rows::Ttl;

/// A handle on a table. Cloning it is cheap.
///
/// Many operations may be under way at once, from one handle or many: requests to one core share a channel and are
/// answered in any order. Every operation ends within the handle's timeout. Reads are sent again until then; a write is
/// sent again only while it is certain that no server has taken it, and is [`Error::Unknown`] otherwise. A timeout of
/// some seconds rides out a failover; one below a second may not.
///
/// Operations on one hash key are atomic and linearizable: who reads after a write was answered sees it, whoever wrote
/// it, and across a failover too. What touches several hash keys is neither.
///
/// Operations whose future is dropped are abandoned: a write may still take effect.
///
/// # Errors of every operation
/// - [`Error::InvalidArgument`]: a key or value is over a limit, which the text names. Hash keys have 1 to 1024 bytes,
///   sort keys 0 to 1024, values at most 1000 KiB; a table's `limits.*` may be lower.
/// - [`Error::Timeout`]: it has had no effect; the text says what was in the way. That includes a table's throttling.
/// - [`Error::Unknown`]: only of writes. It has had an effect, may still have one, or has none.
/// - [`Error::NoSuchTable`]: the table was dropped, with the server's words.
/// - [`Error::Refused`]: the status says why, for example [`Status::Denied`] by `replica.deny_client_request`.
#[derive(Clone)]
pub struct Table {
    pub(crate) core: Arc<TableCore>,
    timeout: Duration,
}

impl Table {
    pub(crate) fn new(core: Arc<TableCore>, timeout: Duration) -> Table {
        Table { core, timeout }
    }

    /// The name by which the table was opened.
    pub fn name(&self) -> &str {
        self.core.routes.name()
    }

    /// The same table with another time limit for each operation.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use std::time::Duration;
    ///
    /// let patient = table.with_timeout(Duration::from_secs(60));
    /// patient.set("user:1", "name", "Ada").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn with_timeout(&self, timeout: Duration) -> Table {
        Table { core: self.core.clone(), timeout }
    }

    /// The table's number, name, partition count and other properties, as this client knows them.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// let properties = table.properties().await?;
    /// assert_eq!((properties.name.as_str(), properties.partition_count), (table.name(), 8));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn properties(&self) -> Result<TableProperties, Error> {
        Ok(self.core.route(self.deadline()).await?.table.clone())
    }

    /// Inserts or overwrites a row. It then lives until it is deleted, also if it had a time to live before; in a table
    /// with a `default_ttl`, for that long.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.set("user:1", "name", "Ada").await?;
    /// assert_eq!(table.get("user:1", "name").await?.as_deref(), Some(&b"Ada"[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set(
        &self,
        hash_key: impl AsRef<[u8]>,
        sort_key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), Error> {
        self.put(hash_key.as_ref(), sort_key.as_ref(), value.as_ref(), 0).await
    }

    /// Inserts or overwrites a row that lives for `ttl_seconds` from now by this machine's clock; 0 is the same as
    /// [`Table::set`]. From its last second on the row is in no answer.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::Ttl;
    ///
    /// table.set_with_ttl("user:1", "session", "7f3a", 3600).await?;
    /// assert!(matches!(table.ttl("user:1", "session").await?, Some(Ttl::Seconds(3590..=3600))));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn set_with_ttl(
        &self,
        hash_key: impl AsRef<[u8]>,
        sort_key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        ttl_seconds: u32,
    ) -> Result<(), Error> {
        let expiry_seconds = expiry_from_now(ttl_seconds);
        self.put(hash_key.as_ref(), sort_key.as_ref(), value.as_ref(), expiry_seconds).await
    }

    /// The value of a row; `None` if it does not exist or has expired.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// assert_eq!(table.get("user:1", "phone").await?, None);
    /// table.set("user:1", "phone", "").await?;
    /// assert_eq!(table.get("user:1", "phone").await?.as_deref(), Some(&b""[..]));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn get(&self, hash_key: impl AsRef<[u8]>, sort_key: impl AsRef<[u8]>) -> Result<Option<Bytes>, Error> {
        let frame = self.get_frame(hash_key.as_ref(), sort_key.as_ref(), false).await?;
        Ok(is_found(&frame).then_some(frame.attachment))
    }

    /// Whether a row exists and has not expired. The value is not sent.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.set("user:1", "name", "Ada").await?;
    /// assert!(table.exist("user:1", "name").await?);
    /// assert!(!table.exist("user:1", "phone").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn exist(&self, hash_key: impl AsRef<[u8]>, sort_key: impl AsRef<[u8]>) -> Result<bool, Error> {
        Ok(is_found(&self.get_frame(hash_key.as_ref(), sort_key.as_ref(), true).await?))
    }

    /// How long a row has to live, by the server's clock; `None` if it does not exist or has expired.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::Ttl;
    ///
    /// table.set("user:1", "name", "Ada").await?;
    /// assert_eq!(table.ttl("user:1", "name").await?, Some(Ttl::Never));
    /// assert_eq!(table.ttl("user:1", "phone").await?, None);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn ttl(&self, hash_key: impl AsRef<[u8]>, sort_key: impl AsRef<[u8]>) -> Result<Option<Ttl>, Error> {
        let frame = self.get_frame(hash_key.as_ref(), sort_key.as_ref(), true).await?;
        if !is_found(&frame) {
            return Ok(None);
        }
        let seconds = frame.body::<ArchivedGetReply>().map_err(Error::protocol)?.ttl_seconds.to_native();
        Ok(Some(match u32::try_from(seconds) {
            Ok(seconds) => Ttl::Seconds(seconds),
            Err(_) => Ttl::Never,
        }))
    }

    /// Deletes a row; one that is not there is no error.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.set("user:1", "name", "Ada").await?;
    /// table.del("user:1", "name").await?;
    /// assert!(!table.exist("user:1", "name").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn del(&self, hash_key: impl AsRef<[u8]>, sort_key: impl AsRef<[u8]>) -> Result<(), Error> {
        let operation = RowOperation::Delete { sort_key: sort_key.as_ref() };
        self.write_operations(hash_key.as_ref(), &[operation]).await
    }

    /// Inserts or overwrites rows of one hash key, all or none. Of two rows with one sort key the last stays.
    ///
    /// Limits: 1 to 1000 rows (`write_rows_max`), together at most 1 MiB (`write_bytes_max`).
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.multi_set("user:1", &[("name", "Ada"), ("mail", "ada@example.org")]).await?;
    /// assert_eq!(table.count("user:1").await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn multi_set<K, V>(&self, hash_key: impl AsRef<[u8]>, rows: &[(K, V)]) -> Result<(), Error>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        self.multi_set_with_ttl(hash_key, rows, 0).await
    }

    /// Like [`Table::multi_set`], with one time to live for all rows; 0 means none.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.multi_set_with_ttl("cart:1", &[("apples", "3"), ("pears", "1")], 1800).await?;
    /// assert!(table.exist("cart:1", "pears").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn multi_set_with_ttl<K, V>(
        &self,
        hash_key: impl AsRef<[u8]>,
        rows: &[(K, V)],
        ttl_seconds: u32,
    ) -> Result<(), Error>
    where
        K: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let mut batch = WriteBatch::new();
        for (sort_key, value) in rows {
            batch.put_with_ttl(sort_key, value, ttl_seconds);
        }
        self.write(hash_key, &batch).await
    }

    /// Deletes rows of one hash key, all or none; those that are not there are no error.
    ///
    /// Limits: 1 to 1000 rows (`write_rows_max`).
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.multi_set("user:1", &[("name", "Ada"), ("mail", "ada@example.org")]).await?;
    /// table.multi_del("user:1", &["mail", "phone"]).await?;
    /// assert_eq!(table.count("user:1").await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn multi_del<K>(&self, hash_key: impl AsRef<[u8]>, sort_keys: &[K]) -> Result<(), Error>
    where
        K: AsRef<[u8]>,
    {
        let mut batch = WriteBatch::new();
        for sort_key in sort_keys {
            batch.delete(sort_key);
        }
        self.write(hash_key, &batch).await
    }

    /// Deletes all rows of one hash key in a range of sort keys, all or none, in one write that does not grow with
    /// their number. An empty or reversed range deletes nothing.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::SortKeyRange;
    ///
    /// table.multi_set("log", &[("05-01", "a"), ("05-31", "b"), ("06-01", "c")]).await?;
    /// let may = SortKeyRange { start: "05".into(), stop: "06".into(), ..SortKeyRange::default() };
    /// table.del_range("log", &may).await?;
    /// assert_eq!(table.count("log").await?, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn del_range(&self, hash_key: impl AsRef<[u8]>, range: &SortKeyRange) -> Result<(), Error> {
        let operation = RowOperation::DeleteRange { range: range.as_wire() };
        self.write_operations(hash_key.as_ref(), &[operation]).await
    }

    /// Carries out the puts and deletes of a batch on one hash key, all or none, in their order.
    ///
    /// Limits: 1 to 1000 operations (`write_rows_max`), together at most 1 MiB (`write_bytes_max`).
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::WriteBatch;
    ///
    /// let mut batch = WriteBatch::new();
    /// batch.put("name", "Ada").put_with_ttl("session", "7f3a", 3600).delete("draft");
    /// table.write("user:1", &batch).await?;
    /// assert_eq!(table.count("user:1").await?, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn write(&self, hash_key: impl AsRef<[u8]>, batch: &WriteBatch<'_>) -> Result<(), Error> {
        self.write_operations(hash_key.as_ref(), batch.operations()).await
    }

    pub(crate) fn deadline(&self) -> Instant {
        deadline_in(self.timeout)
    }

    pub(crate) async fn put(
        &self,
        hash_key: &[u8],
        sort_key: &[u8],
        value: &[u8],
        expiry_seconds: u32,
    ) -> Result<(), Error> {
        self.write_operations(hash_key, &[RowOperation::Put { sort_key, value, expiry_seconds }]).await
    }

    async fn write_operations(&self, hash_key: &[u8], operations: &[RowOperation<'_>]) -> Result<(), Error> {
        check_write(hash_key, operations)?;
        let (target, kind) = (Target::hash_key(hash_key), MessageKind::WRITE);
        let call = self.core.call(target, kind, Effect::Write, self.deadline(), |out, header, partition| {
            FrameBuilder::append(out, header, &Write { partition, hash_key, operations }, &[]);
        });
        // The answer's body, the decree, is of no use here: that it was answered is what counts.
        call.await.map(|_| ())
    }

    async fn get_frame(&self, hash_key: &[u8], sort_key: &[u8], no_value: bool) -> Result<Frame, Error> {
        check_hash_key(hash_key).map_err(Error::invalid)?;
        check_sort_key(sort_key).map_err(Error::invalid)?;
        let target = Target::hash_key(hash_key);
        let call = self.core.call(target, MessageKind::GET, Effect::Read, self.deadline(), |out, header, partition| {
            FrameBuilder::append(out, header, &Get { partition, hash_key, sort_key, no_value }, &[]);
        });
        call.await
    }
}

fn is_found(frame: &Frame) -> bool {
    frame.header.status != Status::NotFound
}
