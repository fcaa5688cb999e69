//! A table of a Pegasus cluster as the source of a copy, read through Pegasus's own protocol.
//!
//! Pegasus allows what this cluster does not: rows without a hash key, longer keys and values. Such rows are passed on
//! as they are; whoever writes them decides.

use std::time::Duration;

use pegasus_client::{KeyFilter, ScanRow};
use pegasus_driver::{Cluster, Error, Filter, FilterType, Options, ScanOptions, Scanner, Table, Target};
use pegasus_wire::key::{check_hash_key, check_sort_key};
use pegasus_wire::limits::VALUE_BYTES_MAX;

use crate::output::Failure;
use crate::transfer::retry::Trouble;
use crate::transfer::walk::Batches;

/// How long a request to the source may take unless it is said: as long as Pegasus's servers work on a scan that finds
/// nothing, and some more.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(40);

/// The table that is read.
pub struct PegasusTable {
    table: Table,
    target: Target,
}

/// A walk over the rows of one of its partitions, with the second at which each expires.
pub struct PegasusScan {
    scanner: Scanner,
    hash_keys: KeyFilter,
    sort_keys: KeyFilter,
}

impl Trouble for Error {
    fn kind(&self) -> &'static str {
        Error::kind(self)
    }

    fn may_pass(&self) -> bool {
        matches!(self, Error::Timeout(_))
    }
}

impl PegasusTable {
    /// Finds the table. Errors name its address.
    pub async fn open(target: &Target, timeout: Option<Duration>) -> Result<PegasusTable, Failure> {
        let options = Options { timeout: timeout.unwrap_or(TIMEOUT_DEFAULT), ..Options::default() };
        let open = async {
            let cluster = Cluster::connect(&target.meta_servers, options).await?;
            cluster.table(&target.table).await
        };
        match open.await {
            Ok(table) => Ok(PegasusTable { table, target: target.clone() }),
            Err(error) => Err(Failure::new(error.kind(), format!("{target}: {error}"))),
        }
    }

    /// Which table this is, for the progress file: another table of the same name has another number.
    pub fn identity(&self) -> String {
        format!("{} (table {}, {} partitions)", self.target, self.table.id(), self.table.partition_count())
    }

    /// Number of its partitions.
    pub fn partition_count(&self) -> u32 {
        self.table.partition_count()
    }

    /// Walks over the rows of a partition that these filters let pass, at most so many with each request.
    pub fn scan(
        &self,
        index: u32,
        (hash_keys, sort_keys): (KeyFilter, KeyFilter),
        rows_per_read: u32,
    ) -> Result<PegasusScan, Failure> {
        let options = ScanOptions {
            rows_per_request: rows_per_read,
            no_value: false,
            hash_key_filter: servers_part(&hash_keys),
            sort_key_filter: servers_part(&sort_keys),
            expiry: true,
        };
        let scanner = self.table.partition_scan(index, options);
        let scanner = scanner.map_err(|error| Failure::new(error.kind(), format!("{}: {error}", self.target)))?;
        Ok(PegasusScan { scanner, hash_keys, sort_keys })
    }
}

/// What of a filter Pegasus's servers can do: they do not know exact ones.
fn servers_part(filter: &KeyFilter) -> Filter {
    let (kind, pattern) = match filter {
        KeyFilter::None => (FilterType::NONE, &[][..]),
        KeyFilter::Anywhere(pattern) => (FilterType::ANYWHERE, &pattern[..]),
        KeyFilter::Prefix(pattern) | KeyFilter::Exact(pattern) => (FilterType::PREFIX, &pattern[..]),
        KeyFilter::Postfix(pattern) => (FilterType::POSTFIX, &pattern[..]),
    };
    Filter { kind, pattern: pattern.to_vec() }
}

impl Batches for PegasusScan {
    type Error = Error;

    async fn next_batch(&mut self) -> Result<Option<Vec<ScanRow>>, Error> {
        while let Some(batch) = self.scanner.next_batch().await? {
            let rows = batch.into_iter().map(|row| ScanRow {
                hash_key: row.hash_key,
                sort_key: row.sort_key,
                value: row.value,
                expiry_seconds: row.expiry_seconds,
            });
            // The rest of what exact filters mean.
            let wanted = |row: &ScanRow| self.hash_keys.matches(&row.hash_key) && self.sort_keys.matches(&row.sort_key);
            let rows: Vec<ScanRow> = rows.filter(wanted).collect();
            if !rows.is_empty() {
                return Ok(Some(rows));
            }
        }
        Ok(None)
    }
}

/// Whether a row keeps the limits of this cluster.
pub fn fits(row: &ScanRow) -> bool {
    check_hash_key(&row.hash_key).is_ok() && check_sort_key(&row.sort_key).is_ok() && row.value.len() <= VALUE_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use futures_util::TryStreamExt;
    use pegasus_driver::now_seconds;
    use pegasus_stand_in::{Fault, Rpc, StandIn};

    use super::*;
    use crate::transfer::progress::Progress;
    use crate::transfer::walk::Walk;

    async fn open(server: &StandIn) -> PegasusTable {
        let target = Target::parse(&server.target("temp")).expect("an address");
        PegasusTable::open(&target, None).await.expect("a table")
    }

    async fn start() -> (StandIn, PegasusTable) {
        let server = StandIn::start(2).await;
        server.create("temp", 2);
        for row in 0..50u32 {
            let expiry = if row % 2 == 0 { now_seconds() + 10_000 + row } else { 0 };
            server.put("temp", format!("h{}", row % 5).as_bytes(), &row.to_be_bytes(), b"value", expiry);
        }
        let table = open(&server).await;
        (server, table)
    }

    async fn read(table: &PegasusTable, filters: (KeyFilter, KeyFilter), rows_max: usize) -> Vec<Vec<ScanRow>> {
        let (walk, _watch) = Walk::start(Duration::from_secs(60), Progress::start("read", None, false));
        let mut groups = Vec::new();
        for index in 0..table.partition_count() {
            let scan = table.scan(index, filters.clone(), 7).expect("a partition");
            let of_one: Vec<_> = walk.groups(scan, |_: &ScanRow| true, rows_max).try_collect().await.expect("rows");
            groups.extend(of_one);
        }
        groups
    }

    fn all() -> (KeyFilter, KeyFilter) {
        (KeyFilter::None, KeyFilter::None)
    }

    #[tokio::test]
    async fn rows_come_in_groups_with_their_second_of_expiry() {
        let (server, table) = start().await;
        let groups = read(&table, all(), 4).await;
        assert!(groups.iter().all(|group| group.len() <= 4));
        assert!(groups.iter().all(|group| group.iter().all(|row| row.hash_key == group[0].hash_key)));
        let row = |row: ScanRow| (row.hash_key.to_vec(), row.sort_key.to_vec(), row.value.to_vec(), row.expiry_seconds);
        let rows: Vec<_> = groups.into_iter().flatten().map(row).collect();
        assert_eq!(rows, server.rows("temp"));
    }

    #[tokio::test]
    async fn what_fails_for_a_while_is_read_again() {
        let (server, table) = start().await;
        server.fault(Rpc::Scan, Fault::CloseAfter);
        server.fault(Rpc::Scan, Fault::Error("ERR_BUSY"));
        server.fault(Rpc::GetScanner, Fault::CloseBefore);
        assert_eq!(read(&table, all(), 100).await.into_iter().flatten().count(), 50);
    }

    #[tokio::test]
    async fn exact_filters_are_exact() {
        let (server, table) = start().await;
        server.put("temp", b"h1x", b"s", b"v", 0);
        let filters = (KeyFilter::Exact(b"h1".to_vec()), KeyFilter::None);
        let rows: Vec<_> = read(&table, filters, 100).await.into_iter().flatten().collect();
        assert_eq!(rows.len(), 10);
        assert!(rows.iter().all(|row| row.hash_key == "h1"));
        let filters = (KeyFilter::Postfix(b"x".to_vec()), KeyFilter::Anywhere(b"s".to_vec()));
        assert_eq!(read(&table, filters, 100).await.into_iter().flatten().count(), 1);
    }

    #[tokio::test]
    async fn another_table_of_the_same_name_is_another_source() {
        let (server, table) = start().await;
        let before = table.identity();
        assert_eq!(before, open(&server).await.identity());
        let mut scan = table.scan(0, all(), 7).expect("a partition");
        server.drop_table("temp");
        server.create("temp", 2);
        assert_ne!(before, open(&server).await.identity());
        let error = loop {
            match scan.next_batch().await {
                Ok(rows) => assert!(rows.is_none(), "rows of another table"),
                Err(error) => break error,
            }
        };
        assert!(!error.may_pass() && error.to_string().contains("another one"), "{error}");
    }

    #[tokio::test]
    async fn a_source_that_is_not_there_is_named() {
        let (server, _) = start().await;
        let missing = Target::parse(&server.target("none")).expect("an address");
        let failure = PegasusTable::open(&missing, None).await.map(|_| ()).unwrap_err();
        assert_eq!(failure.kind, "no_such_table");
        assert!(failure.message.contains(&missing.to_string()), "{}", failure.message);
        let nobody = Target::parse("pegasus://127.0.0.1:1/temp").expect("an address");
        let failure = PegasusTable::open(&nobody, Some(Duration::from_millis(200))).await.map(|_| ()).unwrap_err();
        assert!(failure.message.contains("no meta server can be reached"), "{}", failure.message);
    }

    #[test]
    fn what_does_not_fit_is_told_apart() {
        let row = |hash_key: usize, sort_key: usize, value: usize| ScanRow {
            hash_key: vec![b'h'; hash_key].into(),
            sort_key: vec![b's'; sort_key].into(),
            value: vec![b'v'; value].into(),
            expiry_seconds: 0,
        };
        assert!(fits(&row(1, 0, 0)) && fits(&row(1024, 1024, VALUE_BYTES_MAX)));
        assert!(!fits(&row(0, 1, 1)) && !fits(&row(1025, 1, 1)));
        assert!(!fits(&row(1, 1025, 1)) && !fits(&row(1, 1, VALUE_BYTES_MAX + 1)));
    }
}
