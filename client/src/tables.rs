//! The life of tables: make, list, describe, drop, recall, rename, purge.
//!
//! ```text
//!              rename, environment
//!                     |
//!   create --> serving +--> drop --> dropped --> purge --> gone; its number is never used again
//!                  ^                    |
//!                  +------ recall ------+
//! ```

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use pegasus_wire::config::check_table_name;
use pegasus_wire::limits::{MEMBERS_MAX, PARTITION_COUNT_MAX};
use pegasus_wire::messages::control::{
    CreateTable, DropTable, ListTables, PurgeTable, QueryTable, RecallTable, RenameTable, TableDescription, TableList,
    TableReply,
};
use pegasus_wire::{Durability, FrameBuilder, MessageKind, TableId, TableProperties};

use crate::client::{Client, deadline_in};
use crate::dispatch::{Target, append_probe};
use crate::error::Error;
use crate::retry::Effect;

/// Partitions probed at a time by [`Client::wait_until_serving`].
const PROBES_AT_ONCE: usize = 16;

/// A table to be made.
///
/// ```
/// let spec = pegasus_client::TableSpec::new("temp", 8);
/// assert_eq!(spec.replica_count, 3);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableSpec {
    /// Its name: 1 to 128 letters, digits, `_`, `-`, `.`, `:`.
    pub name: String,
    /// How many partitions: a power of two, at most 4096 (`partition_count_max`).
    pub partition_count: u32,
    /// Members of each partition: 1 to 5 (`members_max`), and no more than there are live nodes.
    pub replica_count: u8,
    /// When writes may be acknowledged.
    pub durability: Durability,
    /// Succeed if a table of this name with these properties exists.
    pub if_not_exists: bool,
    /// Wait until every partition serves, at most so long; `None`: do not wait.
    pub wait: Option<Duration>,
}

impl TableSpec {
    /// Three members, `synced`, an error if the table exists, and no wait.
    pub fn new(name: impl Into<String>, partition_count: u32) -> TableSpec {
        TableSpec {
            name: name.into(),
            partition_count,
            replica_count: 3,
            durability: Durability::Synced,
            if_not_exists: false,
            wait: None,
        }
    }

    fn validate(&self) -> Result<(), Error> {
        check_table_name(&self.name).map_err(Error::InvalidArgument)?;
        if !self.partition_count.is_power_of_two() || self.partition_count > PARTITION_COUNT_MAX {
            return Err(Error::InvalidArgument(format!(
                "the partition count must be a power of two from 1 to {PARTITION_COUNT_MAX} (partition_count_max); \
                 it is {}",
                self.partition_count
            )));
        }
        if self.replica_count == 0 || usize::from(self.replica_count) > MEMBERS_MAX {
            return Err(Error::InvalidArgument(format!(
                "the replica count must be 1 to {MEMBERS_MAX} (members_max); it is {}",
                self.replica_count
            )));
        }
        Ok(())
    }
}

/// How a table is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DropOptions {
    /// How long it can be recalled; `None` for the meta service's setting.
    pub hold_seconds: Option<u64>,
    /// Succeed if there is no such table.
    pub if_exists: bool,
}

impl Client {
    /// Makes a table, and waits until it serves if [`TableSpec::wait`] says so.
    ///
    /// With `if_not_exists` it succeeds if there is a table of this name with the same properties, and a lost answer is
    /// asked for again; without it, a lost answer is [`Error::Unknown`].
    ///
    /// Errors: [`Error::InvalidArgument`]; [`Error::TableExists`]; [`Error::NotServing`] if the table was made and does
    /// not serve within the time; [`Error::Refused`] with `NotEnoughNodes`.
    ///
    /// ```no_run
    /// # async fn example(client: pegasus_client::Client) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::TableSpec;
    /// use std::time::Duration;
    ///
    /// let wait = Some(Duration::from_secs(30));
    /// let spec = TableSpec { if_not_exists: true, replica_count: 2, wait, ..TableSpec::new("users", 8) };
    /// client.create_table(&spec).await?;
    /// client.table("users").await?.set("user:1", "name", "Ada").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_table(&self, spec: &TableSpec) -> Result<TableReply, Error> {
        spec.validate()?;
        let question = CreateTable {
            name: spec.name.clone(),
            partition_count: spec.partition_count,
            replica_count: spec.replica_count,
            durability: spec.durability,
            if_not_exists: spec.if_not_exists,
        };
        let effect = if spec.if_not_exists { Effect::Read } else { Effect::Write };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &question, &[]);
        let meta = &self.shared.meta;
        let frame = meta.call(MessageKind::CREATE_TABLE, effect, self.meta_deadline(), build).await?;
        let reply: TableReply = frame.decode().map_err(Error::protocol)?;
        self.shared.note_changed(&reply);
        if let Some(within) = spec.wait {
            self.wait_for_new(&reply.table, within).await?;
        }
        Ok(reply)
    }

    async fn wait_for_new(&self, table: &TableProperties, within: Duration) -> Result<(), Error> {
        let TableProperties { table, name, .. } = table;
        self.wait_until_serving(name, within).await.map_err(|error| {
            Error::NotServing(format!(
                "table {name:?} is there (number {table}) and does not serve everywhere: {error}"
            ))
        })
    }

    /// Waits until every partition of a table answers a read, at most `within`.
    ///
    /// Each partition is asked for its first row, again and again with growing pauses; [`Error::Timeout`] names one
    /// that does not serve and why.
    ///
    /// ```no_run
    /// # async fn example(client: pegasus_client::Client) -> Result<(), pegasus_client::Error> {
    /// use std::time::Duration;
    ///
    /// client.wait_until_serving("temp", Duration::from_secs(30)).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn wait_until_serving(&self, name: &str, within: Duration) -> Result<(), Error> {
        let deadline = deadline_in(within);
        let core = self.table_core(name);
        let count = core.route(deadline).await?.table.partition_count;
        let probe = |index: u32| {
            let core = core.clone();
            async move {
                let target = Target::index(index);
                let call = core.call(target, MessageKind::SCAN, Effect::Read, deadline, append_probe);
                call.await.map(|_| ())
            }
        };
        let mut probes = stream::iter((0..count).map(probe)).buffer_unordered(PROBES_AT_ONCE);
        while let Some(outcome) = probes.next().await {
            outcome?;
        }
        Ok(())
    }

    /// All tables, by number: those that serve, and those that were dropped and can be recalled.
    ///
    /// ```no_run
    /// # async fn example(client: pegasus_client::Client) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::TableState;
    ///
    /// let tables = client.list_tables().await?;
    /// assert!(tables.iter().any(|table| table.properties.name == "temp" && table.state == TableState::Available));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list_tables(&self) -> Result<Vec<TableDescription>, Error> {
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &ListTables, &[]);
        let meta = &self.shared.meta;
        let frame = meta.call(MessageKind::LIST_TABLES, Effect::Read, self.meta_deadline(), build).await?;
        Ok(frame.decode::<TableList>().map_err(Error::protocol)?.tables)
    }

    /// A table's properties, its environment, the configuration of each partition, and the nodes named there.
    ///
    /// ```no_run
    /// # async fn example(client: pegasus_client::Client) -> Result<(), pegasus_client::Error> {
    /// let description = client.describe_table("temp").await?;
    /// assert_eq!(description.partitions.len(), description.table.partition_count as usize);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn describe_table(&self, name: &str) -> Result<TableReply, Error> {
        let question = QueryTable { name: name.to_owned() };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &question, &[]);
        let meta = &self.shared.meta;
        let frame = meta.call(MessageKind::QUERY_TABLE, Effect::Read, self.meta_deadline(), build).await?;
        frame.decode().map_err(Error::protocol)
    }

    /// Drops a table: it serves nothing from then on, and its name is free at once. For a holding time it can be taken
    /// back by its number, with all its rows. Gives the table as it was; `None` if there was none and `if_exists`
    /// allows that.
    ///
    /// Errors: [`Error::NoSuchTable`]; [`Error::Unknown`] if the answer was lost (see [`Client::list_tables`]).
    ///
    /// ```no_run
    /// # async fn example(client: pegasus_client::Client) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::{DropOptions, Error};
    ///
    /// let temp = client.table("temp").await?;
    /// let dropped = client.drop_table("temp", DropOptions::default()).await?.expect("there was one");
    /// assert!(matches!(temp.get("user:1", "name").await, Err(Error::NoSuchTable(_))));
    /// client.recall_table(dropped.table, None).await?;
    /// temp.get("user:1", "name").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn drop_table(&self, name: &str, options: DropOptions) -> Result<Option<TableProperties>, Error> {
        let DropOptions { hold_seconds, if_exists } = options;
        let question = DropTable { name: name.to_owned(), hold_seconds, if_exists };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &question, &[]);
        let meta = &self.shared.meta;
        // Not asked again by itself: by then the name may be another table's.
        let frame = meta.call(MessageKind::DROP_TABLE, Effect::Write, self.meta_deadline(), build).await?;
        if frame.body.is_empty() {
            return Ok(None);
        }
        let table = frame.decode::<TableReply>().map_err(Error::protocol)?.table;
        self.shared.note_gone(table.table, name);
        Ok(Some(table))
    }

    /// Takes a dropped table back, with all its rows, perhaps under another name. It serves a little later: see
    /// [`Client::wait_until_serving`]. One that serves already under that name is left as it is.
    ///
    /// Errors: [`Error::Refused`] with `NotDropped` if no such table is held; [`Error::TableExists`] if the name is
    /// another table's by now.
    ///
    /// ```no_run
    /// # async fn example(client: pegasus_client::Client) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::DropOptions;
    ///
    /// let dropped = client.drop_table("temp", DropOptions::default()).await?.expect("there was one");
    /// let recalled = client.recall_table(dropped.table, Some("temp_of_may")).await?;
    /// assert_eq!(recalled.table.name, "temp_of_may");
    /// client.table("temp_of_may").await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn recall_table(&self, table: TableId, name: Option<&str>) -> Result<TableReply, Error> {
        if let Some(name) = name {
            check_table_name(name).map_err(Error::InvalidArgument)?;
        }
        let question = RecallTable { table, name: name.map(str::to_owned) };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &question, &[]);
        self.change(MessageKind::RECALL_TABLE, build).await
    }

    /// Gives a table another name. Handles that were opened under the old one go on.
    ///
    /// Errors: [`Error::NoSuchTable`]; [`Error::TableExists`] if the new name is another table's.
    ///
    /// ```no_run
    /// # async fn example(client: pegasus_client::Client) -> Result<(), pegasus_client::Error> {
    /// let table = client.table("temp").await?;
    /// client.rename_table("temp", "users").await?;
    /// table.set("user:1", "name", "Ada").await?;
    /// assert!(client.table("users").await?.exist("user:1", "name").await?);
    /// assert!(client.table("temp").await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn rename_table(&self, name: &str, new_name: &str) -> Result<TableReply, Error> {
        check_table_name(new_name).map_err(Error::InvalidArgument)?;
        let question = RenameTable { name: name.to_owned(), new_name: new_name.to_owned() };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &question, &[]);
        self.change(MessageKind::RENAME_TABLE, build).await
    }

    /// Deletes a dropped table for good, before its holding time is over. **Nobody can take it back.**
    ///
    /// Errors: [`Error::Refused`] with `NotDropped` if the table serves. One that is gone already is a success.
    ///
    /// ```no_run
    /// # async fn example(client: pegasus_client::Client) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::DropOptions;
    ///
    /// let dropped = client.drop_table("temp", DropOptions::default()).await?.expect("there was one");
    /// client.purge_table(dropped.table).await?;
    /// assert!(client.recall_table(dropped.table, None).await.is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn purge_table(&self, table: TableId) -> Result<(), Error> {
        let question = PurgeTable { table };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &question, &[]);
        let meta = &self.shared.meta;
        // Numbers are never used again, so it may happen twice.
        meta.call(MessageKind::PURGE_TABLE, Effect::Read, self.meta_deadline(), build).await.map(|_| ())
    }

    /// Asks for a change that may happen twice: the second time it finds what it wants.
    pub(crate) async fn change(
        &self,
        kind: MessageKind,
        build: impl Fn(&mut Vec<u8>, pegasus_wire::FrameHeader),
    ) -> Result<TableReply, Error> {
        let frame = self.shared.meta.call(kind, Effect::Read, self.meta_deadline(), build).await?;
        let reply = frame.decode().map_err(Error::protocol)?;
        self.shared.note_changed(&reply);
        Ok(reply)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_table_is_refused_before_it_is_sent() {
        assert!(TableSpec::new("temp", 8).validate().is_ok());
        for (spec, word) in [
            (TableSpec::new("a b", 8), "table name"),
            (TableSpec::new("temp", 0), "partition_count_max"),
            (TableSpec::new("temp", 6), "partition_count_max"),
            (TableSpec::new("temp", 8192), "partition_count_max"),
            (TableSpec { replica_count: 0, ..TableSpec::new("temp", 8) }, "members_max"),
            (TableSpec { replica_count: 6, ..TableSpec::new("temp", 8) }, "members_max"),
        ] {
            let text = spec.validate().unwrap_err().to_string();
            assert!(text.contains(word), "{spec:?}: {text}");
        }
    }
}
