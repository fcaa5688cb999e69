//! The prompt: the words of the command line, with history and completion, on one connection; and some words that are
//! only about the prompt itself.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use clap::CommandFactory;
use pegasus_client::{Client, OPERATION_TIMEOUT, TableState};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Context as LineContext, Editor, Helper, Highlighter, Hinter, Validator};
use tokio::runtime::Runtime;

use crate::cli::{Cli, Command, GlobalOptions, parse};
use crate::commands;
use crate::commands::import::interrupt;
use crate::completion::{Names, complete};
use crate::context::Context;
use crate::output::{Ending, Failure, Outcome, Style};
use crate::words::split;

/// Words of the prompt that are no commands: word, arguments, meaning.
pub(crate) const PROMPT_WORDS: [(&str, &str, &str); 8] = [
    ("use", "[TABLE]", "work on this table from now on; alone: say which one it is"),
    ("cc", "ADDRESSES [TLS]", "go to another cluster: its meta servers, and the directory of its certificates"),
    ("timeout", "[MILLISECONDS]", "how long one operation may take from now on; alone: say how long"),
    ("escape_all", "[true|false]", "print every byte of keys and values as \\xHH from now on; alone: say if"),
    ("version", "", "say which release this is"),
    ("help", "[COMMAND]", "show this, or the options of a command"),
    ("exit", "", "leave (also: quit, Ctrl-D)"),
    ("quit", "", "leave"),
];

/// The commands as `help` lists them.
const GROUPS: [(&str, &[&str]); 5] = [
    ("one row", &["set", "get", "del", "exist", "ttl", "incr", "check_and_set", "compare_exchange", "hash"]),
    (
        "rows of one hash key",
        &[
            "multi_set",
            "multi_get",
            "multi_get_range",
            "multi_get_sortkeys",
            "multi_del",
            "multi_del_range",
            "check_and_mutate",
            "count",
            "hash_scan",
        ],
    ),
    ("rows of a table", &["full_scan", "sorted_scan", "count_data", "copy_data", "clear_data", "import", "export"]),
    (
        "tables",
        &[
            "table",
            "create",
            "ls",
            "app",
            "drop",
            "recall",
            "rename",
            "get_app_envs",
            "set_app_envs",
            "del_app_envs",
            "clear_app_envs",
        ],
    ),
    ("the cluster", &["status", "nodes", "cluster_info", "partition", "onebox"]),
];

/// What a line of the prompt asks for.
#[derive(Debug)]
enum Line {
    Nothing,
    Exit,
    Set(Setting),
    Command(Box<Cli>),
    Text(String),
}

/// Something that holds for all lines to come.
#[derive(Debug, PartialEq, Eq)]
enum Setting {
    Table(Option<String>),
    Cluster { meta: String, tls: Option<PathBuf> },
    TimeoutMs(Option<u64>),
    EscapeAll(Option<bool>),
}

/// Runs the prompt until the user leaves.
pub fn run(runtime: &Runtime, global: GlobalOptions) -> Outcome {
    let names = Arc::new(Mutex::new(Names::default()));
    let mut editor = editor(names.clone()).map_err(|error| Failure::new("prompt", error.to_string()))?;
    let history = history_path();
    if let Some(path) = &history {
        // There is none the first time.
        let _loaded = editor.load_history(path);
    }
    let mut session = Session { global, client: None, names };
    runtime.block_on(session.connect());
    println!("help lists the commands");
    loop {
        let prompt = format!("pegasus{}> ", session.global.table.as_ref().map_or(String::new(), |t| format!(":{t}")));
        match editor.readline(&prompt) {
            Ok(line) => {
                // A line that is not kept in the history is no reason to stop.
                let _added = editor.add_history_entry(line.trim());
                if !session.perform(runtime, &line) {
                    break;
                }
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(Failure::new("prompt", error.to_string())),
        }
    }
    if let Some(path) = &history
        && let Err(error) = editor.save_history(path)
    {
        eprintln!("cannot write the history {}: {error}", path.display());
    }
    if let Some(client) = session.client {
        runtime.block_on(client.close());
    }
    Ok(Ending::Yes)
}

/// What stays from line to line.
struct Session {
    global: GlobalOptions,
    client: Option<Client>,
    names: Arc<Mutex<Names>>,
}

impl Session {
    /// Connects and learns the tables. A cluster that is not there is no reason not to begin: `onebox start` is a word
    /// of the prompt too.
    async fn connect(&mut self) {
        let context = Context::with_client(self.global.clone(), None);
        if let Err(failure) = context.client().await {
            eprintln!("not connected: {}", failure.message);
        }
        self.client = context.connected();
        self.learn_names().await;
    }

    /// Carries out one line; false to leave.
    fn perform(&mut self, runtime: &Runtime, line: &str) -> bool {
        match read_line(line) {
            Ok(Line::Nothing) => {}
            Ok(Line::Exit) => return false,
            Ok(Line::Text(text)) => println!("{}", text.trim_end()),
            Ok(Line::Set(setting)) => self.set(runtime, setting),
            Ok(Line::Command(cli)) => runtime.block_on(self.command(*cli)),
            Err(text) => eprintln!("{}", text.trim_end()),
        }
        true
    }

    /// Changes what holds for all lines to come, or says what does.
    fn set(&mut self, runtime: &Runtime, setting: Setting) {
        match setting {
            Setting::Table(Some(table)) => self.global.table = Some(table),
            Setting::TimeoutMs(Some(timeout_ms)) => self.global.timeout_ms = Some(timeout_ms),
            Setting::EscapeAll(Some(escape_all)) => self.global.escape_all = escape_all,
            Setting::Table(None) => match &self.global.table {
                Some(table) => println!("{table}"),
                None => println!("no table; use TABLE chooses one"),
            },
            Setting::TimeoutMs(None) => {
                let default_ms = OPERATION_TIMEOUT.as_millis() as u64;
                println!("{} ms", self.global.timeout_ms.unwrap_or(default_ms));
            }
            Setting::EscapeAll(None) => println!("{}", self.global.escape_all),
            Setting::Cluster { meta, tls } => {
                self.global.meta = Some(meta);
                self.global.tls = tls.or(self.global.tls.take());
                self.global.table = None;
                runtime.block_on(async {
                    if let Some(client) = self.client.take() {
                        client.close().await;
                    }
                    self.connect().await;
                });
            }
        }
    }

    async fn command(&mut self, cli: Cli) {
        let Some(command) = cli.command else { return };
        let global = cli.global.or(&self.global);
        let same_cluster = global.meta == self.global.meta && global.tls == self.global.tls;
        let client = self.client.clone().filter(|_| same_cluster);
        let tables_change = matches!(command, Command::Tables(_) | Command::Onebox(_));
        let interruptible = !takes_interrupt(&command);
        let context = Context::with_client(global, client);
        let style = context.style();
        tokio::select! {
            outcome = commands::run(&context, command) => show_failure(style, outcome),
            () = interrupt(), if interruptible => eprintln!("interrupted"),
        }
        if same_cluster {
            self.client = context.connected();
        }
        if tables_change {
            self.learn_names().await;
        }
    }

    async fn learn_names(&self) {
        let Some(client) = &self.client else { return };
        // Completion is a convenience: it goes without names if the cluster does not answer soon.
        let asked = tokio::time::timeout(Duration::from_secs(2), client.list_tables()).await;
        let Ok(Ok(tables)) = asked else { return };
        let (serving, dropped): (Vec<_>, Vec<_>) =
            tables.into_iter().partition(|table| table.state == TableState::Available);
        *self.names.lock().unwrap_or_else(PoisonError::into_inner) = Names {
            tables: serving.into_iter().map(|table| table.properties.name).collect(),
            dropped: dropped.iter().map(|table| table.properties.table.to_string()).collect(),
        };
    }
}

/// True for commands that take the user's interrupt themselves, to end cleanly.
fn takes_interrupt(command: &Command) -> bool {
    matches!(
        command,
        Command::Import(_) | Command::Export(_) | Command::CopyData(_) | Command::ClearData(_) | Command::CountData(_)
    )
}

fn show_failure(style: Style, outcome: Outcome) {
    if let Err(failure) = outcome {
        style.show_failure(&failure);
    }
}

fn read_line(line: &str) -> Result<Line, String> {
    let words = split(line)?;
    let own = match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => Some(Line::Nothing),
        ["exit" | "quit"] => Some(Line::Exit),
        ["version"] => Some(Line::Text(format!("pegasus {}", env!("CARGO_PKG_VERSION")))),
        ["help"] => Some(Line::Text(help())),
        ["help", word] => help_of(word).map(Line::Text),
        ["help", ..] => None,
        [word, arguments @ ..] => match (read_setting(word, arguments), help_of(word)) {
            (Some(setting), _) => Some(Line::Set(setting)),
            (None, Some(text)) => return Err(format!("{word} is written: {text}")),
            (None, None) => None,
        },
    };
    if let Some(own) = own {
        return Ok(own);
    }
    match parse(words) {
        Ok(cli) => Ok(Line::Command(Box::new(cli))),
        Err(error) if !error.use_stderr() => Ok(Line::Text(error.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

/// A word that changes what holds for all lines, or asks for it.
fn read_setting(word: &str, arguments: &[&str]) -> Option<Setting> {
    match (word, arguments) {
        ("use", []) => Some(Setting::Table(None)),
        ("use", [table]) => Some(Setting::Table(Some((*table).to_owned()))),
        ("timeout", []) => Some(Setting::TimeoutMs(None)),
        ("timeout", [ms]) => Some(Setting::TimeoutMs(Some(ms.parse().ok().filter(|ms| *ms > 0)?))),
        ("escape_all", []) => Some(Setting::EscapeAll(None)),
        ("escape_all", [yes]) => Some(Setting::EscapeAll(Some(yes.parse().ok()?))),
        ("cc", [meta]) => Some(Setting::Cluster { meta: (*meta).to_owned(), tls: None }),
        ("cc", [meta, tls]) => Some(Setting::Cluster { meta: (*meta).to_owned(), tls: Some(tls.into()) }),
        _ => None,
    }
}

/// What a word of the prompt means.
fn help_of(word: &str) -> Option<String> {
    let (word, arguments, meaning) = PROMPT_WORDS.iter().find(|(name, ..)| *name == word)?;
    Some(format!("{}\n  {meaning}", format!("{word} {arguments}").trim_end()))
}

fn help() -> String {
    let root = Cli::command();
    let line = |name: &str, about: &str| format!("  {name:<24} {about}\n");
    let mut out = String::from("at the prompt\n");
    for (word, arguments, meaning) in PROMPT_WORDS.iter().filter(|(word, ..)| *word != "quit") {
        out.push_str(&line(&format!("{word} {arguments}"), meaning));
    }
    for (group, words) in GROUPS {
        out.push_str(&format!("\n{group}\n"));
        for command in words.iter().filter_map(|word| root.find_subcommand(word)) {
            let about = command.get_about().map(ToString::to_string).unwrap_or_default();
            let aliases: Vec<&str> = command.get_visible_aliases().collect();
            let aliases = if aliases.is_empty() { String::new() } else { format!(" (also: {})", aliases.join(", ")) };
            out.push_str(&line(command.get_name(), &format!("{about}{aliases}")));
        }
    }
    out
}

fn history_path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("PEGASUS_HISTORY") {
        return Some(path.into());
    }
    std::env::home_dir().map(|home| home.join(".pegasus_history"))
}

fn editor(names: Arc<Mutex<Names>>) -> rustyline::Result<Editor<Words, FileHistory>> {
    let config = Config::builder().completion_type(CompletionType::List).build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Words { names }));
    Ok(editor)
}

/// Completes what is typed.
#[derive(Helper, Highlighter, Hinter, Validator)]
struct Words {
    names: Arc<Mutex<Names>>,
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, position: usize, _: &LineContext<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(complete(&line[..position], &names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(line: &str) -> Setting {
        match read_line(line) {
            Ok(Line::Set(setting)) => setting,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn text(line: &str) -> String {
        match read_line(line) {
            Ok(Line::Text(text)) => text,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn lines_are_read() {
        assert!(matches!(read_line("  "), Ok(Line::Nothing)));
        assert!(matches!(read_line("exit"), Ok(Line::Exit)) && matches!(read_line("quit"), Ok(Line::Exit)));
        assert!(matches!(read_line("set 'a b' '' v"), Ok(Line::Command(_))));
        assert!(matches!(read_line("partition diagnose --table temp"), Ok(Line::Command(_))));
        assert!(read_line("set 'a").is_err());
        assert!(read_line("get h").is_err());
        assert!(text("version").starts_with("pegasus "));
    }

    #[test]
    fn settings_are_read_and_asked_for() {
        assert_eq!(setting("use temp"), Setting::Table(Some("temp".into())));
        assert_eq!(setting("use"), Setting::Table(None));
        assert_eq!(setting("timeout 300"), Setting::TimeoutMs(Some(300)));
        assert_eq!(setting("timeout"), Setting::TimeoutMs(None));
        assert_eq!(setting("escape_all true"), Setting::EscapeAll(Some(true)));
        let cluster = Setting::Cluster { meta: "127.0.0.1:1".into(), tls: Some("tls".into()) };
        assert_eq!(setting("cc 127.0.0.1:1 tls"), cluster);
        for line in ["use a b", "timeout soon", "timeout 0", "escape_all maybe", "cc", "cc a b c", "version 2"] {
            let error = read_line(line).expect_err(line);
            assert!(error.contains("is written"), "{line}: {error}");
        }
    }

    #[test]
    fn every_command_has_help_and_a_place_in_the_list() {
        let root = Cli::command();
        let listed: Vec<&str> = GROUPS.iter().flat_map(|(_, words)| words.iter().copied()).collect();
        for command in root.get_subcommands() {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} has no help");
            assert_eq!(listed.iter().filter(|word| **word == name).count(), 1, "{name} is listed once");
            assert!(text(&format!("help {name}")).contains("--json"), "{name}");
        }
        assert!(listed.iter().all(|word| root.find_subcommand(word).is_some()));
        let help = help();
        for (word, ..) in PROMPT_WORDS {
            assert!(help.contains(word) && text(&format!("help {word}")).contains(word), "{word}");
        }
        assert!(text("help table create").contains("--if-not-exists"));
        assert!(help.contains("(also: scan)") && text("help set").contains("--ttl"), "{help}");
    }
}
