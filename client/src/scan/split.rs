//! One table, several scanners: to read partitions at once.

use std::collections::VecDeque;
use std::sync::Arc;

use super::section::Section;
use super::walk::Terms;
use super::{ScanOptions, Scanner};
use crate::error::Error;
use crate::keys::{HashKeyRange, SortKeyRange};
use crate::table::Table;

impl Table {
    /// Shares out the partitions of the table over at most `max_split` scanners (Pegasus: get_unordered_scanners); 0
    /// means one for each partition. Together they give what [`Table::full_scan`] gives. They do not depend on each
    /// other: move each to a task of its own.
    ///
    /// Errors: [`Error::InvalidArgument`] for options over a limit, and those of every read.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// table.set("user:1", "name", "Ada").await?;
    /// table.set("user:2", "name", "Bob").await?;
    /// let mut counts = Vec::new();
    /// for mut scanner in table.scanners(4, Default::default()).await? {
    ///     counts.push(tokio::spawn(async move { scanner.count().await }));
    /// }
    /// let mut rows = 0;
    /// for count in counts {
    ///     rows += count.await.expect("no panic")?;
    /// }
    /// assert_eq!(rows, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn scanners(&self, max_split: usize, options: ScanOptions) -> Result<Vec<Scanner>, Error> {
        self.range_scanners(max_split, &HashKeyRange::default(), &SortKeyRange::default(), options).await
    }

    /// Like [`Table::scanners`], only for hash keys in a range and, of each of them, sort keys in a range.
    ///
    /// Hash keys are compared as they are stored: **shorter ones come first**, those of one length by their bytes. So
    /// the range from `"b"` to `"aa"` is not empty, and the one from `"aa"` to `"b"` is. For ranges in the order of the
    /// bytes see [`Table::sorted_scan`]. The servers jump from one hash key to the next where sort keys are left out.
    ///
    /// Errors: [`Error::InvalidArgument`] for keys, patterns and options over a limit, and those of every read.
    ///
    /// ```no_run
    /// # async fn example(table: pegasus_client::Table) -> Result<(), pegasus_client::Error> {
    /// use pegasus_client::{HashKeyRange, ScanOptions, SortKeyRange};
    ///
    /// for day in ["2024-04-30", "2024-05-01", "2024-05-31", "2024-06-01"] {
    ///     table.multi_set(day, &[("cold", "7"), ("warm", "25")]).await?;
    /// }
    /// let may = HashKeyRange { start: "2024-05-01".into(), stop: "2024-06-01".into(), ..HashKeyRange::default() };
    /// let warm = SortKeyRange { start: "warm".into(), ..SortKeyRange::default() };
    /// let mut rows = 0;
    /// for mut scanner in table.range_scanners(2, &may, &warm, ScanOptions::default()).await? {
    ///     while let Some(row) = scanner.next().await? {
    ///         assert!(row.hash_key.starts_with(b"2024-05") && row.sort_key == "warm");
    ///         rows += 1;
    ///     }
    /// }
    /// assert_eq!(rows, 2);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn range_scanners(
        &self,
        max_split: usize,
        hash_keys: &HashKeyRange,
        sort_keys: &SortKeyRange,
        options: ScanOptions,
    ) -> Result<Vec<Scanner>, Error> {
        hash_keys.validate()?;
        sort_keys.validate()?;
        options.validate()?;
        let properties = self.properties().await?;
        let terms = Arc::new(Terms { options, sort_keys: sort_keys.clone() });
        let shares = shares(properties.partition_count, max_split).into_iter().map(|share| {
            let sections: VecDeque<Section> = share.map(|index| Section::hash_keys(index, hash_keys)).collect();
            self.scanner(terms.clone(), sections).of(properties.table)
        });
        Ok(shares.collect())
    }
}

/// Partitions in shares whose sizes differ by one at most.
fn shares(partition_count: u32, max_split: usize) -> Vec<std::ops::Range<u32>> {
    let most = if max_split == 0 { partition_count } else { u32::try_from(max_split).unwrap_or(u32::MAX) };
    let count = most.min(partition_count);
    let start = |share: u32| (u64::from(partition_count) * u64::from(share) / u64::from(count.max(1))) as u32;
    (0..count).map(|share| start(share)..start(share + 1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_is_in_one_share() {
        for (partitions, max_split, expected) in
            [(8, 0, 8), (8, 3, 3), (8, 8, 8), (8, 100, 8), (1, 5, 1), (4096, 7, 7), (8, usize::MAX, 8)]
        {
            let shares = shares(partitions, max_split);
            assert_eq!(shares.len(), expected, "{partitions} by {max_split}");
            let all: Vec<u32> = shares.iter().cloned().flatten().collect();
            assert_eq!(all, (0..partitions).collect::<Vec<_>>());
            let sizes = shares.iter().map(ExactSizeIterator::len);
            assert!(sizes.clone().max().zip(sizes.min()).is_some_and(|(most, least)| most - least <= 1));
        }
    }
}
