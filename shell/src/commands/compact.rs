//! Manual compaction of a table: begin one, and show how far every copy is.

use std::time::Duration;

use clap::{Args, Subcommand};
use pegasus_client::{CompactionState, CopyReply, CopyReport, EnvironmentChange};
use pegasus_wire::Environment;
use serde_json::{Value, json};

use crate::context::Context;
use crate::nodes::NodeNames;
use crate::output::{Ending, Failure, Grid, Outcome};
use crate::units::{bytes_text, moment_text, unix_now};

/// The setting that begins a compaction.
const TRIGGER: &str = "manual_compact.once.trigger_time";
/// The setting that tells how deep it goes.
const BOTTOMMOST: &str = "manual_compact.once.bottommost_level_compaction";
/// Between two looks at the copies.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// `table compact` and its verbs.
#[derive(Debug, Args)]
pub struct CompactCommand {
    /// The table; without one, that of --table or `use`. One that is called like a verb is named by --table
    pub name: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub verb: CompactVerb,
}

/// What can be done about compaction.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum CompactVerb {
    /// Compact every copy once, from now on
    Start(StartArguments),
    /// Show how far every copy is; exit code 0 if all are done, else 1
    Status(StatusArguments),
}

/// Options of `table compact start`.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// Rewrite the last level too, so that what is deleted and expired leaves every file
    #[arg(long)]
    pub bottommost: bool,
    /// Wait until all copies are done, at most so long
    #[arg(long, value_name = "SECONDS")]
    pub wait_seconds: Option<u64>,
}

/// Options of `table compact status`.
#[derive(Debug, Args)]
pub struct StatusArguments {
    /// Wait until all copies are done, at most so long
    #[arg(long, value_name = "SECONDS")]
    pub wait_seconds: Option<u64>,
}

/// Carries out a verb.
pub async fn run(context: &Context, command: CompactCommand) -> Outcome {
    let name = context.name_or_table(command.name)?;
    match command.verb {
        CompactVerb::Start(arguments) => start(context, &name, arguments).await,
        CompactVerb::Status(arguments) => status(context, &name, arguments.wait_seconds).await,
    }
}

async fn start(context: &Context, name: &str, arguments: StartArguments) -> Outcome {
    let client = context.client().await?;
    let (environment, _) = Environment::parse_kept(&client.environment(name).await?);
    if environment.manual_compaction.disabled {
        return Err(Failure::new(
            "disabled",
            format!(
                "manual_compact.disabled is set; table env {name} del manual_compact.disabled allows compactions again"
            ),
        ));
    }
    // One second is one trigger: a later one must differ, or nothing would begin.
    let trigger = unix_now().max(environment.manual_compaction.once_trigger_seconds + 1);
    let depth = if arguments.bottommost { "force" } else { "skip" };
    let change = EnvironmentChange::set(TRIGGER, trigger).and_set(BOTTOMMOST, depth);
    client.change_environment(name, &change).await?;
    if arguments.wait_seconds.is_some() {
        return status(context, name, arguments.wait_seconds).await;
    }
    let text = format!("table {name} is compacted from now on; `table compact {name} status` shows how far it is");
    context.style().show(&text, json!({"table": name, "trigger_seconds": trigger}));
    Ok(Ending::Yes)
}

async fn status(context: &Context, name: &str, wait_seconds: Option<u64>) -> Outcome {
    let client = context.client().await?;
    let reply = client.describe_table(name).await?;
    let (environment, _) = Environment::parse_kept(&reply.environment);
    let trigger = environment.manual_compaction.once_trigger_seconds;
    let names = NodeNames::new(&reply.nodes);
    let deadline = wait_seconds.map(|seconds| tokio::time::Instant::now() + Duration::from_secs(seconds));
    let copies = loop {
        let copies = client.copies(name).await?;
        let over = deadline.is_none_or(|deadline| tokio::time::Instant::now() >= deadline);
        if over || all_done(&copies, trigger) {
            break copies;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    };
    let done = all_done(&copies, trigger);
    let text = format!("{}\n{}", copies_text(&copies, &names), summary(&copies, trigger));
    let mut value = json!({"table": name, "trigger_seconds": trigger, "done": done});
    value["copies"] = copies_json(&copies, &names);
    context.style().show(&text, value);
    Ok(if done { Ending::Yes } else { Ending::No })
}

/// True if a copy has nothing left to do for this trigger.
fn is_done(copy: &CopyReport, trigger: u64) -> bool {
    match &copy.outcome {
        Ok(reply) => reply.compaction == CompactionState::Idle && reply.compaction_ended_seconds >= trigger,
        Err(_) => false,
    }
}

fn all_done(copies: &[CopyReport], trigger: u64) -> bool {
    copies.iter().all(|copy| is_done(copy, trigger))
}

fn summary(copies: &[CopyReport], trigger: u64) -> String {
    let done = copies.iter().filter(|copy| is_done(copy, trigger)).count();
    match trigger {
        0 => "no compaction was asked for (table compact start)".to_owned(),
        _ if done == copies.len() => {
            format!("all {done} copies are done with what was asked for at {}", moment_text(trigger))
        }
        _ => format!("{done} of {} copies are done with what was asked for at {}", copies.len(), moment_text(trigger)),
    }
}

/// Every copy of a table, for people.
pub(crate) fn copies_text(copies: &[CopyReport], names: &NodeNames) -> String {
    let mut grid =
        Grid::new(&["partition", "node", "role", "applied", "files", "rows (about)", "compaction", "last compacted"]);
    for copy in copies {
        let mut cells = vec![copy.partition.index.to_string(), names.name(copy.node)];
        match &copy.outcome {
            Ok(reply) => cells.extend([
                role(reply).to_owned(),
                reply.applied.to_string(),
                bytes_text(reply.file_bytes),
                reply.estimated_rows.to_string(),
                compaction_text(reply),
                match reply.compaction_ended_seconds {
                    0 => "never".to_owned(),
                    second => moment_text(second),
                },
            ]),
            Err(error) => {
                cells.push(format!("no answer: {error}"));
                cells.extend(std::iter::repeat_n("-".to_owned(), 5));
            }
        }
        grid.row(cells);
    }
    grid.render()
}

fn role(reply: &CopyReply) -> &'static str {
    if reply.primary { "primary" } else { "secondary" }
}

fn compaction_text(reply: &CopyReply) -> String {
    match reply.compaction {
        CompactionState::Idle => "-".to_owned(),
        CompactionState::Queued => "queued".to_owned(),
        CompactionState::Running => format!("running, {} %", reply.compaction_percent),
    }
}

/// Every copy of a table, for programs.
pub(crate) fn copies_json(copies: &[CopyReport], names: &NodeNames) -> Value {
    let copy = |copy: &CopyReport| {
        let mut value = json!({
            "partition": copy.partition.index,
            "node": copy.node.to_string(),
            "address": names.name(copy.node),
        });
        match &copy.outcome {
            Ok(reply) => {
                value["role"] = json!(role(reply));
                value["applied"] = json!(reply.applied.0);
                value["file_bytes"] = json!(reply.file_bytes);
                value["estimated_rows"] = json!(reply.estimated_rows);
                value["compaction"] = json!(format!("{:?}", reply.compaction).to_lowercase());
                value["compaction_percent"] = json!(reply.compaction_percent);
                value["compaction_ended_seconds"] = json!(reply.compaction_ended_seconds);
            }
            Err(error) => value["error"] = json!(error.to_string()),
        }
        value
    };
    copies.iter().map(copy).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pegasus_client::{Error, NodeId, PartitionId};
    use pegasus_wire::Decree;

    fn copy(index: u32, compaction: CompactionState, ended: u64) -> CopyReport {
        let reply = CopyReply {
            primary: index == 0,
            applied: Decree(70),
            file_bytes: 1536,
            estimated_rows: 12,
            compaction,
            compaction_ended_seconds: ended,
            compaction_percent: 40,
        };
        CopyReport { partition: PartitionId::new(2, index), node: NodeId(1), address: None, outcome: Ok(reply) }
    }

    fn mute() -> CopyReport {
        let outcome = Err(Error::Timeout("nobody answers".into()));
        CopyReport { partition: PartitionId::new(2, 2), node: NodeId(2), address: None, outcome }
    }

    #[test]
    fn a_copy_is_done_when_it_ended_after_the_trigger() {
        assert!(is_done(&copy(0, CompactionState::Idle, 1000), 1000));
        assert!(!is_done(&copy(0, CompactionState::Idle, 999), 1000));
        assert!(!is_done(&copy(0, CompactionState::Queued, 2000), 1000));
        assert!(!is_done(&mute(), 0));
        let copies = [copy(0, CompactionState::Idle, 1000), copy(1, CompactionState::Running, 0)];
        assert!(summary(&copies, 1000).starts_with("1 of 2 copies are done"));
        assert!(summary(&copies[..1], 1000).contains("1970-01-01 00:16:40 UTC"));
        assert!(summary(&copies, 0).starts_with("no compaction"));
    }

    #[test]
    fn copies_are_shown_with_their_progress() {
        let copies = [copy(0, CompactionState::Idle, 1000), copy(1, CompactionState::Running, 0), mute()];
        let names = NodeNames::new(&[]);
        let text = copies_text(&copies, &names);
        for words in ["primary", "1.5 KiB", "1970-01-01 00:16:40 UTC", "running, 40 %", "never", "nobody answers"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let value = copies_json(&copies, &names);
        assert_eq!((&value[1]["compaction"], &value[1]["compaction_percent"]), (&json!("running"), &json!(40)));
        assert!(value[2]["error"].as_str().is_some_and(|error| error.contains("nobody answers")), "{value}");
    }
}
