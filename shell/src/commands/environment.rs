//! The environment of a table: list, set, delete, clear.

use clap::{Args, Subcommand};
use pegasus_client::{EnvironmentChange, EnvironmentEntry};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::escape::escape;
use crate::output::{Ending, Failure, Grid, Outcome};

/// `table env` and its verbs.
#[derive(Debug, Args)]
pub struct EnvironmentCommand {
    /// The table; without one, that of --table or `use`. One that is called like a verb is named by --table
    pub name: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub verb: EnvironmentVerb,
}

/// What can be done with an environment.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum EnvironmentVerb {
    /// List the settings
    List,
    /// Set settings: all of them, or none if one of them is not valid
    Set(SetEnvironmentArguments),
    /// Delete settings; one that is not set is no error
    Del(DeleteEnvironmentArguments),
    /// Delete all settings
    Clear(ClearEnvironmentArguments),
}

/// Options of `table env set`.
#[derive(Debug, Args)]
pub struct SetEnvironmentArguments {
    /// Name and value of each setting, in turns, for example: default_ttl 3600
    #[arg(required = true, num_args = 2.., value_names = ["KEY", "VALUE"], allow_negative_numbers = true)]
    pub settings: Vec<String>,
}

/// Options of `table env del`.
#[derive(Debug, Args)]
pub struct DeleteEnvironmentArguments {
    /// Names of the settings
    #[arg(required = true, value_name = "KEY")]
    pub keys: Vec<String>,
}

/// Options of `table env clear`.
#[derive(Debug, Args)]
pub struct ClearEnvironmentArguments {
    /// Every setting
    #[arg(long, short = 'a', conflicts_with = "prefix")]
    pub all: bool,
    /// Only settings whose names begin so
    #[arg(long, short = 'p', required_unless_present = "all")]
    pub prefix: Option<String>,
}

/// Carries out a verb.
pub async fn run(context: &Context, command: EnvironmentCommand) -> Outcome {
    let name = context.name_or_table(command.name)?;
    match command.verb {
        EnvironmentVerb::List => list(context, &name).await,
        EnvironmentVerb::Set(arguments) => set(context, &name, arguments).await,
        EnvironmentVerb::Del(arguments) => delete(context, &name, arguments).await,
        EnvironmentVerb::Clear(arguments) => clear(context, &name, arguments).await,
    }
}

/// Lists settings.
pub async fn list(context: &Context, name: &str) -> Outcome {
    let entries = context.client().await?.environment(name).await?;
    show(context, &entries);
    Ok(Ending::Yes)
}

/// Sets settings.
pub async fn set(context: &Context, name: &str, arguments: SetEnvironmentArguments) -> Outcome {
    let set = pairs(&arguments.settings)?;
    change(context, name, EnvironmentChange { set, ..EnvironmentChange::default() }).await
}

/// Deletes settings.
pub async fn delete(context: &Context, name: &str, arguments: DeleteEnvironmentArguments) -> Outcome {
    change(context, name, EnvironmentChange { delete: arguments.keys, ..EnvironmentChange::default() }).await
}

/// Deletes all settings, or those whose names begin alike.
pub async fn clear(context: &Context, name: &str, arguments: ClearEnvironmentArguments) -> Outcome {
    let Some(prefix) = &arguments.prefix else {
        return change(context, name, EnvironmentChange { clear: true, ..EnvironmentChange::default() }).await;
    };
    let entries = context.client().await?.environment(name).await?;
    let keys = entries.into_iter().map(|entry| entry.key).filter(|key| key.starts_with(prefix));
    change(context, name, EnvironmentChange { delete: keys.collect(), ..EnvironmentChange::default() }).await
}

async fn change(context: &Context, name: &str, change: EnvironmentChange) -> Outcome {
    let entries = context.client().await?.change_environment(name, &change).await?;
    show(context, &entries);
    Ok(Ending::Yes)
}

fn show(context: &Context, entries: &[EnvironmentEntry]) {
    let text = if entries.is_empty() { "no settings: all defaults\n".to_owned() } else { entries_text(entries) };
    context.style().show(&text, json!({"environment": entries_json(entries)}));
}

fn pairs(words: &[String]) -> Result<Vec<(String, String)>, Failure> {
    if !words.len().is_multiple_of(2) {
        return Err(Failure::usage("settings are given by name and value, in turns; \"\" is an empty value"));
    }
    Ok(words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect())
}

/// Settings for people.
pub(crate) fn entries_text(entries: &[EnvironmentEntry]) -> String {
    let mut grid = Grid::of_texts(&["setting", "value"]);
    let mut sorted: Vec<&EnvironmentEntry> = entries.iter().collect();
    sorted.sort_unstable();
    for entry in sorted {
        // A value may be any text, business.info for example.
        grid.row(vec![entry.key.clone(), escape(entry.value.as_bytes())]);
    }
    grid.render()
}

/// Settings for programs: an object.
pub(crate) fn entries_json(entries: &[EnvironmentEntry]) -> Value {
    entries.iter().map(|entry| (entry.key.clone(), json!(entry.value))).collect::<Map<_, _>>().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Command, TableWord, parse};
    use crate::commands::table::{TableCommand, TableVerb};

    fn command(line: &str) -> Result<Command, clap::Error> {
        parse(line.split(' ').map(str::to_owned)).map(|cli| cli.command.expect("a command"))
    }

    fn entry(key: &str, value: &str) -> EnvironmentEntry {
        EnvironmentEntry { key: key.into(), value: value.into() }
    }

    #[test]
    fn settings_come_in_pairs() {
        let Ok(Command::Tables(TableWord::SetAppEnvs(arguments))) =
            command("set_app_envs default_ttl 60 business.info ")
        else {
            panic!("settings")
        };
        let expected = [("default_ttl", "60"), ("business.info", "")];
        let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(pairs(&arguments.settings).expect("pairs"), expected);
        assert!(pairs(&["default_ttl".to_owned()]).unwrap_err().message.contains("in turns"));
        assert!(command("table env set default_ttl").is_err() && command("table env del").is_err());
        assert!(command("table env temp").is_err(), "and what?");
    }

    #[test]
    fn the_table_comes_first_or_is_that_of_the_session() {
        let words = [
            ("table env temp set default_ttl 60", Some("temp")),
            ("table env set default_ttl 60", None),
            ("table env temp del default_ttl", Some("temp")),
            ("table env temp list", Some("temp")),
            ("table env clear -a", None),
        ];
        for (line, expected) in words {
            let Ok(Command::Tables(TableWord::Table(TableCommand { verb: TableVerb::Env(command) }))) = command(line)
            else {
                panic!("{line}")
            };
            assert_eq!(command.name.as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn clearing_says_what() {
        assert!(command("clear_app_envs").is_err() && command("table env clear -a -p x").is_err());
        assert!(command("clear_app_envs -a").is_ok() && command("table env clear --prefix manual_compact.").is_ok());
    }

    #[test]
    fn settings_are_sorted_for_people_and_an_object_for_programs() {
        let entries = [entry("rocksdb.usage_scenario", "normal"), entry("business.info", "a\nb")];
        let text = "setting                 value\nbusiness.info           a\\nb\nrocksdb.usage_scenario  normal\n";
        assert_eq!(entries_text(&entries), text);
        assert_eq!(entries_json(&entries), json!({"rocksdb.usage_scenario": "normal", "business.info": "a\nb"}));
    }
}
