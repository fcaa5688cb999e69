//! A cluster of real processes made for one run, and everything that can be done to it.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::chaos::disk::Disk;
use crate::chaos::faults::Fault;
use crate::chaos::http;
use crate::chaos::interrupt::Interrupt;
use crate::chaos::layout::{self, Shape};
use crate::chaos::links::{FIRST_NODE, Links, META, Place};
use crate::chaos::namespace::isolate;
use crate::chaos::process::Server;
use crate::chaos::switch::{Switch, Traffic};
use crate::failure::Failure;

/// The cluster. Dropping it kills its processes and takes away its disks and its network; the directory stays.
pub struct Cluster {
    shape: Shape,
    /// By place, without the runner.
    servers: Vec<Server>,
    /// By node. Empty if they have none.
    disks: Vec<Disk>,
    switch: Option<Switch>,
    /// What this machine did not allow.
    missing: Vec<String>,
}

impl Cluster {
    /// Makes everything and starts nothing. Moves the calling thread into namespaces of its own, for good.
    pub fn make(mut shape: Shape) -> Result<Cluster, Failure> {
        shape.directory = layout::make_directory(&shape.directory)?;
        let mut missing = Vec::new();
        let isolation = isolate().map_err(|failure| missing.push(failure.to_string())).ok();
        let mut servers = layout::make_servers(&shape)?;
        let switch = match isolation {
            Some(_) => layout::wire(&mut servers, shape.seed).map_err(|failure| missing.push(failure.to_string())).ok(),
            None => None,
        };
        if switch.is_none() {
            layout::move_to_loopback(&mut servers);
        }
        let may_mount = isolation.is_some_and(|isolation| isolation.may_mount);
        let disks = match shape.small_disks && may_mount {
            true => layout::make_disks(&shape).map_err(|failure| missing.push(failure.to_string())).unwrap_or_default(),
            false => Vec::new(),
        };
        layout::make_identities(&layout::tls_directory(&shape))?;
        let cluster = Cluster { shape, servers, disks, switch, missing };
        for place in cluster.places() {
            layout::write_config(&cluster.shape, &cluster.servers, place, cluster.has_disks())?;
        }
        Ok(cluster)
    }

    /// Starts all processes and waits until each serves.
    pub fn start(&mut self, within: Duration, interrupt: &Interrupt) -> Result<(), Failure> {
        let deadline = Instant::now() + within;
        for places in [META..FIRST_NODE, FIRST_NODE..FIRST_NODE + self.shape.nodes] {
            for place in places.clone() {
                self.server_mut(place).start()?;
            }
            for place in places {
                self.server_mut(place).wait_until_ready(deadline, interrupt)?;
            }
        }
        Ok(())
    }

    /// True if links can be cut and delayed.
    pub fn has_links(&self) -> bool {
        self.switch.is_some()
    }

    /// True if disks can be filled.
    pub fn has_disks(&self) -> bool {
        !self.disks.is_empty()
    }

    /// What this machine did not allow, for people.
    pub fn missing(&self) -> &[String] {
        &self.missing
    }

    /// Places of all processes.
    pub fn places(&self) -> std::ops::Range<Place> {
        META..FIRST_NODE + self.shape.nodes
    }

    /// Addresses of the meta servers.
    pub fn meta_servers(&self) -> Vec<SocketAddr> {
        vec![self.server(META).listen]
    }

    /// Where the client's certificate is.
    pub fn tls_directory(&self) -> PathBuf {
        layout::tls_directory(&self.shape)
    }

    /// The node that listens there, if there is one.
    pub fn node_at(&self, address: SocketAddr) -> Option<Place> {
        (FIRST_NODE..FIRST_NODE + self.shape.nodes).find(|place| self.server(*place).listen == address)
    }

    /// What the switch has done.
    pub fn traffic(&self) -> Option<Traffic> {
        self.switch.as_ref().map(Switch::traffic)
    }

    /// Lets packets fare as under these faults.
    pub fn set_links<'a>(&self, faults: impl Iterator<Item = &'a Fault>) {
        if let Some(switch) = &self.switch {
            switch.set(Links::under(FIRST_NODE + self.shape.nodes, faults));
        }
    }

    /// kill -9.
    pub fn kill(&mut self, place: Place) {
        self.server_mut(place).kill();
    }

    /// Starts a process that does not run, without waiting for it.
    pub fn start_one(&mut self, place: Place) -> Result<(), Failure> {
        let server = self.server_mut(place);
        if server.is_running() { Ok(()) } else { server.start() }
    }

    /// SIGSTOP, or SIGCONT.
    pub fn set_stopped(&self, place: Place, stopped: bool) {
        self.server(place).set_stopped(stopped);
    }

    /// Fills the disk of a node.
    pub fn fill_disk(&self, node: Place, leave_bytes: u64) -> Result<(), Failure> {
        self.disks.get(node - FIRST_NODE).map_or(Ok(()), |disk| disk.fill(leave_bytes))
    }

    /// Frees the disk of a node.
    pub fn free_disk(&self, node: Place) -> Result<(), Failure> {
        self.disks.get(node - FIRST_NODE).map_or(Ok(()), Disk::free)
    }

    /// Processes that have ended by themselves since the last call, with their status and the end of their log.
    pub fn ended(&mut self) -> Result<Vec<(Place, String)>, Failure> {
        let mut ended = Vec::new();
        for place in self.places() {
            let server = self.server_mut(place);
            if let Some(status) = server.ended()? {
                ended.push((place, format!("{status}\n{}", server.log_tail())));
            }
        }
        Ok(ended)
    }

    /// True if a node says that its log failed and that it must be restarted; `None` if it does not answer.
    pub fn is_log_closed(&self, node: Place) -> Option<bool> {
        http::get(self.server(node).admin, "/metrics", ADMIN_PATIENCE).ok().map(|metrics| is_log_closed(&metrics))
    }

    /// Writes what every process says of itself into its directory, for whoever looks at it later.
    pub fn save_statuses(&self) {
        for place in self.places() {
            let server = self.server(place);
            let said = http::get(server.admin, "/status", ADMIN_PATIENCE);
            let text = said.unwrap_or_else(|failure| failure.to_string());
            // A help for people; that it is missing must not hide what it was to explain.
            let _ = fs::write(server.directory.join("status.json"), text);
        }
    }

    fn server(&self, place: Place) -> &Server {
        &self.servers[place - META]
    }

    fn server_mut(&mut self, place: Place) -> &mut Server {
        &mut self.servers[place - META]
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Before their disks are taken away.
        self.servers.iter_mut().for_each(Server::kill);
    }
}

fn is_log_closed(metrics: &str) -> bool {
    metrics.lines().filter(|line| line.starts_with("pegasus_log_closed{")).any(|line| !line.ends_with(" 0"))
}

/// How long an administration port may take.
pub const ADMIN_PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shape(directory: &Path) -> Shape {
        for program in ["pegasus-meta", "pegasus-replica"] {
            fs::write(directory.join(program), "").unwrap();
        }
        Shape {
            nodes: 3,
            cores: 2,
            directory: directory.join("run"),
            binaries: directory.to_owned(),
            seed: 1,
            small_disks: false,
        }
    }

    /// On a thread of its own: making a cluster moves the thread.
    fn on_a_thread(test: impl FnOnce() + Send + 'static) {
        std::thread::spawn(test).join().unwrap();
    }

    #[test]
    fn every_process_has_its_configuration_and_address() {
        on_a_thread(|| {
            let home = tempfile::tempdir().unwrap();
            let cluster = Cluster::make(shape(home.path())).unwrap();
            assert_eq!(cluster.has_links(), cluster.missing().is_empty());
            let mut addresses: Vec<SocketAddr> = cluster.places().map(|place| cluster.server(place).listen).collect();
            for place in cluster.places() {
                let text = fs::read_to_string(cluster.server(place).config_path()).unwrap();
                assert!(text.contains(&format!("listen = \"{}\"", cluster.server(place).listen)), "{text}");
                assert_eq!(text.contains("cores = 2"), place != META, "{text}");
                assert_eq!(cluster.node_at(cluster.server(place).listen), (place != META).then_some(place));
            }
            addresses.dedup();
            assert_eq!(addresses.len(), 4);
            for file in ["ca.crt", "meta.key", "replica.crt", "client.key"] {
                assert!(cluster.tls_directory().join(file).is_file(), "{file}");
            }
            let again = Cluster::make(shape(home.path())).map(|_| ()).unwrap_err().to_string();
            assert!(again.contains("not empty"), "{again}");
        });
    }

    #[test]
    fn a_missing_program_is_named() {
        on_a_thread(|| {
            let home = tempfile::tempdir().unwrap();
            let mut shape = shape(home.path());
            shape.binaries = home.path().join("nowhere");
            let failure = Cluster::make(shape).map(|_| ()).unwrap_err().to_string();
            assert!(failure.contains("pegasus-meta") && failure.contains("--bin-dir"), "{failure}");
        });
    }

    #[test]
    fn a_closed_log_is_read_from_the_metrics() {
        assert!(!is_log_closed(""));
        assert!(!is_log_closed("# HELP pegasus_log_closed x\npegasus_log_closed{core=\"0\"} 0\n"));
        assert!(is_log_closed("pegasus_log_closed{core=\"0\"} 0\npegasus_log_closed{core=\"1\"} 1\n"));
    }
}
