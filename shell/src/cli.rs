//! The command line: the same words in a terminal, in a script and at the prompt.

use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

use crate::commands::{count, export, import, onebox, partition, rows, scan, table};
use crate::escape::{EscapeError, unescape};

/// Pegasus: tables of rows (hash key, sort key) -> value, replicated and strongly consistent.
///
/// Without a command it opens a prompt that knows the same words.
///
/// Keys and values may hold C-style escapes: \n \t \r \0 \\ and \xHH for any byte. What is printed has the same form.
/// Exit codes: 0 done, 1 no (no such row, not all whole, not all running), 2 error, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "pegasus", version, args_conflicts_with_subcommands = false)]
pub struct Cli {
    /// Options that every command takes.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options that every command takes.
#[derive(Clone, Debug, Default, Args)]
pub struct GlobalOptions {
    /// Addresses of the meta servers, separated by commas [env: PEGASUS_META] [default: 127.0.0.1:34601]
    #[arg(long, global = true, value_name = "ADDRESSES")]
    pub meta: Option<String>,
    /// Directory of ca.crt, client.crt and client.key [env: PEGASUS_TLS] [default: ./onebox/tls]
    #[arg(long, global = true, value_name = "DIRECTORY")]
    pub tls: Option<PathBuf>,
    /// The table to work on [env: PEGASUS_TABLE]
    #[arg(long, short = 't', global = true, value_name = "NAME")]
    pub table: Option<String>,
    /// How long one operation may take, in milliseconds [default: 5000]
    #[arg(long, global = true, value_name = "MILLISECONDS")]
    pub timeout_ms: Option<u64>,
    /// Print JSON
    #[arg(long, global = true)]
    pub json: bool,
}

impl GlobalOptions {
    /// These options, and where they say nothing, the others.
    pub fn or(self, other: &GlobalOptions) -> GlobalOptions {
        GlobalOptions {
            meta: self.meta.or_else(|| other.meta.clone()),
            tls: self.tls.or_else(|| other.tls.clone()),
            table: self.table.or_else(|| other.table.clone()),
            timeout_ms: self.timeout_ms.or(other.timeout_ms),
            json: self.json || other.json,
        }
    }
}

/// All commands.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum Command {
    /// Run a cluster on this machine
    Onebox(onebox::OneboxCommand),
    /// Make, list and describe tables
    Table(table::TableCommand),
    /// List partitions, explain those that are not whole, force one that has lost its members
    Partition(partition::PartitionCommand),
    /// Show the cluster: meta servers, nodes, tables
    Status,
    /// Insert or overwrite a row
    Set(rows::SetArguments),
    /// Print the value of a row
    Get(rows::GetArguments),
    /// Delete a row
    Del(rows::RowArguments),
    /// Tell whether a row exists
    Exist(rows::RowArguments),
    /// Print how many seconds a row has to live
    Ttl(rows::RowArguments),
    /// Insert or overwrite rows of one hash key, all or none
    MultiSet(rows::MultiSetArguments),
    /// Print rows of one hash key, by sort keys or by a range
    MultiGet(rows::MultiGetArguments),
    /// Delete rows of one hash key, all or none
    MultiDel(rows::MultiDelArguments),
    /// Print the rows of one hash key
    HashScan(scan::HashScanArguments),
    /// Print the rows of the table, in no particular order
    Scan(scan::ScanArguments),
    /// Count the rows of the table, or of one hash key
    Count(count::CountArguments),
    /// Load rows from a file or pipe
    Import(import::ImportArguments),
    /// Write all rows of the table to a file or pipe
    Export(export::ExportArguments),
}

/// A key or value given as text with escapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text(pub Vec<u8>);

impl FromStr for Text {
    type Err = EscapeError;

    fn from_str(text: &str) -> Result<Text, EscapeError> {
        unescape(text.as_bytes()).map(Text)
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &[&str]) -> Cli {
        Cli::try_parse_from(std::iter::once(&"pegasus").chain(line)).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn keys_and_values_are_unescaped() {
        let Some(Command::Set(set)) = parse(&["set", "-t", "temp", r"a\x00b", "", r"v\n", "--ttl", "7"]).command else {
            panic!("a set")
        };
        assert_eq!((set.row.hash_key.0, set.row.sort_key.0), (b"a\0b".to_vec(), Vec::new()));
        assert_eq!((set.value.0, set.ttl), (b"v\n".to_vec(), 7));
        let error = Cli::try_parse_from(["pegasus", "get", r"a\q", "s"]).expect_err("a bad escape");
        assert!(error.to_string().contains("unknown escape"), "{error}");
    }

    #[test]
    fn words_are_written_as_in_pegasus() {
        for words in [
            &["multi_set", "h", "s", "v"][..],
            &["multi_get", "h", "s"],
            &["multi_del", "h", "s"],
            &["hash_scan", "h"],
            &["table", "create", "temp", "--partitions", "8"],
            &["onebox", "start", "--nodes", "3", "--cores", "2", "--only", "replica2"],
            &["onebox", "kill", "--only", "replica1"],
            &["onebox", "stop", "--node", "replica2", "--kill"],
            &["onebox", "start", "--node", "replica2"],
            &["partition", "list"],
            &["partition", "list", "--table", "temp"],
            &["partition", "diagnose", "--all", "--json"],
            &["import", "-", "-t", "temp"],
            &["export", "rows.tsv", "--expiry", "-t", "temp"],
            &["count"],
            &["status", "--json"],
        ] {
            assert!(parse(words).command.is_some(), "{words:?}");
        }
        assert!(parse(&[]).command.is_none());
    }

    #[test]
    fn a_force_needs_all_its_words() {
        let force = ["partition", "force", "--table", "temp", "--index", "3", "--primary", "127.0.0.1:34802"];
        let whole = [&force[..], &["--expected-ballot", "7", "--accept-loss"]].concat();
        assert!(parse(&whole).command.is_some());
        for length in [2, 6, 8] {
            assert!(
                Cli::try_parse_from(std::iter::once(&"pegasus").chain(&force[..length])).is_err(),
                "{length} words"
            );
        }
        let error =
            Cli::try_parse_from(["pegasus", "partition", "force", "--primary", "replica2"]).expect_err("no node");
        assert!(error.to_string().contains("16 digits"), "{error}");
    }

    #[test]
    fn options_of_a_line_win_over_those_of_the_session() {
        let session = GlobalOptions { table: Some("temp".into()), timeout_ms: Some(9), ..GlobalOptions::default() };
        let line = GlobalOptions { table: Some("stat".into()), json: true, ..GlobalOptions::default() };
        let both = line.or(&session);
        assert_eq!((both.table.as_deref(), both.timeout_ms, both.json), (Some("stat"), Some(9), true));
    }
}
