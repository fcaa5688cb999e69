//! Temporary.
#![allow(clippy::unwrap_used)]
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pegasus_rpc::*;
use pegasus_wire::messages::control::*;
use pegasus_wire::messages::data::*;
use pegasus_wire::*;
use tokio::sync::watch;

#[derive(Default)]
struct MetaState {
    nodes: BTreeMap<NodeId, NodeInfo>,
    config: Configuration,
    additions: Vec<Addition>,
    removals: Vec<Removal>,
    reports: BTreeMap<NodeId, Vec<ReplicaReport>>,
    log: Vec<String>,
}
struct Meta {
    state: Mutex<MetaState>,
    revision: watch::Sender<u64>,
}
const ID: PartitionId = PartitionId { table: TableId(1), index: 0 };
fn table() -> TableProperties {
    TableProperties {
        table: TableId(1),
        name: "t".into(),
        partition_count: 1,
        replica_count: 3,
        durability: Durability::Synced,
    }
}
impl Meta {
    fn bump(&self) {
        self.revision.send_modify(|r| *r += 1);
    }
    fn assignments(&self, node: NodeId) -> Assignments {
        let s = self.state.lock().unwrap();
        let mine = s.config.contains(node);
        Assignments {
            revision: *self.revision.borrow(),
            tables: if mine { vec![table()] } else { vec![] },
            partitions: if mine {
                vec![PartitionConfiguration { partition: ID, configuration: s.config.clone() }]
            } else {
                vec![]
            },
            nodes: s.nodes.values().cloned().collect(),
            additions: if s.config.primary == Some(node) { s.additions.clone() } else { vec![] },
            removals: if mine { vec![] } else { s.removals.clone() },
        }
    }
    async fn handle(self: Arc<Self>, frame: Frame, outbox: Outbox) {
        let header = FrameHeader::answer(frame.header.kind, frame.header.request_id, Status::Ok);
        match frame.header.kind {
            MessageKind::REGISTER_NODE => {
                let r: RegisterNode = frame.decode().unwrap();
                {
                    let mut s = self.state.lock().unwrap();
                    s.nodes.insert(
                        r.node,
                        NodeInfo {
                            node: r.node,
                            address: r.address,
                            admin_address: r.admin_address,
                            cores: r.cores,
                            alive: true,
                        },
                    );
                    s.log.push(format!("register {} {:?}", r.address, r.replicas));
                    s.reports.insert(r.node, r.replicas);
                }
                self.bump();
                let _ = outbox.push(|o| FrameBuilder::append(o, header, &Registered { cluster: ClusterId(7) }, &[]));
            }
            MessageKind::WATCH_ASSIGNMENTS => {
                let w: WatchAssignments = frame.decode().unwrap();
                let mut rev = self.revision.subscribe();
                let _ =
                    tokio::time::timeout(Duration::from_millis(w.wait_ms.into()), rev.wait_for(|r| *r != w.revision))
                        .await;
                let _ = outbox.push(|o| FrameBuilder::append(o, header, &self.assignments(w.node), &[]));
            }
            MessageKind::PROPOSE_CONFIGURATION => {
                let p: ProposeConfiguration = frame.decode().unwrap();
                let (ok, config) = {
                    let mut s = self.state.lock().unwrap();
                    let ok = p.expected_ballot == s.config.ballot;
                    let text = format!("propose by {} {:?} ok={ok} now {:?}", p.proposer, p.configuration, s.config);
                    s.log.push(text);
                    if ok {
                        s.config = p.configuration.clone();
                        let config = s.config.clone();
                        s.additions.retain(|a| !config.contains(a.node));
                        let ballot = s.config.ballot;
                        s.additions.iter_mut().for_each(|a| a.ballot = ballot);
                    }
                    (ok, s.config.clone())
                };
                if ok {
                    self.bump();
                }
                let mut header = header;
                header.status = if ok || config == p.configuration { Status::Ok } else { Status::BallotConflict };
                let _ = outbox.push(|o| FrameBuilder::append(o, header, &ProposalReply { configuration: config }, &[]));
            }
            kind => panic!("{kind}"),
        }
    }
}
struct Caller(Channel);
impl Caller {
    async fn to(endpoint: &Endpoint, address: SocketAddr) -> Caller {
        loop {
            if let Ok(c) = endpoint.connect(address, Role::Replica, Alpn::Data).await {
                return Caller(Channel::open(&Runtime::tokio(), &c).await.unwrap());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    async fn set(&self, key: &[u8], value: &[u8]) -> Frame {
        let operations = [RowOperation::Put { sort_key: b"s", value, expiry_seconds: 0 }];
        let write = Write { partition: ID, hash_key: key, operations: &operations };
        self.0
            .call(MessageKind::WRITE, Instant::now() + Duration::from_secs(10), |o, h| {
                FrameBuilder::append(o, h, &write, &[])
            })
            .await
            .unwrap()
    }
    async fn set_ok(&self, key: &[u8], value: &[u8]) {
        let begun = Instant::now();
        while self.set(key, value).await.header.status != Status::Ok {
            assert!(begun.elapsed() < Duration::from_secs(20));
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if begun.elapsed() > Duration::from_millis(100) {
            eprintln!("== a write took {:?}", begun.elapsed());
        }
    }
    async fn get(&self, key: &[u8]) -> Frame {
        let get = Get { partition: ID, hash_key: key, sort_key: b"s", no_value: false };
        self.0
            .call(MessageKind::GET, Instant::now() + Duration::from_secs(10), |o, h| {
                FrameBuilder::append(o, h, &get, &[])
            })
            .await
            .unwrap()
    }
}
fn start(dir: &std::path::Path, n: u16, base: u16) -> std::thread::JoinHandle<()> {
    let text = format!(
        "name = \"n{n}\"\nlisten = \"127.0.0.1:{}\"\nadmin_listen = \"127.0.0.1:{}\"\ncores = 1\ndata_directory = {:?}\nmeta_servers = [\"127.0.0.1:{base}\"]\n[tls]\ncertificate = {:?}\nkey = {:?}\nca = {:?}\n[log]\nsegment_bytes = 4194304\nbudget_bytes = 20971520\n[storage]\n",
        base + 10 + n,
        base + 20 + n,
        dir.join(format!("data{n}")),
        dir.join("tls/replica.crt"),
        dir.join("tls/replica.key"),
        dir.join("tls/ca.crt")
    );
    let path = dir.join(format!("n{n}.toml"));
    std::fs::write(&path, text).unwrap();
    std::thread::spawn(move || crate::node::run(crate::Config::load(&path).unwrap()).unwrap())
}
async fn http(port: u16, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut s = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    s.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut t = String::new();
    s.read_to_string(&mut t).await.unwrap();
    t
}
async fn metrics(port: u16, names: &[&str]) {
    let text = http(port, "/metrics").await;
    for line in text.lines().filter(|l| !l.starts_with('#') && names.iter().any(|n| l.contains(n))) {
        eprintln!("   {port}: {line}");
    }
}
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trial() {
    let filter = std::env::var("TRIAL_LOG").unwrap_or("info".into());
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .init();
    let base = 24100u16;
    let dir = tempfile::tempdir().unwrap();
    let tls = dir.path().join("tls");
    let authority = Authority::generate().unwrap();
    authority.save(&tls).unwrap();
    for role in Role::ALL {
        authority.write_identity(&tls, role).unwrap();
    }
    let identity = |role| Identity::load_directory(&tls, role).unwrap();
    let meta = Arc::new(Meta { state: Mutex::default(), revision: watch::Sender::new(1) });
    let options = EndpointOptions { cluster: Some(ClusterId(7)), accepts: &[Alpn::Meta] };
    let endpoint =
        Endpoint::bind(Runtime::tokio(), SocketAddr::from(([127, 0, 0, 1], base)), identity(Role::Meta), options)
            .unwrap();
    {
        let meta = meta.clone();
        tokio::spawn(async move {
            while let Some(connection) = endpoint.accept().await {
                let meta = meta.clone();
                tokio::spawn(async move {
                    while let Some((writer, mut reader)) = connection.accept().await {
                        let outbox = Outbox::start(&Runtime::tokio(), writer);
                        let meta = meta.clone();
                        tokio::spawn(async move {
                            while let Ok(Some(frame)) = reader.next().await {
                                tokio::spawn(meta.clone().handle(frame, outbox.clone()));
                            }
                        });
                    }
                });
            }
        });
    }
    let path = dir.path().to_owned();
    let _a = start(&path, 0, base);
    let _b = start(&path, 1, base);
    let wait = |what: &'static str, holds: Box<dyn Fn(&MetaState) -> bool + Send>| {
        let meta = meta.clone();
        async move {
            let begun = Instant::now();
            while !holds(&meta.state.lock().unwrap()) {
                if begun.elapsed() > Duration::from_secs(30) {
                    for line in &meta.state.lock().unwrap().log {
                        eprintln!("META {line}");
                    }
                    panic!("waited for {what}");
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            eprintln!("== {what} after {:?}", begun.elapsed());
        }
    };
    wait("two nodes", Box::new(|s| s.nodes.len() == 2)).await;
    let id_of =
        |n: u16| meta.state.lock().unwrap().nodes.values().find(|i| i.address.port() == base + 10 + n).unwrap().node;
    let (a, b) = (id_of(0), id_of(1));
    meta.state.lock().unwrap().config = Configuration { ballot: Ballot(1), primary: Some(a), secondaries: vec![b] };
    meta.bump();
    let client = Endpoint::client(Runtime::tokio(), identity(Role::Client)).unwrap();
    let to_a = Caller::to(&client, SocketAddr::from(([127, 0, 0, 1], base + 10))).await;
    let begun = Instant::now();
    while to_a.set(b"first", b"v").await.header.status != Status::Ok {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", http(base + 20, "/status").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!("== serves after {:?}", begun.elapsed());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        let got = to_a.get(b"first").await;
        assert_eq!(got.header.status, Status::Ok, "{:?}", got.error());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    eprintln!("== leases renewed");
    metrics(base + 20, &["beacon", "lease"]).await;
    metrics(base + 21, &["beacon", "lease"]).await;
    // a learner from the log
    let value = vec![7u8; 10_000];
    for i in 0..600u32 {
        to_a.set_ok(&i.to_be_bytes(), &value).await;
    }
    let _c = start(&path, 2, base);
    wait("three nodes", Box::new(|s| s.nodes.len() == 3)).await;
    let c = id_of(2);
    {
        let mut s = meta.state.lock().unwrap();
        let ballot = s.config.ballot;
        s.additions.push(Addition { partition: ID, ballot, node: c });
    }
    meta.bump();
    wait("learned from log", Box::new(move |s| s.config.contains(c))).await;
    metrics(base + 20, &["learn", "checkpoint", "log_mut", "removals"]).await;
    // Remove it: configuration without c, by force.
    {
        let mut s = meta.state.lock().unwrap();
        s.config.ballot = s.config.ballot.next();
        s.config.secondaries.retain(|n| *n != c);
    }
    meta.bump();
    let begun = Instant::now();
    while to_a.set(b"again", b"v").await.header.status != Status::Ok {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", http(base + 20, "/status").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    eprintln!("== serves again after {:?}", begun.elapsed());
    wait("reported", Box::new(move |s| !s.reports[&c].is_empty())).await;
    {
        let mut s = meta.state.lock().unwrap();
        let ballot = s.config.ballot;
        s.removals.push(Removal { partition: ID, ballot });
    }
    meta.bump();
    wait("copy removed", Box::new(move |s| s.reports[&c].is_empty())).await;
    for entry in std::fs::read_dir(path.join("data2/replicas")).unwrap() {
        eprintln!("   {:?}", entry.unwrap().file_name());
    }
    meta.state.lock().unwrap().removals.clear();
    // Beyond the log: a checkpoint.
    for i in 0..6000u32 {
        to_a.set_ok(&(i + 10_000).to_be_bytes(), &value).await;
    }
    {
        let mut s = meta.state.lock().unwrap();
        let ballot = s.config.ballot;
        s.additions.push(Addition { partition: ID, ballot, node: c });
    }
    meta.bump();
    wait("learned from checkpoint", Box::new(move |s| s.config.contains(c))).await;
    to_a.set_ok(b"after", b"v").await;
    metrics(base + 20, &["learn", "checkpoint", "log_mut", "removals"]).await;
    metrics(base + 22, &["learn", "checkpoint", "log_mut", "removals"]).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    for n in 0..3 {
        eprintln!("{}", http(base + 20 + n, "/digest/1.0").await.lines().last().unwrap());
    }
    eprintln!("{}", http(base + 20, "/status").await);
    for line in &meta.state.lock().unwrap().log {
        eprintln!("META {line}");
    }
    // Stop everything in order.
    let begun = Instant::now();
    unsafe { libc::kill(std::process::id() as i32, libc::SIGTERM) };
    for t in [_a, _b, _c] {
        t.join().unwrap();
    }
    eprintln!("== stopped after {:?}", begun.elapsed());
    for line in meta.state.lock().unwrap().log.iter().rev().take(6) {
        eprintln!("META {line}");
    }
    for n in 0..3 {
        for entry in std::fs::read_dir(path.join(format!("data{n}/replicas/1.0"))).unwrap() {
            eprintln!("   {n} {:?}", entry.unwrap().file_name());
        }
    }
}
