//! The CPU time of the storage nodes: which processes they are, and what they used between two moments.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::failure::Failure;
use crate::measure::process::{process_stat, thread_group, thread_stats, ticks_to_time};

/// One server process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServerProcess {
    /// Its name in a onebox ("replica1"), or "pid N".
    pub name: String,
    /// Its process id.
    pub pid: u32,
}

/// The storage nodes of a onebox directory: one for each `replica<N>/pid` whose process lives. A process of
/// another program that has got the number meanwhile is refused.
pub fn from_onebox(directory: &Path) -> Result<Vec<ServerProcess>, Failure> {
    let doing = format!("read the onebox directory {}", directory.display());
    let entries = fs::read_dir(directory).map_err(Failure::at(&doing))?;
    let mut servers = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Failure::at(&doing))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_node_directory(&name)
            && let Some(pid) = read_pid(&entry.path().join("pid"))?
            && is_storage_node(pid)?
        {
            servers.push(ServerProcess { name, pid });
        }
    }
    if servers.is_empty() {
        let directory = directory.display();
        return Err(Failure::new(format!("no storage node runs in {directory}: no replica*/pid names a live process")));
    }
    servers.sort_by(|left, right| left.name.cmp(&right.name));
    Ok(servers)
}

/// The processes with these numbers; each must live.
pub fn from_pids(pids: &[u32]) -> Result<Vec<ServerProcess>, Failure> {
    let mut servers = Vec::new();
    for &pid in pids {
        if process_stat(pid)?.is_none() {
            return Err(Failure::new(format!("there is no process {pid}")));
        }
        servers.push(ServerProcess { name: format!("pid {pid}"), pid });
    }
    Ok(servers)
}

/// CPU time of some processes and of each of their threads at one moment. The kernel counts in ticks of
/// (usually) 10 ms.
#[derive(Clone, Debug, Default)]
pub struct CpuSnapshot {
    /// By process id: ticks, ended threads included.
    processes: BTreeMap<u32, u64>,
    /// By process and thread id: group of the thread, ticks.
    threads: BTreeMap<(u32, u32), (String, u64)>,
}

impl CpuSnapshot {
    /// Reads the clocks of these processes. One that has ended is an error: a figure without it would be wrong.
    pub fn take(servers: &[ServerProcess]) -> Result<CpuSnapshot, Failure> {
        let mut snapshot = CpuSnapshot::default();
        for ServerProcess { name, pid } in servers {
            let stat = process_stat(*pid)?;
            let Some(stat) = stat else { return Err(Failure::new(format!("{name} (process {pid}) has ended"))) };
            snapshot.processes.insert(*pid, stat.ticks);
            for (thread, stat) in thread_stats(*pid)? {
                snapshot.threads.insert((*pid, thread), (thread_group(&stat.name), stat.ticks));
            }
        }
        Ok(snapshot)
    }

    /// What was used from this moment to a later one.
    pub fn until(&self, later: &CpuSnapshot) -> CpuUse {
        let mut total_ticks = 0;
        for (pid, after) in &later.processes {
            total_ticks += after.saturating_sub(self.processes.get(pid).copied().unwrap_or(0));
        }
        let mut groups: BTreeMap<String, u64> = BTreeMap::new();
        for (thread, (group, after)) in &later.threads {
            let before = self.threads.get(thread).map_or(0, |(_, ticks)| *ticks);
            *groups.entry(group.clone()).or_default() += after.saturating_sub(before);
        }
        let groups = groups.into_iter().filter(|(_, ticks)| *ticks > 0);
        CpuUse {
            total: ticks_to_time(total_ticks),
            groups: groups.map(|(group, ticks)| (group, ticks_to_time(ticks))).collect(),
        }
    }
}

/// CPU time used by all servers together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuUse {
    /// User and system time of the processes.
    pub total: Duration,
    /// The same by group of threads (see [`thread_group`]), idle groups left out. The sum may be less than the
    /// total: threads that ended in between count in the total only.
    pub groups: BTreeMap<String, Duration>,
}

fn is_node_directory(name: &str) -> bool {
    name.strip_prefix("replica").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The number in a pid file; `None` if there is no file.
fn read_pid(path: &Path) -> Result<Option<u32>, Failure> {
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(path).map_err(Failure::at(format!("read {}", path.display())))?;
    let pid = text.trim().parse().map_err(Failure::at(format!("read a process id from {}", path.display())))?;
    Ok(Some(pid))
}

/// Whether a live process of this number is a storage node.
fn is_storage_node(pid: u32) -> Result<bool, Failure> {
    Ok(process_stat(pid)?.is_some_and(|stat| stat.name == STORAGE_NODE_NAME))
}

/// The name the kernel shows for the storage node's program; it fits the 15 bytes exactly.
const STORAGE_NODE_NAME: &str = "pegasus-replica";

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(processes: &[(u32, u64)], threads: &[(u32, u32, &str, u64)]) -> CpuSnapshot {
        CpuSnapshot {
            processes: processes.iter().copied().collect(),
            threads: threads
                .iter()
                .map(|(pid, tid, name, ticks)| ((*pid, *tid), (thread_group(name), *ticks)))
                .collect(),
        }
    }

    #[test]
    fn use_is_the_difference_summed_over_processes_and_grouped_by_thread() {
        let before =
            snapshot(&[(1, 100), (2, 50)], &[(1, 11, "core-0", 80), (2, 21, "core-0", 40), (2, 22, "idle", 3)]);
        let after = snapshot(
            &[(1, 140), (2, 60)],
            &[(1, 11, "core-0", 110), (1, 12, "pool-7", 4), (2, 21, "core-0", 46), (2, 22, "idle", 3)],
        );
        let used = before.until(&after);
        assert_eq!(used.total, ticks_to_time(50));
        let expected = [("core-*".to_owned(), ticks_to_time(36)), ("pool-*".to_owned(), ticks_to_time(4))];
        assert_eq!(used.groups, BTreeMap::from(expected));
    }

    #[test]
    fn an_ended_process_is_an_error() {
        let server = ServerProcess { name: "replica1".to_owned(), pid: u32::MAX };
        let failure = CpuSnapshot::take(&[server]).unwrap_err().to_string();
        assert!(failure.contains("replica1") && failure.contains("ended"), "{failure}");
        assert!(from_pids(&[u32::MAX]).is_err());
    }

    #[test]
    fn this_process_has_a_snapshot() {
        let servers = from_pids(&[std::process::id()]).unwrap();
        let before = CpuSnapshot::take(&servers).unwrap();
        let after = CpuSnapshot::take(&servers).unwrap();
        assert!(before.until(&after).total < Duration::from_secs(60));
    }

    #[test]
    fn onebox_directories_without_nodes_and_with_foreign_pids_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(from_onebox(directory.path()).is_err());
        assert!(from_onebox(&directory.path().join("absent")).is_err());

        let node = directory.path().join("replica1");
        fs::create_dir(&node).unwrap();
        fs::write(node.join("pid"), format!("{}\n", std::process::id())).unwrap();
        assert!(from_onebox(directory.path()).is_err(), "the test itself is not a storage node");

        fs::write(node.join("pid"), "not a number").unwrap();
        let failure = from_onebox(directory.path()).unwrap_err().to_string();
        assert!(failure.contains("replica1/pid"), "{failure}");
    }

    #[test]
    fn only_numbered_replica_directories_are_nodes() {
        assert!(is_node_directory("replica1") && is_node_directory("replica12"));
        assert!(!is_node_directory("replica") && !is_node_directory("replica1.old") && !is_node_directory("meta1"));
    }
}
