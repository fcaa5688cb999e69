//! Rows of any hash keys, many at once: nothing but the single operations, under way together.

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};

use crate::batch::expiry_from_now;
use crate::error::Error;
use crate::table::Table;

/// Rows of one batch that are under way at a time.
const ROWS_AT_ONCE: usize = 256;

impl Table {
    /// The values of rows of any hash keys, one result for each row, in the order asked; `None` for a row that does not
    /// exist.
    ///
    /// The rows are read at once, in whatever partitions they are, 256 at a time; each has the handle's timeout and the
    /// errors of [`Table::get`], and fails alone. The answers are not of one moment.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.set("user:1", "name", "Ada").await?;
    /// let found = table.batch_get(&[("user:1", "name"), ("user:2", "name")]).await;
    /// assert_eq!(found[0].as_ref().unwrap().as_deref(), Some(&b"Ada"[..]));
    /// assert_eq!(found[1].as_ref().unwrap().as_deref(), None);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn batch_get<H, S>(&self, rows: &[(H, S)]) -> Vec<Result<Option<Bytes>, Error>>
    where
        H: AsRef<[u8]>,
        S: AsRef<[u8]>,
    {
        all(rows.len(), |index| {
            let (hash_key, sort_key) = &rows[index];
            self.get(hash_key.as_ref(), sort_key.as_ref())
        })
        .await
    }

    /// Inserts or overwrites rows of any hash keys, one result for each row, in the order given. `ttl_seconds` is of
    /// all of them; 0 means none.
    ///
    /// The rows are written at once, 256 at a time; each has the handle's timeout and the errors of [`Table::set`], and
    /// succeeds or fails alone. Of two rows with the same keys either may stay. Rows that share a hash key are better
    /// written by [`Table::multi_set`], which is one write.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// let rows = [("user:1", "name", "Ada"), ("user:2", "name", "Bob"), ("", "name", "Eve")];
    /// let written = table.batch_set(&rows, 0).await;
    /// assert!(written[0].is_ok() && written[1].is_ok());
    /// assert!(written[2].is_err(), "a hash key is not empty");
    /// # Ok(())
    /// # }
    /// ```
    pub async fn batch_set<H, S, V>(&self, rows: &[(H, S, V)], ttl_seconds: u32) -> Vec<Result<(), Error>>
    where
        H: AsRef<[u8]>,
        S: AsRef<[u8]>,
        V: AsRef<[u8]>,
    {
        let expiry_seconds = expiry_from_now(ttl_seconds);
        all(rows.len(), |index| {
            let (hash_key, sort_key, value) = &rows[index];
            self.put(hash_key.as_ref(), sort_key.as_ref(), value.as_ref(), expiry_seconds)
        })
        .await
    }

    /// Deletes rows of any hash keys, one result for each row, in the order given; a row that is not there is no error.
    ///
    /// The rows are deleted at once, 256 at a time; each has the handle's timeout and the errors of [`Table::del`], and
    /// succeeds or fails alone.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.set("user:1", "name", "Ada").await?;
    /// let deleted = table.batch_del(&[("user:1", "name"), ("user:2", "name")]).await;
    /// assert!(deleted.iter().all(Result::is_ok));
    /// assert!(!table.exist("user:1", "name").await?);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn batch_del<H, S>(&self, rows: &[(H, S)]) -> Vec<Result<(), Error>>
    where
        H: AsRef<[u8]>,
        S: AsRef<[u8]>,
    {
        all(rows.len(), |index| {
            let (hash_key, sort_key) = &rows[index];
            self.del(hash_key.as_ref(), sort_key.as_ref())
        })
        .await
    }
}

/// What came of each operation, in their order.
async fn all<F: Future>(count: usize, operation: impl Fn(usize) -> F) -> Vec<F::Output> {
    stream::iter((0..count).map(operation)).buffered(ROWS_AT_ONCE).collect().await
}
