//! The crowd: connections that say nothing, and connections that ask and do not listen.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};
use pegasus_client::Client;
use pegasus_gateway::Rpc;
use pegasus_gateway::frame::{RequestHeader, append_request};
use pegasus_gateway::messages::read::GetScannerRequest;
use pegasus_gateway::thrift::Blob;
use pegasus_wire::PartitionId;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::failure::Failure;

/// A partition and the core of its primary.
pub(super) type Place = (PartitionId, SocketAddr);

/// Where the partitions of a table are.
pub(super) async fn addresses(client: &Client, table: &str) -> Result<Vec<Place>, Failure> {
    let reply = client.describe_table(table).await.map_err(Failure::at(format!("ask where table {table} is")))?;
    let place = |(index, configuration): (usize, &pegasus_wire::Configuration)| {
        let partition = PartitionId { table: reply.table.table, index: index as u32 };
        let primary = configuration.primary?;
        let node = reply.nodes.iter().find(|node| node.node == primary)?;
        Some((partition, node.endpoint(partition)))
    };
    let places: Option<Vec<Place>> = reply.partitions.iter().enumerate().map(place).collect();
    places.ok_or_else(|| Failure::new(format!("a partition of table {table} has no primary")))
}

/// Lets this process have so many connections, if the system allows it.
pub(super) fn raise_limit_of_files(connections: u32) -> Result<(), Failure> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let needed = u64::from(connections) + FILES_BESIDE;
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    if maximum.is_some_and(|maximum| maximum < needed) {
        return Err(Failure::new(format!(
            "{connections} connections need {needed} open files, the limit is {} (ulimit -Hn): ask for fewer \
             with --idle",
            maximum.unwrap_or_default()
        )));
    }
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).map_err(Failure::at("raise the limit of files"))
}

/// Everybody who has come.
pub(super) struct Others {
    idle: Vec<TcpStream>,
    deaf: JoinSet<()>,
}

impl Others {
    /// Connects the crowd, spread over the places. When it returns all of it is there.
    pub(super) async fn come(places: &[Place], idle: u32, deaf: u32) -> Result<Others, Failure> {
        let connect = |number: u32| {
            let (_, address) = places[number as usize % places.len()];
            async move { TcpStream::connect(address).await.map_err(Failure::at(format!("connect to {address}"))) }
        };
        let idle = stream::iter(0..idle).map(connect).buffer_unordered(CONNECTING_MAX).try_collect().await?;
        let mut tasks = JoinSet::new();
        for number in 0..deaf {
            let (partition, _) = places[number as usize % places.len()];
            let stream = connect(number).await?;
            tasks.spawn(ask_and_do_not_listen(stream, partition));
        }
        Ok(Others { idle, deaf: tasks })
    }

    /// Sends the crowd away, and waits until the nodes answer a client that asks anew.
    pub(super) async fn go(mut self, client: &Client, table: &str) -> Result<(), Failure> {
        self.deaf.shutdown().await;
        self.idle.clear();
        let begun = Instant::now();
        let opened = client.table(table).await.map_err(Failure::at(format!("open table {table}")))?;
        while let Err(error) = opened.exist("after the crowd", "").await {
            if begun.elapsed() > PATIENCE {
                return Err(Failure::new(format!("the nodes do not answer after the crowd has gone: {error}")));
            }
        }
        Ok(())
    }
}

/// Asks for all rows of a partition, batch by batch from the begin, for as long as the node takes requests.
async fn ask_and_do_not_listen(mut stream: TcpStream, partition: PartitionId) {
    let header = RequestHeader {
        app_id: partition.table.0.cast_signed(),
        partition_index: partition.index.cast_signed(),
        ..RequestHeader::default()
    };
    let everything = GetScannerRequest {
        start_key: Blob(&[0, 0]),
        stop_key: Blob(&[0xff, 0xff]),
        start_inclusive: true,
        batch_size: 1000,
        ..GetScannerRequest::default()
    };
    let mut request = Vec::new();
    append_request(&mut request, &header, Rpc::GetScanner, 1, &everything);
    let request = Arc::new(request);
    // The node stops reading, so this waits sooner or later; an end of the connection ends it, too.
    while stream.write_all(&request).await.is_ok() {}
}

/// Connections made at a time.
const CONNECTING_MAX: usize = 64;
/// Files beside the crowd's.
const FILES_BESIDE: u64 = 256;
/// How long nodes may take to get over the crowd.
const PATIENCE: Duration = Duration::from_secs(30);
