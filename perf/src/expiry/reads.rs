//! Every kind of read, each asked of all pairs: which brief rows are there?

use std::collections::BTreeSet;

use futures_util::{StreamExt, stream};
use pegasus_client::{
    Advice, Check, Error, HashKeyRange, RangeOptions, RowCheck, ScanOptions, SortKeyRange, Table, WriteBatch,
};

use crate::expiry::rows::{BRIEF, LASTING, Pair};

/// A kind of read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// get.
    Get,
    /// exist.
    Exist,
    /// ttl.
    Ttl,
    /// multi_get by keys.
    MultiGet,
    /// multi_get by keys without values.
    MultiExist,
    /// multi_get by range.
    Range,
    /// The same, from the end.
    RangeFromTheEnd,
    /// multi_get_sort_keys.
    SortKeys,
    /// sortkey_count.
    Count,
    /// A scan of the hash key.
    HashScan,
    /// What a conditional write reads.
    Check,
    /// batch_get of all.
    BatchGet,
    /// A scan of the table.
    FullScan,
    /// The same against the order.
    FullScanBack,
    /// A scan of the table in the order of the hash keys.
    SortedScan,
    /// A count of the table.
    CountAll,
}

/// What a read of all pairs found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Places of the pairs whose brief row was there.
    pub there: BTreeSet<usize>,
    /// How many there were, where the kind tells no more than that.
    pub count: Option<usize>,
    /// Reads that were not answered.
    pub unanswered: u64,
    /// What nothing excuses.
    pub problems: Vec<String>,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 16] = [
        Kind::Get,
        Kind::Exist,
        Kind::Ttl,
        Kind::MultiGet,
        Kind::MultiExist,
        Kind::Range,
        Kind::RangeFromTheEnd,
        Kind::SortKeys,
        Kind::Count,
        Kind::HashScan,
        Kind::Check,
        Kind::BatchGet,
        Kind::FullScan,
        Kind::FullScanBack,
        Kind::SortedScan,
        Kind::CountAll,
    ];

    /// Reads all pairs.
    pub async fn read(self, table: &Table, pairs: &[Pair]) -> Found {
        match self {
            Kind::BatchGet => batch_get(table, pairs).await,
            Kind::FullScan | Kind::FullScanBack | Kind::SortedScan => {
                let keys = self.scan(table).await.map(|keys| {
                    let is_there = |(_, pair): &(usize, &Pair)| keys.contains(pair.hash_key.as_bytes());
                    pairs.iter().enumerate().filter(is_there).map(|(place, _)| place).collect()
                });
                Found::of(keys.map(|there| Found { there, ..Found::default() }))
            }
            Kind::CountAll => {
                let count = table.count_all().await;
                // Each pair has a lasting row.
                let brief = count.map(|count| Some((count as usize).saturating_sub(pairs.len())));
                Found::of(brief.map(|count| Found { count, ..Found::default() }))
            }
            _ => self.read_each(table, pairs).await,
        }
    }

    async fn read_each(self, table: &Table, pairs: &[Pair]) -> Found {
        let mut found = Found::default();
        let reads: Vec<_> = pairs.iter().map(|pair| self.is_there(table, &pair.hash_key)).collect();
        let mut reads = stream::iter(reads).buffered(READS_AT_ONCE).enumerate();
        while let Some((place, outcome)) = reads.next().await {
            found.note(place, outcome);
        }
        found
    }

    /// Whether the brief row of a hash key is there. That the lasting one is not would be an error of its own.
    async fn is_there(self, table: &Table, key: &str) -> Result<bool, Error> {
        let sort_keys: Vec<Vec<u8>> = match self {
            Kind::Get => return Ok(table.get(key, BRIEF).await?.is_some()),
            Kind::Exist => return table.exist(key, BRIEF).await,
            Kind::Ttl => return Ok(table.ttl(key, BRIEF).await?.is_some()),
            Kind::Count => return Ok(table.count(key).await? > 1),
            Kind::Check => {
                let check =
                    RowCheck { sort_key: BRIEF.as_bytes(), check: Check::Exist, operand: b"", return_value: true };
                let mut nothing = WriteBatch::new();
                nothing.delete("no such row");
                return Ok(table.check_and_mutate(key, &check, &nothing).await?.exists);
            }
            Kind::MultiGet => keys(table.multi_get(key, &[BRIEF, LASTING]).await?.into_iter().map(|row| row.sort_key)),
            Kind::MultiExist => {
                keys(table.multi_exist(key, &[LASTING, BRIEF]).await?.into_iter().map(|row| row.sort_key))
            }
            Kind::Range | Kind::RangeFromTheEnd => {
                let options = RangeOptions { reverse: self == Kind::RangeFromTheEnd, ..RangeOptions::default() };
                keys(table.multi_get_range(key, &options).await?.rows.into_iter().map(|row| row.sort_key))
            }
            Kind::SortKeys => keys(table.multi_get_sort_keys(key, &SortKeyRange::default()).await?.into_iter()),
            _ => {
                let mut scanner = table.hash_scan(key, &SortKeyRange::default(), ScanOptions::default())?;
                let mut all = Vec::new();
                while let Some(row) = scanner.next().await? {
                    all.push(row.sort_key.to_vec());
                }
                all
            }
        };
        if !sort_keys.iter().any(|sort_key| sort_key == LASTING.as_bytes()) {
            return Err(Error::Protocol(format!("{self:?} of {key} does not find the row that stays")));
        }
        Ok(sort_keys.iter().any(|sort_key| sort_key == BRIEF.as_bytes()))
    }

    /// The hash keys whose brief row comes in a scan of the table.
    async fn scan(self, table: &Table) -> Result<BTreeSet<Vec<u8>>, Error> {
        let options = ScanOptions { no_value: true, reverse: self == Kind::FullScanBack, ..ScanOptions::default() };
        let mut there = BTreeSet::new();
        if self == Kind::SortedScan {
            let mut scanner = table.sorted_scan(&HashKeyRange::default(), &SortKeyRange::default(), options).await?;
            while let Some(row) = scanner.next().await? {
                if row.sort_key == BRIEF {
                    there.insert(row.hash_key.to_vec());
                }
            }
            return Ok(there);
        }
        let mut scanner = table.full_scan(options).await?;
        while let Some(row) = scanner.next().await? {
            if row.sort_key == BRIEF {
                there.insert(row.hash_key.to_vec());
            }
        }
        Ok(there)
    }
}

impl Found {
    /// How many brief rows were there.
    pub fn count(&self) -> usize {
        self.count.unwrap_or(self.there.len())
    }

    fn of(result: Result<Found, Error>) -> Found {
        result.unwrap_or_else(|error| {
            let mut found = Found::default();
            found.fail(&error);
            found
        })
    }

    fn note(&mut self, place: usize, outcome: Result<bool, Error>) {
        match outcome {
            Ok(true) => {
                self.there.insert(place);
            }
            Ok(false) => {}
            Err(error) => self.fail(&error),
        }
    }

    fn fail(&mut self, error: &Error) {
        match error.advice() {
            Advice::Retry | Advice::Unknown => self.unanswered += 1,
            _ => self.problems.push(error.to_string()),
        }
    }
}

async fn batch_get(table: &Table, pairs: &[Pair]) -> Found {
    let rows: Vec<(&str, &str)> = pairs.iter().map(|pair| (pair.hash_key.as_str(), BRIEF)).collect();
    let mut found = Found::default();
    for (place, outcome) in table.batch_get(&rows).await.into_iter().enumerate() {
        found.note(place, outcome.map(|value| value.is_some()));
    }
    found
}

fn keys(sort_keys: impl Iterator<Item = bytes::Bytes>) -> Vec<Vec<u8>> {
    sort_keys.map(|sort_key| sort_key.to_vec()).collect()
}

const READS_AT_ONCE: usize = 64;
