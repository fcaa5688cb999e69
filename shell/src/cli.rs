//! The command line: the same words in a terminal, in a script and at the prompt.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

use crate::commands::arguments::RowArguments;
use crate::commands::environment::{ClearEnvironmentArguments, DeleteEnvironmentArguments, SetEnvironmentArguments};
use crate::commands::lifecycle::{DropArguments, RecallArguments, RenameArguments};
use crate::commands::table::{CreateArguments, DescribeArguments, ListArguments, TableCommand};
use crate::commands::{
    check, clear_data, copy_data, count, count_data, export, hash, import, multi, onebox, partition, rows, scan,
};
use crate::escape::{EscapeError, unescape};

/// Pegasus: tables of rows (hash key, sort key) -> value, replicated and strongly consistent.
///
/// Without a command it opens a prompt that knows the same words.
///
/// Keys and values may hold C-style escapes: \n \t \r \0 \\ and \xHH for any byte. What is printed has the same form.
/// Options may be written with '-' or '_' between their words, as in Pegasus: --no-value, --no_value.
/// Exit codes: 0 done, 1 no (no such row, not all whole, not written), 2 error, 130 interrupted.
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

/// Reads a command line, without the program's name.
pub fn parse<W: Into<OsString>>(words: impl IntoIterator<Item = W>) -> Result<Cli, clap::Error> {
    let mut after_dashes = false;
    let words = words.into_iter().map(|word| {
        let word = word.into();
        after_dashes |= word == "--";
        if after_dashes { word } else { with_hyphens(&word).unwrap_or(word) }
    });
    Cli::try_parse_from(std::iter::once(OsString::from("pegasus")).chain(words))
}

/// An option that is written with underscores, as in Pegasus, with hyphens; its value stays as it is. `None` for what
/// is no such option.
fn with_hyphens(word: &OsStr) -> Option<OsString> {
    let option = word.to_str()?.strip_prefix("--")?;
    let (name, value) = match option.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option, None),
    };
    let value = value.map_or(String::new(), |value| format!("={value}"));
    name.contains('_').then(|| format!("--{}{value}", name.replace('_', "-")).into())
}

/// Options that every command takes.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Options of every command")]
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
    /// Print every byte of keys and values as \xHH
    #[arg(long, global = true)]
    pub escape_all: bool,
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
            escape_all: self.escape_all || other.escape_all,
        }
    }
}

/// All commands.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum Command {
    /// Insert or overwrite a row
    Set(rows::SetArguments),
    /// Print the value of a row
    Get(rows::GetArguments),
    /// Delete a row
    Del(RowArguments),
    /// Tell whether a row exists
    Exist(RowArguments),
    /// Print how many seconds a row has to live
    Ttl(RowArguments),
    /// Add to the number in a row
    Incr(rows::IncrArguments),
    /// Set a row if a row of the same hash key passes a check
    CheckAndSet(check::CheckAndSetArguments),
    /// Change rows of one hash key, all or none, if one of them passes a check
    CheckAndMutate(check::CheckAndMutateArguments),
    /// Replace a value by another if it is the expected one
    CompareExchange(check::CompareExchangeArguments),
    /// Insert or overwrite rows of one hash key, all or none
    MultiSet(multi::MultiSetArguments),
    /// Print rows of one hash key, by their sort keys or all
    MultiGet(multi::MultiGetArguments),
    /// Print rows of one hash key, by a range of sort keys
    MultiGetRange(multi::MultiGetRangeArguments),
    /// Print the sort keys of one hash key
    MultiGetSortkeys(multi::MultiGetSortKeysArguments),
    /// Delete rows of one hash key, all or none
    MultiDel(multi::MultiDelArguments),
    /// Delete a range of rows of one hash key, all or none
    MultiDelRange(multi::MultiDelRangeArguments),
    /// Count the rows of one hash key, or of the table
    #[command(visible_alias = "sortkey_count")]
    Count(count::CountArguments),
    /// Print the rows of one hash key, by a range of sort keys, as they come
    HashScan(scan::HashScanArguments),
    /// Print the rows of the table, in no particular order
    #[command(visible_alias = "scan")]
    FullScan(scan::FullScanArguments),
    /// Print the rows of the table in the order of their hash keys
    SortedScan(scan::SortedScanArguments),
    /// Print the hash of a key, its partition and the members
    Hash(hash::HashArguments),
    /// Count the rows of the table by partition, with the sizes of keys and values
    CountData(count_data::CountDataArguments),
    /// Copy the rows of the table into another one
    CopyData(copy_data::CopyDataArguments),
    /// Delete the rows of the table
    ClearData(clear_data::ClearDataArguments),
    /// Load rows from a file or pipe
    Import(import::ImportArguments),
    /// Write all rows of the table to a file or pipe
    Export(export::ExportArguments),
    /// Tables.
    #[command(flatten)]
    Tables(TableWord),
    /// Show the cluster: meta servers, nodes, tables
    Status,
    /// Show the nodes
    Nodes,
    /// Show the cluster in numbers
    ClusterInfo,
    /// List partitions, explain those that are not whole, force one that has lost its members
    Partition(partition::PartitionCommand),
    /// Run a cluster on this machine
    Onebox(onebox::OneboxCommand),
}

/// Commands about tables.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum TableWord {
    /// Make, list, describe, drop, recall, rename and purge tables; their environment and compaction
    Table(TableCommand),
    /// As table create: make a table and wait until it serves
    Create(CreateArguments),
    /// As table list: list the tables
    Ls(ListArguments),
    /// As table describe: show a table's properties, environment and partitions
    App(DescribeArguments),
    /// As table drop: drop a table; it can be recalled for a time
    Drop(DropArguments),
    /// As table recall: take a dropped table back
    Recall(RecallArguments),
    /// As table rename: give a table another name
    Rename(RenameArguments),
    /// As table env list: list the settings of the table
    GetAppEnvs,
    /// As table env set: set settings of the table
    SetAppEnvs(SetEnvironmentArguments),
    /// As table env del: delete settings of the table
    DelAppEnvs(DeleteEnvironmentArguments),
    /// As table env clear: delete all settings of the table
    ClearAppEnvs(ClearEnvironmentArguments),
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

    fn cli(line: &[&str]) -> Cli {
        parse(line.iter().map(ToString::to_string)).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn keys_and_values_are_unescaped() {
        let Some(Command::Set(set)) = cli(&["set", "-t", "temp", r"a\x00b", "", r"v\n", "--ttl", "7"]).command else {
            panic!("a set")
        };
        assert_eq!((set.row.hash_key.0, set.row.sort_key.0), (b"a\0b".to_vec(), Vec::new()));
        assert_eq!((set.value.0, set.ttl), (b"v\n".to_vec(), Some(7)));
        let error = parse(["get", r"a\q", "s"]).expect_err("a bad escape");
        assert!(error.to_string().contains("unknown escape"), "{error}");
    }

    #[test]
    fn words_are_written_as_in_pegasus() {
        for words in [
            "multi_set h s v",
            "multi_get h s",
            "multi_get_sortkeys h",
            "multi_del h s",
            "hash_scan h",
            "scan",
            "sortkey_count h",
            "table create temp --partitions 8",
            "create temp -p 8 -r 3 -e default_ttl=60",
            "ls -a",
            "app temp -d",
            "nodes",
            "cluster_info",
            "recall 3 temp",
            "rename temp other",
            "get_app_envs",
            "del_app_envs default_ttl",
            "table compact start --bottommost",
            "table compact temp start",
            "table compact temp status",
            "table compact status",
            "table purge 3 --force",
            "hash h s",
            "onebox start --nodes 3 --cores 2 --only replica2",
            "onebox kill --only replica1",
            "onebox stop --node replica2 --kill",
            "onebox start --node replica2",
            "partition list",
            "partition list --table temp",
            "partition diagnose --all --json",
            "import - -t temp",
            "export rows.tsv --expiry -t temp",
            "count",
            "status --json",
        ] {
            assert!(cli(&words.split(' ').collect::<Vec<_>>()).command.is_some(), "{words}");
        }
        assert!(cli(&[]).command.is_none());
    }

    #[test]
    fn options_may_have_underscores_and_values_keep_theirs() {
        let all = cli(&["--timeout_ms=7", "set", "h", "s", "--ttl=5", "--", "--a_b"]);
        assert_eq!(all.global.timeout_ms, Some(7));
        let Some(Command::Set(set)) = all.command else { panic!("a set") };
        assert_eq!(set.value.0, b"--a_b");
        let hyphens = |word: &str| with_hyphens(OsStr::new(word)).and_then(|word| word.into_string().ok());
        assert_eq!(hyphens("--no_value").as_deref(), Some("--no-value"));
        assert_eq!(hyphens("--check_operand=a_b").as_deref(), Some("--check-operand=a_b"));
        for word in ["a_b", "-a_b", "--json", "--meta=a_b"] {
            assert_eq!(hyphens(word), None, "{word}");
        }
    }

    #[test]
    fn a_force_needs_all_its_words() {
        let force = ["partition", "force", "--table", "temp", "--index", "3", "--primary", "127.0.0.1:34802"];
        let whole = [&force[..], &["--expected-ballot", "7", "--accept-loss"]].concat();
        assert!(cli(&whole).command.is_some());
        for length in [2, 6, 8] {
            assert!(parse(&force[..length]).is_err(), "{length} words");
        }
        let error = parse(["partition", "force", "--primary", "replica2"]).expect_err("no node");
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
