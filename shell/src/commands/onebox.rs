//! Onebox: a cluster on this machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::context::Context;
use crate::onebox::plan::{Member, Plan, Shape};
use crate::onebox::{MemberState, Onebox, Stopped, default_binaries, states};
use crate::output::{Ending, Failure, Outcome, Style};

/// `onebox` and its verbs.
#[derive(Debug, Args)]
pub struct OneboxCommand {
    /// What to do.
    #[command(subcommand)]
    pub verb: OneboxVerb,
}

/// What can be done with a onebox.
#[derive(Debug, Subcommand)]
#[command(rename_all = "snake_case")]
pub enum OneboxVerb {
    /// Start the processes that do not run, make the tables temp and stat, and wait until all serve
    Start(StartArguments),
    /// Ask the processes to end, and kill those that do not
    Stop(StopArguments),
    /// Kill processes at once (kill -9)
    Kill(PlaceArguments),
    /// Print a line for each process
    List(PlaceArguments),
    /// Print a line for each process, then the state of the cluster
    Status(PlaceArguments),
    /// Stop the processes and remove the directory with all data
    Clear(ClearArguments),
}

/// Which onebox, and which of its processes.
#[derive(Clone, Debug, Args)]
pub struct PlaceArguments {
    /// Directory of the onebox
    #[arg(long, default_value = "./onebox", value_name = "DIRECTORY")]
    pub dir: PathBuf,
    /// Only this process (meta1, replica1, ...); may be given several times
    #[arg(long, visible_alias = "node", value_name = "NAME")]
    pub only: Vec<String>,
}

/// Options of `onebox start`.
#[derive(Debug, Args)]
pub struct StartArguments {
    /// Which onebox.
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Storage nodes; more may be added while others run [default: as before, 3 for a new onebox]
    #[arg(long)]
    pub nodes: Option<u16>,
    /// Executors of each node [default: as before, 1 for a new onebox]
    #[arg(long)]
    pub cores: Option<u16>,
    /// Added to every port, so that several oneboxes can run at once [default: as before, 0 for a new onebox]
    #[arg(long, value_name = "PORTS")]
    pub port_offset: Option<u16>,
    /// Where pegasus-meta and pegasus-replica are [default: where this program is]
    #[arg(long, value_name = "DIRECTORY")]
    pub bin_dir: Option<PathBuf>,
    /// How long to wait until all serve
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    pub wait_seconds: u64,
    /// Do not make tables, and do not wait for those that exist
    #[arg(long)]
    pub no_tables: bool,
}

/// Options of `onebox stop`.
#[derive(Debug, Args)]
pub struct StopArguments {
    /// Which onebox.
    #[command(flatten)]
    pub place: PlaceArguments,
    /// How long a process has to end by itself before it is killed
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub grace_seconds: u64,
    /// Kill at once (kill -9) instead of asking
    #[arg(long, conflicts_with = "grace_seconds")]
    pub kill: bool,
}

/// Options of `onebox clear`.
#[derive(Debug, Args)]
pub struct ClearArguments {
    /// Which onebox.
    #[command(flatten)]
    pub place: PlaceArguments,
    /// How long a process has to end by itself before it is killed
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub grace_seconds: u64,
}

/// Carries out a verb.
pub async fn run(context: &Context, command: OneboxCommand) -> Outcome {
    let style = context.style();
    match command.verb {
        OneboxVerb::Start(arguments) => start(style, arguments).await,
        OneboxVerb::Stop(arguments) => {
            let grace = Duration::from_secs(arguments.grace_seconds);
            end(style, &arguments.place, (!arguments.kill).then_some(grace))
        }
        OneboxVerb::Kill(place) => end(style, &place, None),
        OneboxVerb::List(place) => list(style, &place),
        OneboxVerb::Status(place) => status(style, &place).await,
        OneboxVerb::Clear(arguments) => clear(style, &arguments),
    }
}

async fn start(style: Style, arguments: StartArguments) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(arguments.wait_seconds);
    let binaries = match &arguments.bin_dir {
        // The processes are started in directories of their own.
        Some(directory) => std::path::absolute(directory).map_err(|error| failure(error.to_string()))?,
        None => default_binaries().map_err(failure)?,
    };
    let onebox = Onebox::open(plan_to_start(&arguments)?).map_err(failure)?;
    let started = onebox.start(&binaries, &arguments.place.only, deadline).map_err(failure)?;
    if arguments.place.only.is_empty() && !arguments.no_tables {
        onebox.make_tables(deadline).await.map_err(failure)?;
    }
    show_states(style, &started);
    Ok(Ending::Yes)
}

/// The shape asked for, where nothing is asked the shape it had.
fn plan_to_start(arguments: &StartArguments) -> Result<Plan, Failure> {
    let earlier = Plan::load(&arguments.place.dir).map_err(failure)?;
    let shape = earlier.as_ref().map(|plan| plan.shape).unwrap_or_default();
    let wanted = Shape {
        nodes: arguments.nodes.unwrap_or(shape.nodes),
        cores: arguments.cores.unwrap_or(shape.cores),
        port_offset: arguments.port_offset.unwrap_or(shape.port_offset),
    };
    wanted.validate().map_err(Failure::usage)?;
    let directory = std::path::absolute(&arguments.place.dir).map_err(|error| failure(error.to_string()))?;
    if let Some(earlier) = earlier.filter(|earlier| earlier.shape != wanted) {
        if wanted.nodes < earlier.shape.nodes {
            return Err(Failure::usage(format!(
                "the onebox has {} nodes with data; a smaller one begins with: pegasus onebox clear",
                earlier.shape.nodes
            )));
        }
        // More nodes take ports of their own; another number of cores moves those of all.
        let ports_move = Shape { nodes: wanted.nodes, ..earlier.shape } != wanted;
        let running = states(&earlier).into_iter().find(|state| state.pid.is_some());
        if let Some(running) = running.filter(|_| ports_move) {
            return Err(Failure::usage(format!(
                "{} runs; stop the onebox before it is started with other --cores or --port-offset",
                running.member.name
            )));
        }
    }
    Ok(Plan { directory, shape: wanted })
}

fn end(style: Style, place: &PlaceArguments, grace: Option<Duration>) -> Outcome {
    let onebox = Onebox::open(existing(&place.dir)?).map_err(failure)?;
    show_stopped(style, &onebox.stop(&place.only, grace).map_err(failure)?);
    Ok(Ending::Yes)
}

fn list(style: Style, place: &PlaceArguments) -> Outcome {
    let states: Vec<MemberState> = states(&existing(&place.dir)?)
        .into_iter()
        .filter(|state| place.only.is_empty() || place.only.contains(&state.member.name))
        .collect();
    show_states(style, &states);
    let all_run = states.iter().all(|state| state.pid.is_some());
    Ok(if all_run { Ending::Yes } else { Ending::No })
}

async fn status(style: Style, place: &PlaceArguments) -> Outcome {
    let ending = list(style, place)?;
    let plan = existing(&place.dir)?;
    if states(&plan).iter().all(|state| state.pid.is_none()) {
        return Ok(ending);
    }
    let meta: Vec<String> = plan.meta_servers().iter().map(ToString::to_string).collect();
    let options = crate::cli::GlobalOptions {
        meta: Some(meta.join(",")),
        tls: Some(plan.tls_directory()),
        json: style == Style::Json,
        ..Default::default()
    };
    if style == Style::Text {
        style.show("\n", Value::Null);
    }
    crate::commands::status::run(&Context::new(options)).await?;
    Ok(ending)
}

fn clear(style: Style, arguments: &ClearArguments) -> Outcome {
    if !arguments.place.only.is_empty() {
        return Err(Failure::usage("clear removes the whole onebox; --only does not go with it"));
    }
    let onebox = Onebox::open(existing(&arguments.place.dir)?).map_err(failure)?;
    show_stopped(style, &onebox.clear(Duration::from_secs(arguments.grace_seconds)).map_err(failure)?);
    Ok(Ending::Yes)
}

fn existing(directory: &Path) -> Result<Plan, Failure> {
    let plan = Plan::load(directory).map_err(failure)?;
    plan.ok_or_else(|| Failure::new("onebox", format!("there is no onebox in {}", directory.display())))
}

fn show_states(style: Style, states: &[MemberState]) {
    let line = |state: &MemberState| {
        let pid = state.pid.map_or_else(|| "not running".into(), |pid| format!("pid={pid}"));
        format!("{}, {pid}, {}", state.member.name, state.member.addresses())
    };
    let value = |state: &MemberState| {
        let mut value = member_json(&state.member);
        value["pid"] = json!(state.pid);
        value
    };
    let lines: Vec<String> = states.iter().map(line).collect();
    style.show(&lines.join("\n"), json!({"processes": states.iter().map(value).collect::<Vec<_>>()}));
}

fn show_stopped(style: Style, stopped: &[(Member, Stopped)]) {
    let word = |how: &Stopped| match how {
        Stopped::WasNotRunning => "was not running",
        Stopped::Gracefully => "stopped",
        Stopped::Killed => "killed",
    };
    let value = |(member, how): &(Member, Stopped)| {
        let mut value = member_json(member);
        value["ended"] = json!(word(how));
        value
    };
    let lines: Vec<String> = stopped.iter().map(|(member, how)| format!("{}, {}", member.name, word(how))).collect();
    style.show(&lines.join("\n"), json!({"processes": stopped.iter().map(value).collect::<Vec<_>>()}));
}

fn member_json(member: &Member) -> Value {
    json!({
        "name": member.name,
        "quic": member.listen.to_string(),
        "udp_ports": member.udp_ports,
        "admin": member.admin.to_string(),
        "directory": member.directory.display().to_string(),
    })
}

fn failure(message: String) -> Failure {
    Failure::new("onebox", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser;

    fn plan_for(directory: &Path, words: &[&str]) -> Result<Plan, Failure> {
        let directory = directory.to_str().expect("a plain path");
        let line = ["pegasus", "onebox", "start", "--dir", directory];
        let cli = Cli::try_parse_from(line.iter().chain(words)).unwrap_or_else(|error| panic!("{error}"));
        match cli.command {
            Some(Command::Onebox(OneboxCommand { verb: OneboxVerb::Start(arguments) })) => plan_to_start(&arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_not_said_stays_as_it_was() {
        let directory = tempfile::tempdir().expect("a directory");
        let new = plan_for(directory.path(), &["--cores", "2", "--port-offset", "100"]).expect("a plan");
        assert_eq!(new.shape, Shape { nodes: 3, cores: 2, port_offset: 100 });
        new.store().expect("stored");
        let again = plan_for(directory.path(), &[]).expect("a plan");
        assert_eq!(again.shape, new.shape);
        let other = plan_for(directory.path(), &["--cores", "4"]).expect("a plan");
        assert_eq!(other.shape, Shape { cores: 4, ..new.shape });
        assert!(plan_for(directory.path(), &["--nodes", "2"]).unwrap_err().message.contains("clear"));
        assert!(plan_for(directory.path(), &["--cores", "0"]).unwrap_err().message.contains("--cores"));
    }

    #[test]
    fn nodes_are_added_while_others_run_and_ports_are_not_moved() {
        let directory = tempfile::tempdir().expect("a directory");
        let plan = plan_for(directory.path(), &[]).expect("a plan");
        plan.store().expect("stored");
        let replica = &plan.members()[1];
        std::fs::create_dir_all(&replica.directory).expect("made");
        // A process that looks like one of this onebox.
        let config = replica.config_path();
        let mut child = std::process::Command::new("sh");
        let child = child.args(["-c", "read line; exit 0", "sh"]).arg(&config).stdin(std::process::Stdio::piped());
        let mut child = child.spawn().expect("sh starts");
        std::fs::write(replica.pid_path(), child.id().to_string()).expect("written");
        while states(&plan)[1].pid.is_none() {
            std::thread::yield_now();
        }
        let more = plan_for(directory.path(), &["--nodes", "5"]);
        let moved = plan_for(directory.path(), &["--cores", "2"]);
        // Its input ends, and so does it.
        drop(child.stdin.take());
        child.wait().expect("reaped");
        assert_eq!(more.expect("a plan").shape.nodes, 5);
        assert!(moved.unwrap_err().message.contains("replica1 runs"));
    }

    #[test]
    fn a_directory_that_is_no_onebox_is_left_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("precious"), "data").expect("written");
        assert!(existing(directory.path()).unwrap_err().message.contains("no onebox"));
        let plan = Plan { directory: directory.path().to_owned(), shape: Shape::default() };
        let onebox = Onebox::open(plan).expect("opened");
        assert!(onebox.clear(Duration::from_secs(1)).unwrap_err().contains("left alone"));
        assert!(directory.path().join("precious").is_file());
    }

    #[test]
    fn one_command_at_a_time() {
        let directory = tempfile::tempdir().expect("a directory");
        let plan = Plan { directory: directory.path().to_owned(), shape: Shape::default() };
        let first = Onebox::open(plan.clone()).expect("opened");
        assert!(Onebox::open(plan.clone()).err().expect("locked").contains("another command"));
        drop(first);
        let onebox = Onebox::open(plan).expect("opened");
        assert!(onebox.states().iter().all(|state| state.pid.is_none()));
        let error = onebox.stop(&["replica9".into()], None).unwrap_err();
        assert!(error.contains("replica9") && error.contains("replica3"), "{error}");
    }
}
