//! The settings of a table that change while it serves.

use pegasus_wire::messages::control::{ChangeEnvironment, EnvironmentEntry};
use pegasus_wire::{FrameBuilder, MessageKind};

use crate::client::Client;
use crate::error::Error;

/// A change of a table's environment: all of it, or nothing. First `clear`, then `delete`, then `set`.
///
/// ```
/// use pegasus_client::EnvironmentChange;
///
/// let change = EnvironmentChange::set("default_ttl", 3600).and_delete("replica.slow_query_threshold");
/// assert_eq!(change.set, [("default_ttl".to_owned(), "3600".to_owned())]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvironmentChange {
    /// Delete every setting.
    pub clear: bool,
    /// Settings to delete; one that is not set is no error.
    pub delete: Vec<String>,
    /// Settings and their values.
    pub set: Vec<(String, String)>,
}

impl EnvironmentChange {
    /// Sets one setting.
    pub fn set(key: impl Into<String>, value: impl ToString) -> EnvironmentChange {
        EnvironmentChange::default().and_set(key, value)
    }

    /// Sets another one too.
    pub fn and_set(mut self, key: impl Into<String>, value: impl ToString) -> EnvironmentChange {
        self.set.push((key.into(), value.to_string()));
        self
    }

    /// Deletes one too.
    pub fn and_delete(mut self, key: impl Into<String>) -> EnvironmentChange {
        self.delete.push(key.into());
        self
    }
}

impl Client {
    /// Changes a table's environment and gives what is in force then. The meta service checks every setting before any
    /// is kept; nodes follow within a second or two. The settings are those of [`pegasus_wire::environment`].
    ///
    /// Limits: 64 settings (`environment_entries_max`) with values of at most 4096 bytes
    /// (`environment_value_bytes_max`).
    ///
    /// Errors: [`Error::InvalidArgument`] for a setting there is not, or a value it cannot have, with what it may be;
    /// [`Error::NoSuchTable`].
    ///
    /// ```no_run
    /// # async fn example(client: pegasus_client::Client) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::EnvironmentChange;
    ///
    /// let change = EnvironmentChange::set("default_ttl", 3600).and_set("replica.write_throttling", "1K*delay*100");
    /// let in_force = client.change_environment("temp", &change).await?;
    /// assert_eq!(in_force.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn change_environment(
        &self,
        table: &str,
        change: &EnvironmentChange,
    ) -> Result<Vec<EnvironmentEntry>, Error> {
        let entry = |(key, value): &(String, String)| EnvironmentEntry { key: key.clone(), value: value.clone() };
        let question = ChangeEnvironment {
            name: table.to_owned(),
            clear: change.clear,
            delete: change.delete.clone(),
            set: change.set.iter().map(entry).collect(),
        };
        let build = |out: &mut Vec<u8>, header| FrameBuilder::append(out, header, &question, &[]);
        Ok(self.change(MessageKind::CHANGE_ENVIRONMENT, build).await?.environment)
    }

    /// A table's environment, as it was set.
    ///
    /// ```no_run
    /// # async fn example(client: pegasus_client::Client) -> Result<(), pegasus_client::Error> {
    /// for setting in client.environment("temp").await? {
    ///     println!("{} = {}", setting.key, setting.value);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn environment(&self, table: &str) -> Result<Vec<EnvironmentEntry>, Error> {
        Ok(self.describe_table(table).await?.environment)
    }
}
