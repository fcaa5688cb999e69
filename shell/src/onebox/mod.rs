//! A cluster on one machine: a meta server and some storage nodes as separate processes on loopback, with their own
//! certificate authority.
//!
//! Starting it again on the same directory brings back the same cluster with its data, also with another number of
//! cores. A process is only ever signalled after it was checked to be the one that was started here.

pub mod launch;
pub mod plan;
pub mod process;

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use pegasus_client::tls::{Authority, Role};
use pegasus_client::{Client, ClientOptions, TableSpec, TableState};

use crate::onebox::launch::{Started, check_ports, launch, make_directory, program_path};
use crate::onebox::plan::{Kind, Member, Plan, STATE_FILE};
use crate::onebox::process::ProcessHandle;

/// The tables of a new onebox, with their partition counts.
const TABLES: [(&str, u32); 2] = [("temp", 8), ("stat", 4)];
/// How often the cluster is asked whether all nodes have arrived.
const ARRIVAL_INTERVAL: Duration = Duration::from_millis(50);

/// A onebox and the exclusive right to change it.
pub struct Onebox {
    plan: Plan,
    members: Vec<Member>,
    /// Held while this process works on the onebox.
    _lock: File,
}

/// A process of a onebox and whether it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberState {
    /// The process.
    pub member: Member,
    /// Its id; `None` if it does not run.
    pub pid: Option<i32>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It did not run.
    WasNotRunning,
    /// It ended after it was asked to.
    Gracefully,
    /// It was killed.
    Killed,
}

impl Onebox {
    /// Takes the lock of an existing or new onebox.
    pub fn open(plan: Plan) -> Result<Onebox, String> {
        make_directory(&plan.directory)?;
        let path = plan.directory.join("lock");
        let lock = File::create(&path).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("another command is working on {}; wait for it", plan.directory.display()));
            }
            Err(TryLockError::Error(error)) => return Err(format!("cannot lock {}: {error}", path.display())),
        }
        let members = plan.members();
        Ok(Onebox { plan, members, _lock: lock })
    }

    /// The processes and whether they run.
    pub fn states(&self) -> Vec<MemberState> {
        states(&self.plan)
    }

    /// Starts the processes that do not run (of `only`, if that is not empty) and waits until each serves. Returns the
    /// states of the chosen processes.
    pub fn start(&self, binaries: &Path, only: &[String], deadline: Instant) -> Result<Vec<MemberState>, String> {
        let chosen = self.choose(only)?;
        // All that can be found before anything was started.
        for member in &chosen {
            program_path(binaries, member)?;
            if find(member).is_none() {
                check_ports(member)?;
            }
        }
        self.plan.store()?;
        self.make_identities()?;
        for kind in [Kind::Meta, Kind::Replica] {
            let mut started: Vec<Started> = Vec::new();
            for member in chosen.iter().filter(|member| member.kind == kind) {
                if find(member).is_none() {
                    started.push(launch(&self.plan, member, binaries)?);
                }
            }
            for process in &mut started {
                process.wait_until_ready(deadline)?;
            }
        }
        Ok(chosen.into_iter().map(state_of).collect())
    }

    /// Waits until every storage node has arrived, makes the tables of a onebox if they do not exist, and waits until
    /// all tables serve.
    pub async fn make_tables(&self, deadline: Instant) -> Result<(), String> {
        let mut options = ClientOptions::new(self.plan.meta_servers(), self.plan.tls_directory());
        options.meta_timeout = left(deadline).max(Duration::from_secs(1));
        let client = Client::connect(options).await.map_err(|error| error.to_string())?;
        let outcome = self.make_tables_with(&client, deadline).await;
        client.close().await;
        outcome
    }

    async fn make_tables_with(&self, client: &Client, deadline: Instant) -> Result<(), String> {
        self.wait_for_nodes(client, deadline).await?;
        for (name, partition_count) in TABLES {
            let spec = TableSpec {
                replica_count: self.plan.shape.replica_count(),
                if_not_exists: true,
                ..TableSpec::new(name, partition_count)
            };
            if !serving_tables(client).await?.contains(name) {
                client.create_table(&spec).await.map_err(|error| format!("cannot make table {name}: {error}"))?;
            }
        }
        for name in serving_tables(client).await? {
            let serving = client.wait_until_serving(&name, left(deadline)).await;
            serving.map_err(|error| format!("table {name} does not serve: {error}"))?;
        }
        Ok(())
    }

    async fn wait_for_nodes(&self, client: &Client, deadline: Instant) -> Result<(), String> {
        let expected: Vec<&Member> = self.members.iter().filter(|member| member.kind == Kind::Replica).collect();
        loop {
            let status = client.cluster_status().await.map_err(|error| error.to_string())?;
            let arrived =
                |member: &Member| status.nodes.iter().any(|node| node.info.alive && node.info.address == member.listen);
            let missing: Vec<&str> =
                expected.iter().filter(|member| !arrived(member)).map(|member| member.name.as_str()).collect();
            if missing.is_empty() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("the meta server has not heard of {}", missing.join(", ")));
            }
            tokio::time::sleep(ARRIVAL_INTERVAL).await;
        }
    }

    /// Ends processes (those of `only`, if that is not empty): storage nodes first, the meta server last. With `grace`
    /// they are asked first and killed only if they have not ended by then; without it they are killed at once.
    pub fn stop(&self, only: &[String], grace: Option<Duration>) -> Result<Vec<(Member, Stopped)>, String> {
        let chosen = self.choose(only)?;
        let mut stopped = Vec::new();
        for kind in [Kind::Replica, Kind::Meta] {
            let members: Vec<&Member> = chosen.iter().filter(|member| member.kind == kind).collect();
            let handles: Vec<Option<ProcessHandle>> = members.iter().map(|member| find(member)).collect();
            let signal = if grace.is_some() { libc::SIGTERM } else { libc::SIGKILL };
            for (member, handle) in members.iter().zip(&handles) {
                if let Some(handle) = handle {
                    handle.signal(signal).map_err(|error| format!("cannot signal {}: {error}", member.name))?;
                }
            }
            let deadline = Instant::now() + grace.unwrap_or_default();
            for (member, handle) in members.into_iter().zip(handles) {
                let how = match handle {
                    None => Stopped::WasNotRunning,
                    Some(handle) => await_end(member, &handle, grace.map(|_| deadline))?,
                };
                // Without the file it is simply not running.
                let _removed = fs::remove_file(member.pid_path());
                stopped.push((member.clone(), how));
            }
        }
        Ok(stopped)
    }

    /// Stops everything and removes the directory.
    pub fn clear(self, grace: Duration) -> Result<Vec<(Member, Stopped)>, String> {
        let directory = self.plan.directory.clone();
        if !directory.join(STATE_FILE).is_file() {
            return Err(format!("{} is not a onebox (it has no {STATE_FILE}); it is left alone", directory.display()));
        }
        let stopped = self.stop(&[], Some(grace))?;
        fs::remove_dir_all(&directory).map_err(|error| format!("cannot remove {}: {error}", directory.display()))?;
        Ok(stopped)
    }

    fn choose(&self, only: &[String]) -> Result<Vec<Member>, String> {
        for name in only {
            if self.members.iter().all(|member| member.name != *name) {
                let names: Vec<&str> = self.members.iter().map(|member| member.name.as_str()).collect();
                return Err(format!("there is no process {name:?}; there are {}", names.join(", ")));
            }
        }
        let chosen = |member: &&Member| only.is_empty() || only.contains(&member.name);
        Ok(self.members.iter().filter(chosen).cloned().collect())
    }

    /// Makes the authority and one identity per role, once.
    fn make_identities(&self) -> Result<(), String> {
        let directory = self.plan.tls_directory();
        let authority = if directory.join("ca.key").is_file() {
            Authority::load(&directory)
        } else {
            Authority::generate().and_then(|authority| authority.save(&directory).map(|()| authority))
        };
        let authority = authority.map_err(|error| format!("cannot make the certificates: {error}"))?;
        for (role, name) in [(Role::Meta, "meta"), (Role::Replica, "replica"), (Role::Client, "client")] {
            let whole = ["crt", "key"].iter().all(|suffix| directory.join(format!("{name}.{suffix}")).is_file());
            if !whole {
                let written = authority.write_identity(&directory, role);
                written.map_err(|error| format!("cannot make the certificate of {name}: {error}"))?;
            }
        }
        Ok(())
    }
}

/// Names of the tables that are not dropped.
async fn serving_tables(client: &Client) -> Result<BTreeSet<String>, String> {
    let tables = client.list_tables().await.map_err(|error| error.to_string())?;
    let serving = tables.into_iter().filter(|table| table.state == TableState::Available);
    Ok(serving.map(|table| table.properties.name).collect())
}

/// The processes of a onebox and whether they run. Needs no lock.
pub fn states(plan: &Plan) -> Vec<MemberState> {
    plan.members().into_iter().map(state_of).collect()
}

/// Where the programs are, unless told otherwise: next to this one.
pub fn default_binaries() -> Result<PathBuf, String> {
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    program.parent().map(Path::to_path_buf).ok_or_else(|| "this program has no directory".into())
}

fn find(member: &Member) -> Option<ProcessHandle> {
    ProcessHandle::find(&member.pid_path(), &member.config_path())
}

fn state_of(member: Member) -> MemberState {
    let pid = find(&member).map(|handle| handle.pid());
    MemberState { member, pid }
}

/// Waits for the end of a process that was signalled; kills it if it was only asked and has not ended by `deadline`.
fn await_end(member: &Member, handle: &ProcessHandle, deadline: Option<Instant>) -> Result<Stopped, String> {
    if deadline.is_some_and(|deadline| handle.wait(left(deadline))) {
        return Ok(Stopped::Gracefully);
    }
    handle.signal(libc::SIGKILL).map_err(|error| format!("cannot kill {}: {error}", member.name))?;
    if handle.wait(Duration::from_secs(10)) {
        return Ok(Stopped::Killed);
    }
    Err(format!("{} (pid {}) was killed and has not ended; it hangs in the kernel", member.name, handle.pid()))
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}
