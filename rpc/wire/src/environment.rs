//! The environment of a table: settings that change while it serves. Keys and values are text, as in Pegasus; this is
//! where they are checked and given types. The meta service checks before it keeps a setting, a storage node reads
//! what was kept.
//!
//! - `default_ttl`: seconds that a row lives which is written without a time to live; 0: until it is deleted
//! - `replica.write_throttling`, `replica.read_throttling`: `<n[K|M]>*delay*<ms>` and `<n[K|M]>*reject*<ms>`, one or
//!   both, by comma: requests a second of the whole table
//! - `replica.write_throttling_by_size`, `replica.read_throttling_by_size`: the same in bytes a second
//! - `replica.deny_client_request`: `reconfig*all`, `reconfig*write`, `reconfig*read`, and the same with `timeout`;
//!   empty: nothing is denied
//! - `replica.slow_query_threshold`: milliseconds, at least 20; what takes longer is logged
//! - `replica.rocksdb_iteration_threshold_time_ms`: how long one read of many rows may take; 0: no limit
//! - `rocksdb.usage_scenario`: `normal`, `prefer_write` or `bulk_load`
//! - `rocksdb.write_buffer_size`: bytes, 16 to 512 MiB
//! - `manual_compact.disabled`: `true` or `false`
//! - `manual_compact.once.trigger_time`: Unix second: files older than that are compacted, once
//! - `manual_compact.periodic.trigger_time`: times of the day in UTC, `3:00,21:30`
//! - `manual_compact.once.bottommost_level_compaction`, `manual_compact.periodic.bottommost_level_compaction`:
//!   `force` or `skip`
//! - `manual_compact.max_concurrent_running_count`: copies of this table that one node compacts at a time; 0: no limit
//! - `durability`: `synced` or `written`
//! - `limits.sort_key_bytes`, `limits.value_bytes`, `limits.write_bytes`, `limits.write_rows`: lower limits than the
//!   cluster's
//! - `business.info`: any text

use std::fmt;
use std::str::FromStr;

use crate::config::Durability;
use crate::limits::{
    ENVIRONMENT_ENTRIES_MAX, ENVIRONMENT_VALUE_BYTES_MAX, SORT_KEY_BYTES_MAX, VALUE_BYTES_MAX, WRITE_BYTES_MAX,
    WRITE_ROWS_MAX,
};
use crate::messages::control::EnvironmentEntry;

mod throttle;

pub use throttle::{Allowance, Throttle};

/// A setting that cannot be kept.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum EnvironmentError {
    /// No such setting.
    #[error("there is no setting {0:?}; the settings are {list}", list = KEYS.join(", "))]
    UnknownKey(String),
    /// A value that the setting cannot have.
    #[error("{key} cannot be {value:?}: {reason}")]
    InvalidValue {
        /// The setting.
        key: String,
        /// What it was to be.
        value: String,
        /// What it may be.
        reason: String,
    },
    /// Too many settings.
    #[error("a table has at most {ENVIRONMENT_ENTRIES_MAX} settings (environment_entries_max)")]
    TooMany,
}

/// Which requests of clients a table refuses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Denial {
    /// Reads are refused.
    pub reads: bool,
    /// Writes are refused.
    pub writes: bool,
    /// Clients of the compatibility protocol are left without an answer, instead of being sent to ask for the route.
    pub silent: bool,
}

/// What a table is mostly used for; decides how RocksDB shapes its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageScenario {
    /// Reads and writes.
    #[default]
    Normal,
    /// Mostly writes: larger buffers, later compactions.
    PreferWrite,
    /// Nothing but writes for a while: no compactions; reads become slow.
    BulkLoad,
}

/// Manual compaction of a table's files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManualCompaction {
    /// None is started.
    pub disabled: bool,
    /// Unix second: a copy whose last manual compaction began before it is compacted. 0: none.
    pub once_trigger_seconds: u64,
    /// Rewrites also the last level if it was started by `once_trigger_seconds`.
    pub once_bottommost: bool,
    /// Minutes of the day, in UTC, at which all copies are compacted; sorted, each once.
    pub periodic_trigger_minutes: Vec<u16>,
    /// Rewrites also the last level if it was started at such a minute.
    pub periodic_bottommost: bool,
    /// Copies of the table that a node compacts at a time; 0: no limit.
    pub concurrent_max: u32,
}

/// Limits of one table, each at most the cluster's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableLimits {
    /// Longest sort key.
    pub sort_key_bytes: usize,
    /// Longest value.
    pub value_bytes: usize,
    /// Largest write.
    pub write_bytes: usize,
    /// Most rows of one write.
    pub write_rows: usize,
}

impl Default for TableLimits {
    fn default() -> TableLimits {
        TableLimits {
            sort_key_bytes: SORT_KEY_BYTES_MAX,
            value_bytes: VALUE_BYTES_MAX,
            write_bytes: WRITE_BYTES_MAX,
            write_rows: WRITE_ROWS_MAX,
        }
    }
}

/// The environment of a table, with types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// Time to live of rows that are written without one; 0: until they are deleted.
    pub default_ttl_seconds: u32,
    /// Writes a second.
    pub write_throttle: Throttle,
    /// Bytes written a second.
    pub write_bytes_throttle: Throttle,
    /// Reads a second.
    pub read_throttle: Throttle,
    /// Bytes read a second.
    pub read_bytes_throttle: Throttle,
    /// Which requests are refused.
    pub denial: Denial,
    /// What takes longer is logged; 0: the node's setting.
    pub slow_query_ms: u32,
    /// How long one read of many rows may take; 0: no limit.
    pub iteration_ms: u32,
    /// What the table is used for.
    pub usage_scenario: UsageScenario,
    /// Size of a write buffer; 0: the node's setting.
    pub write_buffer_bytes: usize,
    /// Manual compaction.
    pub manual_compaction: ManualCompaction,
    /// When writes may be acknowledged, if it differs from what the table was made with.
    pub durability: Option<Durability>,
    /// Its limits.
    pub limits: TableLimits,
}

/// All settings.
pub const KEYS: &[&str] = &[
    "business.info",
    "default_ttl",
    "durability",
    "limits.sort_key_bytes",
    "limits.value_bytes",
    "limits.write_bytes",
    "limits.write_rows",
    "manual_compact.disabled",
    "manual_compact.max_concurrent_running_count",
    "manual_compact.once.bottommost_level_compaction",
    "manual_compact.once.trigger_time",
    "manual_compact.periodic.bottommost_level_compaction",
    "manual_compact.periodic.trigger_time",
    "replica.deny_client_request",
    "replica.read_throttling",
    "replica.read_throttling_by_size",
    "replica.rocksdb_iteration_threshold_time_ms",
    "replica.slow_query_threshold",
    "replica.write_throttling",
    "replica.write_throttling_by_size",
    "rocksdb.usage_scenario",
    "rocksdb.write_buffer_size",
];

const SLOW_QUERY_MS_MIN: u32 = 20;
const WRITE_BUFFER_BYTES_MIN: usize = 16 << 20;
const WRITE_BUFFER_BYTES_MAX: usize = 512 << 20;

impl Environment {
    /// Reads settings; the first one that cannot be kept is the error.
    pub fn parse(entries: &[EnvironmentEntry]) -> Result<Environment, EnvironmentError> {
        if entries.len() > ENVIRONMENT_ENTRIES_MAX {
            return Err(EnvironmentError::TooMany);
        }
        let mut environment = Environment::default();
        for EnvironmentEntry { key, value } in entries {
            environment.set(key, value)?;
        }
        Ok(environment)
    }

    /// Reads settings that were checked before they were kept. One that this release does not know, or reads
    /// otherwise, keeps its default, and is told.
    pub fn parse_kept(entries: &[EnvironmentEntry]) -> (Environment, Vec<EnvironmentError>) {
        let mut environment = Environment::default();
        let wrong = entries.iter().filter_map(|entry| environment.set(&entry.key, &entry.value).err()).collect();
        (environment, wrong)
    }

    /// Sets one setting; if that is an error nothing is changed.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), EnvironmentError> {
        if !KEYS.contains(&key) {
            return Err(EnvironmentError::UnknownKey(key.to_owned()));
        }
        let outcome = if value.len() > ENVIRONMENT_VALUE_BYTES_MAX {
            Err(format!("a value has at most {ENVIRONMENT_VALUE_BYTES_MAX} bytes (environment_value_bytes_max)"))
        } else {
            self.set_known(key, value.trim())
        };
        let invalid = |reason| EnvironmentError::InvalidValue { key: key.to_owned(), value: value.to_owned(), reason };
        outcome.map_err(invalid)
    }

    fn set_known(&mut self, key: &str, value: &str) -> Result<(), String> {
        let compaction = &mut self.manual_compaction;
        match key {
            "default_ttl" => self.default_ttl_seconds = number(value)?,
            "durability" => self.durability = Some(Durability::from_str(value)?),
            "limits.sort_key_bytes" => self.limits.sort_key_bytes = bounded(value, 0, SORT_KEY_BYTES_MAX)?,
            "limits.value_bytes" => self.limits.value_bytes = bounded(value, 1, VALUE_BYTES_MAX)?,
            "limits.write_bytes" => self.limits.write_bytes = bounded(value, 1024, WRITE_BYTES_MAX)?,
            "limits.write_rows" => self.limits.write_rows = bounded(value, 1, WRITE_ROWS_MAX)?,
            "manual_compact.disabled" => compaction.disabled = boolean(value)?,
            "manual_compact.max_concurrent_running_count" => compaction.concurrent_max = number(value)?,
            "manual_compact.once.bottommost_level_compaction" => compaction.once_bottommost = bottommost(value)?,
            "manual_compact.once.trigger_time" => compaction.once_trigger_seconds = number(value)?,
            "manual_compact.periodic.bottommost_level_compaction" => {
                compaction.periodic_bottommost = bottommost(value)?;
            }
            "manual_compact.periodic.trigger_time" => compaction.periodic_trigger_minutes = minutes(value)?,
            "replica.deny_client_request" => self.denial = Denial::from_str(value)?,
            "replica.read_throttling" => self.read_throttle = Throttle::from_str(value)?,
            "replica.read_throttling_by_size" => self.read_bytes_throttle = Throttle::from_str(value)?,
            "replica.rocksdb_iteration_threshold_time_ms" => self.iteration_ms = number(value)?,
            "replica.slow_query_threshold" => {
                self.slow_query_ms = bounded(value, SLOW_QUERY_MS_MIN as usize, u32::MAX as usize)? as u32;
            }
            "replica.write_throttling" => self.write_throttle = Throttle::from_str(value)?,
            "replica.write_throttling_by_size" => self.write_bytes_throttle = Throttle::from_str(value)?,
            "rocksdb.usage_scenario" => self.usage_scenario = UsageScenario::from_str(value)?,
            "rocksdb.write_buffer_size" => {
                self.write_buffer_bytes = bounded(value, WRITE_BUFFER_BYTES_MIN, WRITE_BUFFER_BYTES_MAX)?;
            }
            _ => {}
        }
        Ok(())
    }
}

impl FromStr for Denial {
    type Err = String;

    fn from_str(text: &str) -> Result<Denial, String> {
        if text.is_empty() {
            return Ok(Denial::default());
        }
        let denial = text.split_once('*').and_then(|(how, what)| {
            let silent = match how {
                "reconfig" => false,
                "timeout" => true,
                _ => return None,
            };
            let (reads, writes) = match what {
                "all" => (true, true),
                "read" => (true, false),
                "write" => (false, true),
                _ => return None,
            };
            Some(Denial { reads, writes, silent })
        });
        denial.ok_or_else(|| "it is empty, or reconfig or timeout, then *, then all, read or write".to_owned())
    }
}

impl FromStr for UsageScenario {
    type Err = String;

    fn from_str(text: &str) -> Result<UsageScenario, String> {
        match text {
            "normal" => Ok(UsageScenario::Normal),
            "prefer_write" => Ok(UsageScenario::PreferWrite),
            "bulk_load" => Ok(UsageScenario::BulkLoad),
            _ => Err("it is normal, prefer_write or bulk_load".to_owned()),
        }
    }
}

fn number<T: FromStr>(text: &str) -> Result<T, String>
where
    T::Err: fmt::Display,
{
    text.parse().map_err(|error| format!("it is a whole number, not negative ({error})"))
}

fn bounded(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let value: usize = number(text)?;
    if (least..=most).contains(&value) { Ok(value) } else { Err(format!("it is a number from {least} to {most}")) }
}

fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "it is true or false".to_owned())
}

fn bottommost(text: &str) -> Result<bool, String> {
    match text {
        "force" => Ok(true),
        "skip" => Ok(false),
        _ => Err("it is force or skip".to_owned()),
    }
}

/// `3:00,21:30`: minutes of the day.
fn minutes(text: &str) -> Result<Vec<u16>, String> {
    let mut minutes = Vec::new();
    for time in text.split(',').map(str::trim).filter(|time| !time.is_empty()) {
        let minute = time.split_once(':').and_then(|(hours, minutes)| {
            let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
        });
        minutes.push(minute.ok_or_else(|| format!("{time:?} is no time of the day; it is a list like 3:00,21:30"))?);
    }
    minutes.sort_unstable();
    minutes.dedup();
    Ok(minutes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(key: &str, value: &str) -> Result<Environment, EnvironmentError> {
        Environment::parse(&[EnvironmentEntry { key: key.into(), value: value.into() }])
    }

    #[test]
    fn every_key_has_a_value_that_it_takes() {
        for key in KEYS {
            let takes = |value: &&str| parsed(key, value).is_ok();
            let values = [
                "3600",
                "100",
                "true",
                "synced",
                "force",
                "100*reject*0",
                "reconfig*all",
                "normal",
                "67108864",
                "3:00",
            ];
            assert!(values.iter().any(takes), "{key} takes none of {values:?}");
        }
        assert!(KEYS.is_sorted());
    }

    #[test]
    fn values_get_types() {
        assert_eq!(parsed("default_ttl", " 60 ").unwrap().default_ttl_seconds, 60);
        let denial = parsed("replica.deny_client_request", "timeout*write").unwrap().denial;
        assert_eq!(denial, Denial { reads: false, writes: true, silent: true });
        let compaction = parsed("manual_compact.periodic.trigger_time", "21:30, 3:00,3:00").unwrap().manual_compaction;
        assert_eq!(compaction.periodic_trigger_minutes, [180, 1290]);
        assert_eq!(parsed("durability", "written").unwrap().durability, Some(Durability::Written));
        assert_eq!(parsed("limits.value_bytes", "100").unwrap().limits.value_bytes, 100);
    }

    #[test]
    fn what_cannot_be_kept_says_why() {
        let wrong = [
            ("default_ttl", "-1", "whole number"),
            ("replica.slow_query_threshold", "5", "20 to"),
            ("rocksdb.write_buffer_size", "1024", "16777216 to"),
            ("limits.value_bytes", "999999999", "1 to"),
            ("manual_compact.periodic.trigger_time", "25:00", "25:00"),
            ("replica.deny_client_request", "maybe", "reconfig or timeout"),
            ("no.such", "1", "default_ttl"),
        ];
        for (key, value, says) in wrong {
            let error = parsed(key, value).unwrap_err().to_string();
            assert!(error.contains(says) && error.contains(key), "{error}");
        }
        let long = "x".repeat(ENVIRONMENT_VALUE_BYTES_MAX + 1);
        assert!(parsed("business.info", &long).unwrap_err().to_string().contains("environment_value_bytes_max"));
        let many = vec![EnvironmentEntry { key: "business.info".into(), value: String::new() }; 65];
        assert_eq!(Environment::parse(&many), Err(EnvironmentError::TooMany));
    }

    #[test]
    fn what_was_kept_is_read_as_far_as_it_is_known() {
        let entry = |key: &str, value: &str| EnvironmentEntry { key: key.into(), value: value.into() };
        let (environment, wrong) =
            Environment::parse_kept(&[entry("of.a.later.release", "1"), entry("default_ttl", "9")]);
        assert_eq!((environment.default_ttl_seconds, wrong.len()), (9, 1));
    }
}
