//! What a cluster of a run consists of: directories, addresses, configurations, certificates, disks.
//!
//! ```text
//! <directory>/tls/             ca.crt ca.key, and certificate and key of each role
//!             meta1/           config.toml  ready  log  disk/data/
//!             node1/ ...       the same; disk/ is a file system of its own (disk.ext4) where that is wanted
//! ```

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use pegasus_client::tls::{Authority, Role};

use crate::chaos::disk::Disk;
use crate::chaos::faults::place_name;
use crate::chaos::links::{FIRST_NODE, META, Place, RUNNER};
use crate::chaos::namespace::{Namespace, add_device};
use crate::chaos::process::{Ports, Server};
use crate::chaos::switch::{Port, Switch};
use crate::failure::Failure;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Storage nodes.
    pub nodes: usize,
    /// Executors of each node.
    pub cores: u16,
    /// Where everything of the run lies; must not exist or be empty.
    pub directory: PathBuf,
    /// Where the programs are.
    pub binaries: PathBuf,
    /// Decides which packets are lost on bad links.
    pub seed: u64,
    /// Each node gets a small disk of its own, if that is allowed.
    pub small_disks: bool,
}

/// Makes the directory of a run; gives its absolute path.
pub fn make_directory(directory: &Path) -> Result<PathBuf, Failure> {
    let doing = format!("make the directory {}", directory.display());
    fs::create_dir_all(directory).map_err(Failure::at(&doing))?;
    match fs::read_dir(directory).map_err(Failure::at(&doing))?.next() {
        None => fs::canonicalize(directory).map_err(Failure::at(&doing)),
        Some(_) => Err(Failure::new(format!("{} is not empty; a run makes its own cluster", directory.display()))),
    }
}

/// The servers in their directories, at the addresses they have on the switch.
pub fn make_servers(shape: &Shape) -> Result<Vec<Server>, Failure> {
    let mut servers = Vec::new();
    for place in META..FIRST_NODE + shape.nodes {
        let name = place_name(place);
        let (program, ports) = match place {
            META => ("pegasus-meta", Ports { quic: META_PORT, quic_count: 1, admin: META_ADMIN_PORT }),
            _ => ("pegasus-replica", Ports { quic: NODE_PORT, quic_count: shape.cores, admin: NODE_ADMIN_PORT }),
        };
        let program = shape.binaries.join(program);
        if !program.is_file() {
            return Err(Failure::new(format!(
                "{} is not there; build it, or say where the programs are with --bin-dir",
                program.display()
            )));
        }
        let own = shape.directory.join(&name);
        fs::create_dir_all(own.join(DISK)).map_err(Failure::at(format!("make {}", own.display())))?;
        servers.push(Server::new(name, program, own, address(NETWORK, place), ports));
    }
    Ok(servers)
}

/// Puts the calling thread and every server on a network of their own.
pub fn wire(servers: &mut [Server], seed: u64) -> Result<Switch, Failure> {
    let runner = address(NETWORK, RUNNER);
    let mut ports = vec![Port { address: runner, tun: add_device(runner)? }];
    let mut namespaces = Vec::new();
    for place in META..META + servers.len() {
        let address = address(NETWORK, place);
        let (namespace, tun) = Namespace::make(address)?;
        ports.push(Port { address, tun });
        namespaces.push(namespace);
    }
    let switch = Switch::start(ports, seed)?;
    for (server, namespace) in servers.iter_mut().zip(namespaces) {
        server.namespace = Some(namespace);
    }
    Ok(switch)
}

/// Without a network of their own: each server has its own address of the loopback device.
pub fn move_to_loopback(servers: &mut [Server]) {
    for (index, server) in servers.iter_mut().enumerate() {
        let address = address(LOOPBACK, META + index);
        server.listen.set_ip(address.into());
        server.admin.set_ip(address.into());
    }
}

/// A file system of its own for each node.
pub fn make_disks(shape: &Shape) -> Result<Vec<Disk>, Failure> {
    let bytes = DISK_BYTES + LOG_BUDGET_BYTES * u64::from(shape.cores);
    let mut disks = Vec::new();
    for place in FIRST_NODE..FIRST_NODE + shape.nodes {
        let own = shape.directory.join(place_name(place));
        disks.push(Disk::make(&own.join("disk.ext4"), bytes, own.join(DISK))?);
    }
    Ok(disks)
}

/// An authority, and a certificate for each role.
pub fn make_identities(directory: &Path) -> Result<(), Failure> {
    let authority = Authority::generate().map_err(Failure::at("make a certificate authority"))?;
    authority.save(directory).map_err(Failure::at("save the certificate authority"))?;
    for role in [Role::Meta, Role::Replica, Role::Client] {
        authority.write_identity(directory, role).map_err(Failure::at("make a certificate"))?;
    }
    Ok(())
}

fn address(network: [u8; 3], place: Place) -> Ipv4Addr {
    let last = match place {
        RUNNER | META => 1 + place,
        node => FIRST_NODE_ADDRESS + node - FIRST_NODE,
    };
    Ipv4Addr::new(network[0], network[1], network[2], last as u8)
}

/// A path as TOML has it.
fn quoted(path: &Path) -> Result<String, Failure> {
    let text = path.to_str().ok_or_else(|| Failure::new(format!("{} is not UTF-8", path.display())))?;
    // A JSON string is a TOML string as well.
    serde_json::to_string(text).map_err(Failure::at("quote a path"))
}

/// Where the client's certificate is.
pub fn tls_directory(shape: &Shape) -> PathBuf {
    shape.directory.join("tls")
}

/// Writes the configuration of a server and makes its data directory.
pub fn write_config(shape: &Shape, servers: &[Server], place: Place, own_disk: bool) -> Result<(), Failure> {
    let server = &servers[place - META];
    // Not the root of its disk, which has a directory of the file system's own.
    let data = server.directory.join(DISK).join("data");
    fs::create_dir_all(&data).map_err(Failure::at(format!("make {}", data.display())))?;
    let tls = tls_directory(shape);
    let role = if place == META { "meta" } else { "replica" };
    let mut text = format!(
        "listen = \"{}\"\nadmin_listen = \"{}\"\ndata_directory = {}\nlog_level = \"info\"\n",
        server.listen,
        server.admin,
        quoted(&data)?,
    );
    if place != META {
        let meta = servers[0].listen;
        text += &format!("name = \"{}\"\ncores = {}\nmeta_servers = [\"{meta}\"]\n", server.name, shape.cores);
    }
    text += &format!(
        "[tls]\ncertificate = {}\nkey = {}\nca = {}\n",
        quoted(&tls.join(format!("{role}.crt")))?,
        quoted(&tls.join(format!("{role}.key")))?,
        quoted(&tls.join("ca.crt"))?,
    );
    if place != META {
        text += &format!(
            "[log]\nsegment_bytes = {LOG_SEGMENT_BYTES}\nbudget_bytes = {LOG_BUDGET_BYTES}\n\
             [storage]\nblock_cache_bytes = {CACHE_BYTES}\nwrite_buffer_bytes = {CACHE_BYTES}\n"
        );
        if own_disk {
            text += &format!("disk_reserve_bytes = {DISK_RESERVE_BYTES}\n");
        }
    }
    let path = server.config_path();
    fs::write(&path, text).map_err(Failure::at(format!("write {}", path.display())))
}

/// Where the disk of a server is mounted, if it has one of its own.
const DISK: &str = "disk";
/// The network behind the switch.
const NETWORK: [u8; 3] = [10, 77, 0];
/// Where there is no switch.
const LOOPBACK: [u8; 3] = [127, 77, 0];
/// The last number of the first node's address; the runner has 1, the meta server 2.
const FIRST_NODE_ADDRESS: usize = 11;
const META_PORT: u16 = 34601;
const META_ADMIN_PORT: u16 = 34691;
const NODE_PORT: u16 = 34801;
const NODE_ADMIN_PORT: u16 = 34901;
/// Small, so that the log comes around within a run.
const LOG_SEGMENT_BYTES: u64 = 8 << 20;
/// Of each core.
const LOG_BUDGET_BYTES: u64 = 64 << 20;
/// Block cache and memtables, each.
const CACHE_BYTES: u64 = 32 << 20;
/// A node's disk, without its logs.
const DISK_BYTES: u64 = 448 << 20;
/// Below it a node on such a disk refuses writes.
const DISK_RESERVE_BYTES: u64 = 48 << 20;
