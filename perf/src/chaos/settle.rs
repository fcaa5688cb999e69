//! The end of a run: with all faults undone everything must work again, and all copies must hold the same rows.

use std::sync::Arc;
use std::time::{Duration, Instant};

use pegasus_client::{Client, ClientOptions, Error, PartitionDiagnosis, Table, TableReply};
use pegasus_history::Outcome;
use pegasus_wire::PartitionId;

use crate::chaos::cluster::ADMIN_PATIENCE;
use crate::chaos::http;
use crate::chaos::interrupt::Interrupt;
use crate::chaos::recorder::{Ask, Clock, Recorded, perform};
use crate::chaos::rows::partition_of;
use crate::failure::Failure;
use crate::workload::client_runtime;

/// What is demanded of a table.
#[derive(Clone, Debug)]
pub struct Settle {
    /// How to connect.
    pub client: ClientOptions,
    /// The table.
    pub table: String,
    /// Its rows.
    pub keys: u64,
    /// How long all of it together may take.
    pub within: Duration,
    /// How long one operation may take.
    pub timeout: Duration,
}

/// What became of it.
#[derive(Debug, Default)]
pub struct Settled {
    /// The last operations: a write to each partition, a read of each row.
    pub recorded: Recorded,
    /// How long it took until every partition served, was whole, and had equal copies.
    pub took: Duration,
    /// What was demanded and is not so.
    pub problems: Vec<String>,
}

impl Settle {
    /// Waits until every partition serves, has all its members, and these hold the same rows; reads every row.
    pub fn run(&self, clock: &Arc<Clock>, interrupt: &Interrupt) -> Result<Settled, Failure> {
        client_runtime(1)?.block_on(async {
            tokio::select! {
                settled = self.settle(clock) => Ok(settled),
                () = interrupted(interrupt) => Err(Failure::new("interrupted")),
            }
        })
    }

    /// The same within a runtime.
    pub async fn settle(&self, clock: &Arc<Clock>) -> Settled {
        self.settle_with(Some(clock)).await
    }

    /// Waits until every partition serves, has all its members, and these hold the same rows; touches no row.
    pub async fn settle_untouched(&self) -> Settled {
        self.settle_with(None).await
    }

    /// Without a clock no operation is performed, as there would be no moment to record of it.
    async fn settle_with(&self, clock: Option<&Arc<Clock>>) -> Settled {
        let start = Instant::now();
        let deadline = start + self.within;
        let mut settled = Settled::default();
        let mut options = self.client.clone();
        options.meta_timeout = self.within;
        let client = match Client::connect(options).await {
            Ok(client) => client,
            Err(error) => {
                settled.problems.push(format!("the meta service does not answer: {error}"));
                return settled;
            }
        };
        match self.serve(&client, clock, deadline).await {
            Ok((recorded, mut problems)) => {
                settled.recorded = recorded;
                if problems.is_empty() {
                    problems = self.wait_until_whole(&client, deadline).await;
                }
                settled.problems.append(&mut problems);
            }
            Err(error) => settled.problems.push(error.to_string()),
        }
        settled.took = start.elapsed();
        if !settled.problems.is_empty() {
            settled.problems.append(&mut self.diagnose(&client).await);
        }
        client.close().await;
        settled
    }

    /// What the meta service says of the partitions that are not whole.
    async fn diagnose(&self, client: &Client) -> Vec<String> {
        let explain = |diagnosis: PartitionDiagnosis| {
            let PartitionDiagnosis { partition, problems, waits_for, .. } = diagnosis;
            format!("partition {partition}: {}; it waits for: {waits_for}", problems.join(", "))
        };
        let question = client.diagnose_partitions(Some(&self.table));
        match tokio::time::timeout(DIAGNOSIS_PATIENCE, question).await {
            Ok(Ok(diagnosis)) => diagnosis.partitions.into_iter().map(explain).collect(),
            Ok(Err(error)) => vec![format!("there is no diagnosis: {error}")],
            Err(_) => vec!["there is no diagnosis: the meta service does not answer".to_owned()],
        }
    }

    /// Every partition answers reads and takes writes; every row is read once more.
    async fn serve(
        &self,
        client: &Client,
        clock: Option<&Arc<Clock>>,
        deadline: Instant,
    ) -> Result<(Recorded, Vec<String>), Error> {
        client.wait_until_serving(&self.table, left(deadline)).await?;
        let Some(clock) = clock else { return Ok(Default::default()) };
        let table = client.table(&self.table).await?;
        let count = table.properties().await?.partition_count;
        let table = table.with_timeout(self.timeout);
        let (mut recorded, mut problems) = (Recorded::default(), Vec::new());
        for partition in 0..count {
            // A key of its own, so that it is written whatever the rows of the load are.
            let key = (self.keys..).find(|key| partition_of(*key, count) == partition);
            let key = key.expect("keys spread over all partitions");
            if !until_ok(&table, clock, key, Ask::Set, deadline, &mut recorded).await {
                problems.push(format!("partition {partition} of {} takes no writes", self.table));
            }
        }
        for key in 0..self.keys {
            if !until_ok(&table, clock, key, Ask::Read, deadline, &mut recorded).await {
                problems.push(format!("key{key} of {} cannot be read", self.table));
            }
        }
        Ok((recorded, problems))
    }

    /// Waits until every partition has all its members and these are equal; what is not so at the deadline.
    async fn wait_until_whole(&self, client: &Client, deadline: Instant) -> Vec<String> {
        loop {
            let problems = match client.describe_table(&self.table).await {
                Ok(reply) => {
                    let compared = tokio::task::spawn_blocking(move || differences(&reply)).await;
                    compared.unwrap_or_else(|panic| vec![format!("the copies were not compared: {panic}")])
                }
                Err(error) => vec![format!("the meta service does not answer: {error}")],
            };
            if problems.is_empty() || Instant::now() >= deadline {
                return problems;
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }
}

/// Repeats an operation until it succeeds; false if it did not until the deadline.
async fn until_ok(
    table: &Table,
    clock: &Clock,
    key: u64,
    ask: Ask,
    deadline: Instant,
    recorded: &mut Recorded,
) -> bool {
    loop {
        let performed = perform(table, clock, FINAL_CLIENT, key, ask).await;
        let ok = matches!(performed.operation.outcome, Outcome::Ok(_));
        recorded.add(key, performed);
        if ok || Instant::now() >= deadline {
            return ok;
        }
    }
}

/// What keeps a table from being whole with equal copies.
fn differences(reply: &TableReply) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, configuration) in reply.partitions.iter().enumerate() {
        let partition = PartitionId { table: reply.table.table, index: index as u32 };
        let members: Vec<_> = configuration.members().collect();
        if members.len() < usize::from(reply.table.replica_count) {
            let (has, wants) = (members.len(), reply.table.replica_count);
            problems.push(format!("partition {partition} has {has} of {wants} members"));
        }
        let digests: Vec<String> = members
            .iter()
            .map(|member| match reply.nodes.iter().find(|info| info.node == *member) {
                Some(info) => http::get(info.admin_address, &format!("/digest/{partition}"), ADMIN_PATIENCE)
                    .unwrap_or_else(|failure| failure.to_string()),
                None => format!("nobody knows the address of {member}"),
            })
            .collect();
        if !are_equal_digests(&digests) {
            problems.push(format!("the copies of partition {partition} differ: {}", digests.join(" ")));
        }
    }
    problems
}

fn are_equal_digests(digests: &[String]) -> bool {
    let Some(first) = digests.first() else { return false };
    let is_digest = serde_json::from_str::<serde_json::Value>(first).is_ok_and(|value| value["decree"].is_u64());
    is_digest && digests.iter().all(|digest| digest == first)
}

/// Ends once there was an interrupt.
pub async fn interrupted(interrupt: &Interrupt) {
    while !interrupt.happened() {
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

/// The number of the client that does the last operations.
pub const FINAL_CLIENT: u32 = 0;
const DIAGNOSIS_PATIENCE: Duration = Duration::from_secs(5);
/// How often what cannot be waited for is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_equal_only_if_they_are_digests() {
        let digests = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<String>>();
        let (one, other) = (r#"{"decree":5,"rows":2,"digest":9}"#, r#"{"decree":6,"rows":2,"digest":9}"#);
        assert!(are_equal_digests(&digests(&[one, one, one])));
        assert!(!are_equal_digests(&digests(&[one, one, other])));
        assert!(!are_equal_digests(&digests(&["409", "409"])));
        assert!(!are_equal_digests(&[]));
    }
}
