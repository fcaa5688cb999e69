//! A core's life: thread, executor, log, copies, port, loops, stop.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc as std_mpsc;
use std::time::{Duration, Instant};

use futures_channel::{mpsc, oneshot};
use futures_util::StreamExt;
use glommio::timer::sleep;
use glommio::{LocalExecutorBuilder, Placement};
use pegasus_engine::disk::disk_space;
use pegasus_engine::identity::BootId;
use pegasus_engine::log::{Log, LogError};
use pegasus_replication::Event;
use pegasus_rpc::{Alpn, Connection, Endpoint, EndpointOptions, RpcError, Runtime};
use pegasus_wire::limits::CONNECTIONS_PER_CORE_MAX;
use pegasus_wire::{Ballot, Durability, PartitionId};

use super::partition::{Broken, Partition, StoredAs};
use super::{Core, CoreParts, State, compatibility, session};
use crate::config::PinCpus;
use crate::control::{ToCore, ToMeta};
use crate::layout::{CoreRecovery, RecoveredCopy, Relocation};
use crate::node::{NodeError, NodeShared};

/// Entries of a ring. The kernel finds what it is to cancel, which every sleep of an executor does, in a table that
/// grows with the ring: with glommio's default of 128 it has 8 places for thousands of idle connections.
const RING_DEPTH: usize = 4096;
/// How long a port in use is asked for again.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// Pause between two attempts.
const PORT_RETRY: Duration = Duration::from_millis(20);

/// Everything a core needs to start.
pub struct CoreSetup {
    /// Shared by the node's threads.
    pub shared: Arc<NodeShared>,
    /// Index of the core.
    pub id: u16,
    /// Its log and copies.
    pub recovered: CoreRecovery,
    /// Set when the number of cores changed: windows move to this core's log.
    pub relocation: Option<Arc<Relocation>>,
    /// Messages of the administration thread.
    pub inbox: mpsc::Receiver<ToCore>,
    /// The way to the meta service.
    pub to_meta: mpsc::Sender<ToMeta>,
    /// Dropped when the core has ended.
    pub alive: oneshot::Sender<()>,
}

/// Starts a core's thread. It says on `started` when it answers on its port, or why it does not.
pub fn spawn(
    setup: CoreSetup,
    started: std_mpsc::Sender<Result<u16, NodeError>>,
) -> Result<std::thread::JoinHandle<Result<(), NodeError>>, NodeError> {
    let id = setup.id;
    std::thread::Builder::new()
        .name(format!("core-{id}"))
        .spawn(move || {
            // A core that panics has broken one of its own rules: the whole node stops at once rather than
            // serve with a part of itself missing.
            let bomb = AbortOnPanic;
            let placement = match setup.shared.config.pin_cpus {
                PinCpus::None => Placement::Unbound,
                PinCpus::Auto => Placement::Fixed(usize::from(id)),
            };
            let executor =
                LocalExecutorBuilder::new(placement).name(&format!("core-{id}")).ring_depth(RING_DEPTH).make();
            let result = match executor {
                Ok(executor) => executor.run(live(setup, &started)),
                Err(error) => Err(NodeError(format!(
                    "core {id} cannot start its io_uring executor: {error}. Check that io_uring is allowed \
                     (sysctl kernel.io_uring_disabled is 0) and that the locked-memory limit (ulimit -l) is at \
                     least 512 KiB for each core"
                ))),
            };
            std::mem::forget(bomb);
            if let Err(error) = &result {
                // Nobody listens any more once the node runs; then the thread's result tells.
                let _ = started.send(Err(NodeError(error.0.clone())));
            }
            result
        })
        .map_err(|error| NodeError::new(format!("cannot start the thread of core {id}"), error))
}

/// Aborts the process when dropped by a panic.
struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        tracing::error!("a core panicked: the node stops");
        std::process::abort();
    }
}

async fn live(setup: CoreSetup, started: &std_mpsc::Sender<Result<u16, NodeError>>) -> Result<(), NodeError> {
    let CoreSetup { shared, id, recovered, relocation, inbox, to_meta, alive: _alive } = setup;
    let CoreRecovery { log_options, log, copies, unfit } = recovered;
    let log = Log::open(log_options, log).await.map_err(|error| log_not_opened(&shared, id, &error))?;
    let endpoint = bind(&shared, id).await?;
    let compatible = match shared.config.compatibility.enabled {
        true => Some(compatibility::bind(id, endpoint.local_address()).await?),
        false => None,
    };
    let boot_id = BootId::current().map_err(|error| NodeError::new("boot id", error))?;
    let core = Core(Rc::new(CoreParts {
        shared,
        id,
        log,
        boot_id,
        runtime: Runtime::glommio(),
        endpoint,
        to_meta: RefCell::new(to_meta),
        state: RefCell::new(State::default()),
        scratch: Cell::new(Vec::new()),
        // Copies come with a closed gate, until the meta service has told of their tables.
        gated: Cell::new(true),
        held_bytes: Rc::default(),
        slow: Rc::default(),
        scanners: Rc::default(),
        outboxes: Rc::default(),
        receive_buffer: Cell::default(),
    }));
    let writer = core.run_log();
    if let Some(relocation) = relocation {
        core.take_windows(&relocation).await?;
    }
    core.adopt(copies);
    core.refuse(unfit);
    // Nobody listens only if the node gave up meanwhile; the inbox is closed then, too.
    let _ = started.send(Ok(id));
    let ticks = glommio::spawn_local(core.clone().tick_loop());
    let beacons = glommio::spawn_local(core.clone().beacon_loop());
    let accepting = glommio::spawn_local(core.clone().accept_loop());
    let accepting_compatible = compatible.map(|port| glommio::spawn_local(core.clone().accept_compatible(port)));
    let inbox = core.obey(inbox).await;
    // While roles are handed over, answers and assignments still come.
    let obeying = glommio::spawn_local({
        let core = core.clone();
        async move {
            core.obey(inbox).await;
        }
    });
    core.stop().await;
    obeying.cancel().await;
    accepting.cancel().await;
    if let Some(accepting) = accepting_compatible {
        accepting.cancel().await;
    }
    beacons.cancel().await;
    ticks.cancel().await;
    writer.await;
    Ok(())
}

/// Why a log was not opened. A full disk shows itself as a write that came out too short.
fn log_not_opened(shared: &NodeShared, id: u16, error: &LogError) -> NodeError {
    let directory = &shared.config.data_directory;
    let hint = match disk_space(directory) {
        Ok(space) if space.free_bytes < shared.config.log.segment_bytes => format!(
            "; the file system of {} is full: {} bytes are free, a log segment takes {} (log.segment_bytes)",
            directory.display(),
            space.free_bytes,
            shared.config.log.segment_bytes
        ),
        _ => String::new(),
    };
    NodeError(format!("log of core {id}: {error}{hint}"))
}

/// Takes the core's port. A port in use is asked for again for a while: the sockets of a process that was killed
/// live on until the kernel has taken down its ring, so a quick restart can come too early.
async fn bind(shared: &NodeShared, id: u16) -> Result<Endpoint, NodeError> {
    let mut address = shared.config.listen;
    address.set_port(address.port() + id);
    let options = EndpointOptions { cluster: shared.cluster(), accepts: &[Alpn::Data, Alpn::Peer] };
    let give_up = Instant::now() + PORT_PATIENCE;
    loop {
        match Endpoint::bind(Runtime::glommio(), address, shared.identity.clone(), options) {
            Err(RpcError::AddressInUse { .. }) if Instant::now() < give_up => sleep(PORT_RETRY).await,
            bound => {
                return bound.map_err(|error| NodeError::new(format!("core {id} cannot listen on {address}"), error));
            }
        }
    }
}

impl Core {
    /// Starts the log's writer. It ends when the log is closed or fails.
    fn run_log(&self) -> glommio::Task<()> {
        let core = self.clone();
        glommio::spawn_local(async move {
            let listener = core.clone();
            if let Err(error) = core.log.run(move |progress| listener.log_progressed(progress)).await {
                core.log_failed(&error.to_string());
            }
        })
    }

    /// Appends the windows that moved to this core and waits until they are synced.
    async fn take_windows(&self, relocation: &Relocation) -> Result<(), NodeError> {
        let failed = |error: &dyn std::fmt::Display| NodeError::new(format!("log of core {}", self.id), error);
        let mut last = None;
        for record in relocation.records_of(self.id) {
            last = Some(self.log.append(record.clone(), Durability::Synced).map_err(|error| failed(&error))?);
        }
        let Some(last) = last else { return Ok(()) };
        let (synced, waiting) = oneshot::channel();
        self.state.borrow_mut().sync_waiter = Some((last, synced));
        self.log.submit();
        waiting.await.map_err(|_| failed(&"it failed while windows moved to it"))
    }

    /// Takes over the copies that recovery found.
    fn adopt(&self, copies: Vec<RecoveredCopy>) {
        let mut state = self.state.borrow_mut();
        for copy in copies {
            let id = copy.descriptor.partition;
            let properties = copy.descriptor.table.clone();
            let (table, recovered, flushed) = match copy.state {
                Ok(opened) => (opened.table, opened.recovered, opened.flushed),
                Err(problem) => {
                    state.broken.insert(id, Broken::damaged(copy.descriptor.configuration.ballot, problem));
                    continue;
                }
            };
            let boot = copy.descriptor.boot_id_to_keep(self.boot_id);
            let stored = StoredAs { boot, ..self.stored_as(recovered.state, &recovered) };
            let replica = self.replica(id, properties.clone(), recovered);
            let incarnation = copy.descriptor.incarnation;
            state.partitions.insert(id, Partition::new(properties, id, incarnation, replica, table, flushed, stored));
            self.log.set_flushed(id, flushed);
        }
    }

    /// Keeps apart the copies that nothing can be told of but that they are damaged.
    fn refuse(&self, unfit: Vec<(PartitionId, String)>) {
        // Their ballot is not known; none has this one.
        let unfit = unfit.into_iter().map(|(id, problem)| (id, Broken::damaged(Ballot(0), problem)));
        self.state.borrow_mut().broken.extend(unfit);
    }

    async fn accept_loop(self) {
        let connections = Rc::new(Cell::new(0usize));
        while let Some(connection) = self.endpoint.accept().await {
            if connections.get() >= CONNECTIONS_PER_CORE_MAX {
                tracing::warn!(client = %connection.remote_address(), "too many connections on this core");
                connection.close("too many connections (connections_per_core_max)");
                continue;
            }
            connections.set(connections.get() + 1);
            let (core, connections) = (self.clone(), connections.clone());
            glommio::spawn_local(async move {
                core.serve(connection).await;
                connections.set(connections.get() - 1);
            })
            .detach();
        }
    }

    async fn serve(self, connection: Connection) {
        match connection.alpn() {
            Alpn::Data => session::serve_connection(self, connection).await,
            Alpn::Peer => self.serve_peer(connection).await,
            Alpn::Meta => connection.close("a storage node does not serve the meta protocol"),
        }
    }

    /// Does what the administration thread says until it says stop.
    async fn obey(&self, mut inbox: mpsc::Receiver<ToCore>) -> mpsc::Receiver<ToCore> {
        while let Some(message) = inbox.next().await {
            match message {
                ToCore::Assignments(told) => {
                    if let Some(cluster) = self.shared.cluster() {
                        self.endpoint.set_cluster(cluster);
                    }
                    self.take_assignments(told);
                }
                ToCore::Tasks(told) => self.take_tasks(&told.assignments),
                ToCore::ProposalAnswered { partition, in_force } => {
                    let event = match in_force {
                        Some(configuration) => Event::ProposalDecided { configuration },
                        None => Event::ProposalFailed,
                    };
                    self.post(partition, event);
                    self.settle();
                }
                // The asker may have gone away.
                ToCore::Report(answer) => drop(answer.send(self.report())),
                ToCore::Digest(partition, answer) => self.digest(partition, answer),
                ToCore::Shutdown => break,
            }
        }
        inbox
    }
}
