//! Completion at the prompt: commands, verbs, options, their values, tables and settings.

use clap::{Arg, Command, CommandFactory};
use pegasus_wire::environment::KEYS;

use crate::cli::Cli;
use crate::prompt::PROMPT_WORDS;

/// What the cluster has to say to completion.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Names of the tables that serve.
    pub tables: Vec<String>,
    /// Numbers of those that can be recalled.
    pub dropped: Vec<String>,
}

/// Where the word at the end of `line` begins, and what it could become.
pub fn complete(line: &str, names: &Names) -> (usize, Vec<String>) {
    let start = line.rfind(char::is_whitespace).map_or(0, |position| position + 1);
    let (before, word) = (&line[..start], &line[start..]);
    let previous: Vec<&str> = before.split_whitespace().collect();
    let mut candidates = candidates(&previous, word, names);
    candidates.retain(|candidate| candidate.starts_with(word));
    candidates.sort_unstable();
    candidates.dedup();
    if let [only] = candidates.as_mut_slice() {
        only.push(' ');
    }
    (start, candidates)
}

fn candidates(previous: &[&str], word: &str, names: &Names) -> Vec<String> {
    match previous {
        ["use"] | [.., "-t" | "--table" | "--target-table" | "--target_table"] | ["copy_data", .., "-a"] => {
            return names.tables.clone();
        }
        ["escape_all"] => return ["true", "false"].map(str::to_owned).to_vec(),
        ["table", "describe" | "drop" | "rename"] | ["app" | "drop" | "rename"] if !word.starts_with('-') => {
            return names.tables.clone();
        }
        ["table", "recall" | "purge"] | ["recall"] if !word.starts_with('-') => return names.dropped.clone(),
        ["table", "env", "set" | "del", ..]
        | ["table", "env", _, "set" | "del", ..]
        | ["set_app_envs" | "del_app_envs", ..]
            if !word.starts_with('-') =>
        {
            return setting_names(previous);
        }
        _ => {}
    }
    let root = Cli::command();
    let mut command = &root;
    for word in previous.iter().filter(|word| **word != "help") {
        if let Some(next) = command.find_subcommand(word) {
            command = next;
        }
    }
    if let Some(values) = previous.last().and_then(|option| values_of(command, option)) {
        return values;
    }
    if word.starts_with('-') {
        return options_of(&[command, &root], word);
    }
    let verbs = command.get_subcommands().flat_map(|verb| {
        std::iter::once(verb.get_name().to_owned()).chain(verb.get_visible_aliases().map(str::to_owned))
    });
    match previous {
        ["table", "env" | "compact"] => verbs.chain(names.tables.iter().cloned()).collect(),
        [] | ["help"] => verbs.chain(PROMPT_WORDS.map(|(word, ..)| word.to_owned())).collect(),
        _ if std::ptr::eq(command, &root) => Vec::new(),
        _ => verbs.collect(),
    }
}

/// Names of settings; where a value is to come, nothing.
fn setting_names(previous: &[&str]) -> Vec<String> {
    let given = previous.iter().position(|word| matches!(*word, "set" | "del" | "set_app_envs" | "del_app_envs"));
    let given = given.map_or(0, |verb| previous.len() - verb - 1);
    let deletes = previous.iter().any(|word| matches!(*word, "del" | "del_app_envs"));
    if deletes || given.is_multiple_of(2) { KEYS.iter().map(ToString::to_string).collect() } else { Vec::new() }
}

/// The values that an option may have, if it takes one of a few.
fn values_of(command: &Command, option: &str) -> Option<Vec<String>> {
    let long = option.strip_prefix("--").map(|name| name.replace('_', "-"));
    let short = option.strip_prefix('-').and_then(|name| name.chars().next().filter(|_| name.len() == 1));
    let is_meant = |argument: &&Arg| match (&long, short) {
        (Some(long), _) => argument.get_long_and_visible_aliases().is_some_and(|names| names.contains(&long.as_str())),
        (None, Some(short)) => argument.get_short() == Some(short),
        (None, None) => false,
    };
    let argument = command.get_arguments().find(is_meant)?;
    if !argument.get_action().takes_values() {
        return None;
    }
    let values: Vec<String> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    (!values.is_empty()).then_some(values)
}

/// Options of commands, written with underscores if the word was begun so.
fn options_of(commands: &[&Command], word: &str) -> Vec<String> {
    let with_underscores = word.trim_start_matches('-').contains('_');
    let names = commands.iter().flat_map(|command| command.get_arguments());
    let names = names.flat_map(|argument| argument.get_long_and_visible_aliases().unwrap_or_default());
    let written = |name: &str| if with_underscores { name.replace('-', "_") } else { name.to_owned() };
    names.map(|name| format!("--{}", written(name))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completions(line: &str) -> Vec<String> {
        let names = Names { tables: vec!["temp".into(), "stat".into()], dropped: vec!["7".into()] };
        complete(line, &names).1
    }

    #[test]
    fn words_and_tables_are_completed() {
        assert_eq!(
            completions("multi_"),
            ["multi_del", "multi_del_range", "multi_get", "multi_get_range", "multi_get_sortkeys", "multi_set"]
        );
        assert_eq!(completions("table d"), ["describe", "drop"]);
        assert_eq!(completions("table env "), ["clear", "del", "list", "set", "stat", "temp"]);
        assert_eq!(completions("table env temp "), ["clear", "del", "list", "set"]);
        assert_eq!(completions("table compact temp sta"), ["start", "status"]);
        assert_eq!(completions("use t"), ["temp "]);
        assert_eq!(completions("use "), ["stat", "temp"]);
        assert_eq!(completions("get -t "), ["stat", "temp"]);
        assert_eq!(completions("drop "), ["stat", "temp"]);
        assert_eq!(completions("copy_data -a "), ["stat", "temp"]);
        assert_eq!(completions("table recall "), ["7 "]);
        assert_eq!(completions("timeo"), ["timeout "]);
        assert_eq!(completions("escape_all "), ["false", "true"]);
        assert_eq!(completions("help multi_g"), ["multi_get", "multi_get_range", "multi_get_sortkeys"]);
        assert_eq!(completions("sca"), ["scan "]);
        assert_eq!(completions("part"), ["partition "]);
        assert_eq!(completions("partition "), ["diagnose", "force", "list"]);
        assert_eq!(completions("partition force --table "), ["stat", "temp"]);
        assert!(completions("nonsense ").is_empty() && completions("set ").is_empty());
        assert_eq!(complete("table des", &Names::default()), (6, vec!["describe ".to_owned()]));
    }

    #[test]
    fn options_and_their_values_are_completed() {
        assert_eq!(completions("set --tt"), ["--ttl "]);
        assert_eq!(completions("scan --js"), ["--json "]);
        assert_eq!(completions("drop --re"), ["--reserve-seconds "]);
        assert_eq!(completions("drop --reserve_"), ["--reserve_seconds "]);
        assert_eq!(completions("partition force --acc"), ["--accept-loss "]);
        assert_eq!(completions("onebox stop --no"), ["--node "]);
        assert_eq!(completions("full_scan -s p"), ["postfix", "prefix"]);
        assert_eq!(completions("full_scan --sort_key_filter_type ex"), ["exact "]);
        assert_eq!(completions("check_and_set h --check-type int_l"), ["int_less", "int_less_or_equal"]);
        assert_eq!(completions("multi_get_range h -a "), ["false", "true"]);
        assert!(completions("full_scan -i ").is_empty());
    }

    #[test]
    fn settings_are_completed_where_a_name_belongs() {
        assert_eq!(completions("set_app_envs default"), ["default_ttl "]);
        assert!(completions("set_app_envs default_ttl ").is_empty());
        assert_eq!(completions("table env set default_ttl 60 rocksdb.w"), ["rocksdb.write_buffer_size "]);
        assert_eq!(completions("table env del default_ttl business"), ["business.info "]);
        assert_eq!(completions("table env temp set default_ttl 60 business"), ["business.info "]);
        assert!(completions("table env temp set default_ttl ").is_empty());
    }
}
