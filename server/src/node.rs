//! A node from start to stop: directory, pools, recovery, executors, administration thread, shutdown.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc};
use std::time::Duration;

use futures_channel::{mpsc, oneshot};
use futures_util::SinkExt;
use pegasus_engine::affinity::{BACKGROUND_NICENESS, Placement};
use pegasus_engine::byte_rate::ByteRate;
use pegasus_engine::copies::delete_removed;
use pegasus_engine::identity::{DirectoryLock, NodeIdentity};
use pegasus_engine::pool::BlockingPool;
use pegasus_engine::table::{SharedOptions, TableShared};
use pegasus_rpc::{Endpoint, Identity, Role, Runtime};
use pegasus_wire::{ClusterId, NodeId};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Notify;

use crate::compactions::Turns;
use crate::config::{Config, PinCpus};
use crate::control::{CORE_QUEUE, CoreSenders, META_QUEUE, ToCore, ToMeta};
use crate::cores::{self, CoreSetup};
use crate::layout;
use crate::meta_link::{self, MetaClient};

/// Jobs that may wait in one pool; beyond it a request is answered Busy.
const POOL_QUEUE: usize = 4096;
/// How often free disk space is looked at.
const DISK_CHECK: Duration = Duration::from_millis(500);
/// How often copies that were set aside long enough ago are looked for.
const REMOVED_CHECK: Duration = Duration::from_secs(600);

/// What all threads of the node share. Nothing in it is on the hot path but the two flags.
pub struct NodeShared {
    /// The configuration in force.
    pub config: Config,
    /// The node's identity.
    pub node: NodeId,
    /// Certificates.
    pub identity: Identity,
    /// RocksDB's shared parts.
    pub tables: TableShared,
    /// Point reads that missed the cache and stalled writes.
    pub point_pool: BlockingPool,
    /// Scans, flushes, opening, closing, descriptors.
    pub long_pool: BlockingPool,
    /// Manual compactions.
    pub compact_pool: BlockingPool,
    /// Which of them have their turn.
    pub compactions: Arc<Turns>,
    /// What the node sends of checkpoints.
    pub checkpoint_rate: ByteRate,
    /// Told when a copy came, went, or is worth more or less than before: the meta service wants to know.
    pub copies_changed: Notify,
    /// Set while the file system is below its reserve.
    pub disk_low: AtomicBool,
    /// The node's durable identity file.
    node_identity: Mutex<NodeIdentity>,
}

impl NodeShared {
    /// The cluster this node belongs to, once it is known.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.node_identity.lock().unwrap_or_else(PoisonError::into_inner).cluster()
    }

    /// Remembers the cluster durably at first contact; refuses another one ever after.
    pub fn adopt_cluster(&self, cluster: ClusterId) -> Result<(), String> {
        let mut identity = self.node_identity.lock().unwrap_or_else(PoisonError::into_inner);
        match identity.cluster() {
            Some(known) if known == cluster => Ok(()),
            Some(known) => Err(format!(
                "the data directory belongs to cluster {known}, the meta service to cluster {cluster}: correct \
                 meta_servers or data_directory"
            )),
            None => identity.set_cluster(cluster).map_err(|error| error.to_string()),
        }
    }

    /// Where the copies are.
    pub fn replicas_directory(&self) -> PathBuf {
        self.config.data_directory.join("replicas")
    }
}

/// Why a node did not start or had to stop. The message says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NodeError(pub String);

impl NodeError {
    /// `what` failed because of `error`.
    pub fn new(what: impl std::fmt::Display, error: impl std::fmt::Display) -> NodeError {
        NodeError(format!("{what}: {error}"))
    }
}

/// Runs a node until it is told to stop.
pub fn run(config: Config) -> Result<(), NodeError> {
    let directory = config.data_directory.clone();
    make_directory(&directory)?;
    let lock = DirectoryLock::acquire(&directory).map_err(|error| NodeError::new("data_directory", error))?;
    let shared = Arc::new(open_shared(config)?);
    make_directory(&shared.replicas_directory())?;
    raise_limits();
    check_io_uring()?;
    let plan = layout::recover(&shared)?;

    let (to_meta, proposals) = mpsc::channel(META_QUEUE);
    let (senders, ended, threads) = start_cores(&shared, plan, &to_meta)?;
    drop(to_meta);
    let outcome = administer(&shared, senders, ended, proposals);
    let mut failed = outcome.err();
    for thread in threads {
        match thread.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => failed = failed.or(Some(error)),
            Err(_) => failed = failed.or(Some(NodeError("a core panicked; see the log".to_owned()))),
        }
    }
    shared.point_pool.shutdown();
    shared.long_pool.shutdown();
    shared.compact_pool.shutdown();
    drop(lock);
    match failed {
        None => {
            tracing::info!("stopped");
            Ok(())
        }
        Some(error) => Err(error),
    }
}

fn make_directory(directory: &Path) -> Result<(), NodeError> {
    std::fs::create_dir_all(directory)
        .map_err(|error| NodeError::new(format!("cannot create the directory {}", directory.display()), error))
}

fn open_shared(config: Config) -> Result<NodeShared, NodeError> {
    let identity = Identity::load(&config.tls.certificate, &config.tls.key, &config.tls.ca)
        .map_err(|error| NodeError::new("tls", error))?;
    if identity.role() != Role::Replica {
        let (path, role) = (config.tls.certificate.display(), identity.role());
        return Err(NodeError(format!(
            "tls.certificate: {path} has the role {role}, a storage node needs a certificate of the role replica"
        )));
    }
    let node_identity = NodeIdentity::open(&config.data_directory, || NodeId(rand::random::<u64>() | 1))
        .map_err(|error| NodeError::new("the node's identity file", error))?;
    let background_cpus = spare_cpus(&config);
    let tables = TableShared::new(SharedOptions {
        block_cache_bytes: config.storage.block_cache_bytes,
        write_buffer_bytes_total: config.storage.write_buffer_bytes,
        write_buffer_bytes: SharedOptions::default().write_buffer_bytes.min(config.storage.write_buffer_bytes),
        background_threads: i32::try_from(config.storage.background_threads).unwrap_or(i32::MAX),
        background_cpus: background_cpus.clone(),
        ..SharedOptions::default()
    })
    .map_err(|error| NodeError::new("RocksDB", error))?;
    let pool = |name, threads, niceness| {
        let placement = Placement { cpus: background_cpus.clone(), niceness };
        BlockingPool::new(name, threads, POOL_QUEUE, &placement).map_err(|error| NodeError::new("thread pool", error))
    };
    // Somebody waits for a point read; what takes long gives way.
    let point_pool = pool("point", config.storage.point_threads, 0)?;
    let long_pool = pool("long", config.storage.long_threads, BACKGROUND_NICENESS)?;
    let compact_pool = pool("compact", config.storage.compaction_threads, BACKGROUND_NICENESS)?;
    Ok(NodeShared {
        node: node_identity.node(),
        identity,
        tables,
        point_pool,
        long_pool,
        compact_pool,
        compactions: Turns::new(config.storage.compaction_threads),
        checkpoint_rate: ByteRate::new(config.replication.checkpoint_bytes_per_second),
        copies_changed: Notify::new(),
        disk_low: AtomicBool::new(false),
        node_identity: Mutex::new(node_identity),
        config,
    })
}

/// CPUs that no executor is bound to; `None` if executors are not bound or all CPUs are taken.
fn spare_cpus(config: &Config) -> Option<Vec<usize>> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let spare: Vec<usize> = (usize::from(config.cores)..cpus).collect();
    (config.pin_cpus == PinCpus::Auto && !spare.is_empty()).then_some(spare)
}

/// io_uring needs locked memory, and every connection and table an open file: lifts the soft limits to the hard ones.
/// glommio reports what is still missing.
fn raise_limits() {
    for resource in [libc::RLIMIT_MEMLOCK, libc::RLIMIT_NOFILE] {
        let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: both calls only read or write the struct passed to them.
        unsafe {
            if libc::getrlimit(resource, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
                limit.rlim_cur = limit.rlim_max;
                libc::setrlimit(resource, &limit);
            }
        }
    }
}

/// Asks the kernel for a ring and gives it back: where there is none, glommio would panic.
fn check_io_uring() -> Result<(), NodeError> {
    // The kernel's `io_uring_params`: 120 bytes, where zero means the default.
    let mut parameters = [0u32; 30];
    // SAFETY: the kernel reads and writes only that structure, which lives over the call.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    if ring >= 0 {
        // SAFETY: the descriptor was made above and nothing else knows it.
        unsafe { libc::close(ring as libc::c_int) };
        return Ok(());
    }
    let error = std::io::Error::last_os_error();
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "io_uring is disabled; allow it (sysctl kernel.io_uring_disabled=0; in a container its seccomp profile too)"
        }
        Some(libc::ENOSYS) => "this kernel has no io_uring; Linux 5.8 or later is needed",
        Some(libc::ENOMEM) => "the locked-memory limit (ulimit -l) must be at least 512 KiB for each core",
        _ => "see io_uring_setup(2)",
    };
    Err(NodeError(format!("the node cannot start its io_uring executors: {error}: {hint}")))
}

type CoreThread = std::thread::JoinHandle<Result<(), NodeError>>;
/// Resolve, to an error, when the core they belong to has ended.
type CoreEnds = Vec<oneshot::Receiver<()>>;

/// Starts all executors and waits until each has recovered and bound its port, or one has failed.
fn start_cores(
    shared: &Arc<NodeShared>,
    plan: layout::Plan,
    to_meta: &mpsc::Sender<ToMeta>,
) -> Result<(CoreSenders, CoreEnds, Vec<CoreThread>), NodeError> {
    let (started, starts) = std_mpsc::channel();
    let (mut senders, mut ends) = (Vec::new(), Vec::new());
    let mut threads: Vec<CoreThread> = Vec::new();
    let relocation = plan.relocation.map(Arc::new);
    for (id, recovered) in (0u16..).zip(plan.cores) {
        let (sender, inbox) = mpsc::channel(CORE_QUEUE);
        senders.push(sender);
        let (alive, end) = oneshot::channel();
        ends.push(end);
        let setup = CoreSetup {
            shared: shared.clone(),
            id,
            recovered,
            relocation: relocation.clone(),
            inbox,
            to_meta: to_meta.clone(),
            alive,
        };
        let started = started.clone();
        threads.push(cores::spawn(setup, started)?);
    }
    drop(started);
    for _ in 0..threads.len() {
        match starts.recv() {
            Ok(Ok(core)) => tracing::debug!(core, "core started"),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                // Every sender is gone: a core ended before it said anything, its thread knows why.
                for thread in threads {
                    if let Ok(result) = thread.join() {
                        result?;
                    }
                }
                return Err(NodeError("a core ended while starting; see the log".to_owned()));
            }
        }
    }
    layout::finish(shared, relocation.as_deref())?;
    Ok((senders, ends, threads))
}

/// The administration thread: signals, HTTP, meta service, disk reserve. When the node should stop it tells the cores,
/// and goes on until they have stopped: they hand their roles over by way of the meta service.
fn administer(
    shared: &Arc<NodeShared>,
    mut cores: CoreSenders,
    ended: CoreEnds,
    proposals: mpsc::Receiver<ToMeta>,
) -> Result<(), NodeError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("admin")
        .build()
        .map_err(|error| NodeError::new("administration thread", error))?;
    runtime.block_on(async {
        let outcome = administer_until_stop(shared, &cores, proposals).await;
        for core in &mut cores {
            // A core that has stopped by itself needs no telling.
            let _ = core.send(ToCore::Shutdown).await;
        }
        drop(cores);
        for end in ended {
            // It always comes to an error: the end of the core.
            let _ = end.await;
        }
        outcome
    })
}

async fn administer_until_stop(
    shared: &Arc<NodeShared>,
    cores: &CoreSenders,
    proposals: mpsc::Receiver<ToMeta>,
) -> Result<(), NodeError> {
    let endpoint = Endpoint::client(Runtime::tokio(), shared.identity.clone())
        .map_err(|error| NodeError::new("QUIC endpoint of the administration thread", error))?;
    let stop = StopSignal::listen().map_err(|error| NodeError::new("signal handler", error))?;
    let meta = Arc::new(MetaClient::new(&endpoint, &shared.config.meta_servers));
    let admin = crate::admin::serve(shared.clone(), cores.clone()).await?;
    tokio::spawn(meta_link::carry_proposals(meta.clone(), proposals, cores.clone()));
    let watch = tokio::spawn(meta_link::watch(shared.clone(), meta, cores.clone()));
    tokio::spawn(watch_disk(shared.clone()));
    tokio::spawn(delete_old_copies(shared.clone()));
    announce(shared)?;
    tokio::select! {
        () = stop.received() => Ok(()),
        lost = watch => Err(NodeError(lost.unwrap_or_else(|error| error.to_string()))),
        served = admin => {
            Err(NodeError::new("administration port", served.unwrap_or_else(|error| error.to_string())))
        }
    }
}

/// Tells a starter on standard output that the node answers on its ports.
fn announce(shared: &NodeShared) -> Result<(), NodeError> {
    let mut out = std::io::stdout();
    writeln!(out, "ready {} {}", shared.config.name, shared.config.listen)
        .and_then(|()| out.flush())
        .map_err(|error| NodeError::new("standard output", error))?;
    tracing::info!(node = %shared.node, listen = %shared.config.listen, cores = shared.config.cores, "ready");
    Ok(())
}

/// The signals that ask the node to stop. Listened to before the node says that it is ready: a starter may stop it at
/// once.
struct StopSignal {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignal {
    fn listen() -> std::io::Result<StopSignal> {
        Ok(StopSignal { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn received(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => tracing::info!("SIGTERM: stopping"),
            _ = self.interrupt.recv() => tracing::info!("SIGINT: stopping"),
        }
    }
}

/// Deletes copies that were set aside when their holding time is over.
async fn delete_old_copies(shared: Arc<NodeShared>) {
    let holding_seconds = u64::from(shared.config.replication.removed_copy_hold_hours) * 3600;
    loop {
        let directory = shared.config.data_directory.clone();
        let now_seconds = std::time::SystemTime::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let job = shared.long_pool.run(move || delete_removed(&directory, now_seconds, holding_seconds));
        if let Ok(job) = job {
            match job.await {
                Ok(Ok(deleted)) => {
                    for copy in deleted {
                        tracing::info!(directory = %copy.directory.display(), "a copy set aside earlier was deleted");
                    }
                }
                Ok(Err(error)) => tracing::warn!(%error, "copies that were set aside could not be deleted"),
                Err(panicked) => tracing::error!(%panicked, "deleting copies that were set aside"),
            }
        }
        tokio::time::sleep(REMOVED_CHECK).await;
    }
}

/// Keeps [`NodeShared::disk_low`] true to the file system.
async fn watch_disk(shared: Arc<NodeShared>) {
    let reserve = shared.config.storage.disk_reserve_bytes;
    loop {
        match pegasus_engine::disk::disk_space(&shared.config.data_directory) {
            Ok(space) => {
                let free = space.free_bytes;
                let low = free < reserve;
                if shared.disk_low.swap(low, Ordering::Relaxed) != low {
                    tracing::warn!(free, reserve, low, "the disk reserve was crossed: writes are refused while low");
                }
            }
            Err(error) => tracing::warn!(%error, "cannot read free disk space"),
        }
        tokio::time::sleep(DISK_CHECK).await;
    }
}
