//! The prompt: the words of the command line, with history and completion, on one connection.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use clap::{CommandFactory, Parser};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Context as LineContext, Editor, Helper, Highlighter, Hinter, Validator};
use tokio::runtime::Runtime;

use crate::cli::{Cli, Command, GlobalOptions};
use crate::commands;
use crate::commands::import::interrupt;
use crate::context::Context;
use crate::output::{Ending, Failure, Outcome, Style};
use crate::words::split;

/// Words of the prompt that are no commands.
const PROMPT_WORDS: [&str; 4] = ["use", "help", "exit", "quit"];
/// What `help` prints above the commands.
const HELP: &str = "use TABLE       work on this table from now on\n\
                    help [COMMAND]  show this, or the options of a command\n\
                    exit            leave (also: quit, Ctrl-D)\n";

/// What a line of the prompt asks for.
enum Line {
    Nothing,
    Exit,
    Use(String),
    Command(Box<Cli>),
    Text(String),
}

/// Runs the prompt until the user leaves.
pub fn run(runtime: &Runtime, global: GlobalOptions) -> Outcome {
    let tables = Arc::new(Mutex::new(Vec::new()));
    let mut editor = editor(tables.clone()).map_err(|error| Failure::new("prompt", error.to_string()))?;
    let history = history_path();
    if let Some(path) = &history {
        // There is none the first time.
        let _loaded = editor.load_history(path);
    }
    let mut session = Session { global, client: None, tables };
    runtime.block_on(session.greet());
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
    client: Option<pegasus_client::Client>,
    tables: Arc<Mutex<Vec<String>>>,
}

impl Session {
    /// Connects and learns the tables. A cluster that is not there is no reason not to begin: `onebox start` is a word
    /// of the prompt too.
    async fn greet(&mut self) {
        let context = Context::with_client(self.global.clone(), None);
        if let Err(failure) = context.client().await {
            eprintln!("not connected: {}", failure.message);
        }
        self.client = context.connected();
        self.learn_tables().await;
        println!("help lists the commands");
    }

    /// Carries out one line; false to leave.
    fn perform(&mut self, runtime: &Runtime, line: &str) -> bool {
        match read_line(line) {
            Ok(Line::Nothing) => {}
            Ok(Line::Exit) => return false,
            Ok(Line::Text(text)) => println!("{}", text.trim_end()),
            Ok(Line::Use(table)) => self.global.table = Some(table),
            Ok(Line::Command(cli)) => runtime.block_on(self.command(*cli)),
            Err(text) => eprintln!("{}", text.trim_end()),
        }
        true
    }

    async fn command(&mut self, cli: Cli) {
        let Some(command) = cli.command else { return };
        let global = cli.global.or(&self.global);
        let same_cluster = global.meta == self.global.meta && global.tls == self.global.tls;
        let same_timeout = global.timeout_ms == self.global.timeout_ms;
        let client = self.client.clone().filter(|_| same_cluster && same_timeout);
        let tables_change = matches!(command, Command::Table(_) | Command::Onebox(_));
        // Import and export take the interrupt themselves, to end cleanly.
        let interruptible = !matches!(command, Command::Import(_) | Command::Export(_));
        let context = Context::with_client(global, client);
        let style = context.style();
        tokio::select! {
            outcome = commands::run(&context, command) => show_failure(style, outcome),
            () = interrupt(), if interruptible => eprintln!("interrupted"),
        }
        if same_cluster && same_timeout {
            self.client = context.connected();
        }
        if tables_change {
            self.learn_tables().await;
        }
    }

    async fn learn_tables(&self) {
        let Some(client) = &self.client else { return };
        // Completion is a convenience: it goes without names if the cluster does not answer.
        let Ok(tables) = client.list_tables().await else { return };
        *self.tables.lock().unwrap_or_else(PoisonError::into_inner) = tables.into_iter().map(|t| t.name).collect();
    }
}

fn show_failure(style: Style, outcome: Outcome) {
    if let Err(failure) = outcome {
        style.show_failure(&failure);
    }
}

fn read_line(line: &str) -> Result<Line, String> {
    let words = split(line)?;
    match words.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [] => return Ok(Line::Nothing),
        ["exit" | "quit"] => return Ok(Line::Exit),
        ["use", table] => return Ok(Line::Use((*table).to_owned())),
        ["use", ..] => return Err("use takes the name of a table".into()),
        ["help"] => return Ok(Line::Text(format!("{HELP}\n{}", command_list()))),
        _ => {}
    }
    let parsed = Cli::try_parse_from(std::iter::once("pegasus".to_owned()).chain(words));
    match parsed {
        Ok(cli) => Ok(Line::Command(Box::new(cli))),
        Err(error) if !error.use_stderr() => Ok(Line::Text(error.to_string())),
        Err(error) => Err(error.to_string()),
    }
}

fn command_list() -> String {
    let mut out = String::new();
    for command in Cli::command().get_subcommands() {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        out.push_str(&format!("{:<15} {about}\n", command.get_name()));
    }
    out
}

fn history_path() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("PEGASUS_HISTORY") {
        return Some(path.into());
    }
    std::env::home_dir().map(|home| home.join(".pegasus_history"))
}

fn editor(tables: Arc<Mutex<Vec<String>>>) -> rustyline::Result<Editor<Words, FileHistory>> {
    let config = Config::builder().completion_type(CompletionType::List).build();
    let mut editor = Editor::with_config(config)?;
    editor.set_helper(Some(Words { tables }));
    Ok(editor)
}

/// Completes commands, verbs, options and table names.
#[derive(Helper, Highlighter, Hinter, Validator)]
struct Words {
    tables: Arc<Mutex<Vec<String>>>,
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, position: usize, _: &LineContext<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(complete(&line[..position], &tables))
    }
}

/// Where the word at the end of `line` begins, and what it could become.
fn complete(line: &str, tables: &[String]) -> (usize, Vec<String>) {
    let start = line.rfind(char::is_whitespace).map_or(0, |position| position + 1);
    let (before, word) = (&line[..start], &line[start..]);
    let previous: Vec<&str> = before.split_whitespace().collect();
    let mut candidates = candidates(&previous, word.starts_with('-'), tables);
    candidates.retain(|candidate| candidate.starts_with(word));
    candidates.sort_unstable();
    candidates.dedup();
    if let [only] = candidates.as_mut_slice() {
        only.push(' ');
    }
    (start, candidates)
}

fn candidates(previous: &[&str], option: bool, tables: &[String]) -> Vec<String> {
    if matches!(previous, ["use"] | [.., "-t" | "--table"] | ["table", "describe"]) {
        return tables.to_vec();
    }
    let root = Cli::command();
    let mut command = &root;
    for word in previous {
        if let Some(next) = command.find_subcommand(word) {
            command = next;
        }
    }
    if option {
        let own = command.get_arguments().chain(root.get_arguments());
        let words = own.flat_map(|argument| argument.get_long_and_visible_aliases().unwrap_or_default());
        return words.map(|long| format!("--{long}")).collect();
    }
    let verbs = command.get_subcommands().map(|verb| verb.get_name().to_owned());
    match previous {
        [] => verbs.chain(PROMPT_WORDS.map(str::to_owned)).collect(),
        _ if std::ptr::eq(command, &root) => Vec::new(),
        _ => verbs.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completions(line: &str) -> Vec<String> {
        complete(line, &["temp".to_owned(), "stat".to_owned()]).1
    }

    #[test]
    fn words_and_tables_are_completed() {
        assert_eq!(completions("mul"), ["multi_del", "multi_get", "multi_set"]);
        assert_eq!(completions("table "), ["create", "describe", "list"]);
        assert_eq!(completions("use t"), ["temp "]);
        assert_eq!(completions("get -t "), ["stat", "temp"]);
        assert_eq!(completions("set --tt"), ["--ttl "]);
        assert_eq!(completions("scan --js"), ["--json "]);
        assert_eq!(completions("part"), ["partition "]);
        assert_eq!(completions("partition "), ["diagnose", "force", "list"]);
        assert_eq!(completions("partition force --table "), ["stat", "temp"]);
        assert_eq!(completions("partition force --acc"), ["--accept-loss "]);
        assert_eq!(completions("onebox stop --no"), ["--node "]);
        assert!(completions("nonsense ").is_empty());
        assert_eq!(complete("table de", &[]), (6, vec!["describe ".to_owned()]));
    }

    #[test]
    fn lines_are_read() {
        assert!(matches!(read_line("  "), Ok(Line::Nothing)));
        assert!(matches!(read_line("exit"), Ok(Line::Exit)));
        assert!(matches!(read_line("use temp"), Ok(Line::Use(table)) if table == "temp"));
        assert!(matches!(read_line("help"), Ok(Line::Text(text)) if text.contains("multi_get")));
        assert!(matches!(read_line("help set"), Ok(Line::Text(text)) if text.contains("--ttl")));
        assert!(matches!(read_line("set 'a b' '' v"), Ok(Line::Command(_))));
        assert!(matches!(read_line("partition diagnose --table temp"), Ok(Line::Command(_))));
        assert!(read_line("set 'a").is_err());
        assert!(read_line("get h").is_err());
        assert!(read_line("use").is_err());
    }
}
