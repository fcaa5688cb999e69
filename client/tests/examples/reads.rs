//! Examples of reads of many rows, and of scans.

use pegasus_client::{Error, Table};

use crate::run;

run! {
    multi_get(table);
    multi_exist(table);
    multi_get_range(table);
    multi_get_sort_keys(table);
    hash_scan(table);
    full_scan(table);
    partition_scan(table);
    count(table);
    count_all(table);
    scanner(table);
    scanner_next_batch(table);
    scanner_count(table);
    scanner_snapshots(table);
    scanners(table);
    range_scanners(table);
    sorted_scan(table);
    sorted_next_batch(table);
}

async fn multi_get(table: Table) -> Result<(), Error> {
    table.multi_set("user:1", &[("name", "Ada"), ("mail", "ada@example.org")]).await?;
    let rows = table.multi_get("user:1", &["mail", "phone", "name"]).await?;
    assert_eq!(rows.len(), 2);
    assert_eq!((&rows[0].sort_key[..], &rows[0].value[..]), (&b"mail"[..], &b"ada@example.org"[..]));
    Ok(())
}

async fn multi_exist(table: Table) -> Result<(), Error> {
    table.set("user:1", "name", "Ada").await?;
    let found = table.multi_exist("user:1", &["phone", "name"]).await?;
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].sort_key, "name");
    Ok(())
}

async fn multi_get_range(table: Table) -> Result<(), Error> {
    use pegasus_client::{KeyFilter, RangeOptions, SortKeyRange};

    table.multi_set("log", &[("05-01 a", "1"), ("05-02 b", "2"), ("05-02 c", "3"), ("06-01 d", "4")]).await?;
    let may = SortKeyRange { start: "05".into(), stop: "06".into(), ..SortKeyRange::default() };
    let options = RangeOptions { range: may, reverse: true, rows_max: 2, ..RangeOptions::default() };
    let last = table.multi_get_range("log", &options).await?;
    assert_eq!((&last.rows[0].value[..], &last.rows[1].value[..]), (&b"2"[..], &b"3"[..]));
    assert!(!last.complete);

    let options = RangeOptions { filter: KeyFilter::Anywhere("-01".into()), ..RangeOptions::default() };
    assert_eq!(table.multi_get_range("log", &options).await?.rows.len(), 2);
    Ok(())
}

async fn multi_get_sort_keys(table: Table) -> Result<(), Error> {
    table.multi_set("user:1", &[("name", "Ada"), ("mail", "ada@example.org")]).await?;
    assert_eq!(table.multi_get_sort_keys("user:1", &Default::default()).await?, ["mail", "name"]);
    Ok(())
}

async fn hash_scan(table: Table) -> Result<(), Error> {
    use pegasus_client::{ScanOptions, SortKeyRange};

    table.multi_set("log", &[("05-01", "a"), ("05-02", "b"), ("06-01", "c")]).await?;
    let may = SortKeyRange { start: "05".into(), stop: "06".into(), ..SortKeyRange::default() };
    let newest_first = ScanOptions { reverse: true, ..ScanOptions::default() };
    let mut scanner = table.hash_scan("log", &may, newest_first)?;
    assert_eq!(scanner.next().await?.expect("a row").sort_key, "05-02");
    assert_eq!(scanner.next().await?.expect("a row").sort_key, "05-01");
    assert!(scanner.next().await?.is_none());
    Ok(())
}

async fn full_scan(table: Table) -> Result<(), Error> {
    table.set("user:1", "name", "Ada").await?;
    table.set("user:2", "name", "Bob").await?;
    let mut scanner = table.full_scan(Default::default()).await?;
    let mut rows = 0;
    while let Some(row) = scanner.next().await? {
        assert_eq!(row.sort_key, "name");
        rows += 1;
    }
    assert_eq!(rows, 2);
    Ok(())
}

async fn partition_scan(table: Table) -> Result<(), Error> {
    table.set("user:1", "name", "Ada").await?;
    let mut rows = 0;
    for index in 0..table.properties().await?.partition_count {
        let mut scanner = table.partition_scan(index, Default::default())?;
        while let Some(batch) = scanner.next_batch().await? {
            rows += batch.len();
        }
    }
    assert_eq!(rows, 1);
    Ok(())
}

async fn count(table: Table) -> Result<(), Error> {
    table.multi_set("user:1", &[("name", "Ada"), ("mail", "ada@example.org")]).await?;
    assert_eq!(table.count("user:1").await?, 2);
    assert_eq!(table.count("user:2").await?, 0);
    Ok(())
}

async fn count_all(table: Table) -> Result<(), Error> {
    table.set("user:1", "name", "Ada").await?;
    table.set("user:2", "name", "Bob").await?;
    assert_eq!(table.count_all().await?, 2);
    Ok(())
}

async fn scanner(table: Table) -> Result<(), Error> {
    table.multi_set("user:1", &[("mail", "ada@example.org"), ("name", "Ada")]).await?;
    let mut scanner = table.full_scan(Default::default()).await?;
    while let Some(row) = scanner.next().await? {
        println!("{:?} {:?} {:?}", row.hash_key, row.sort_key, row.value);
    }
    Ok(())
}

async fn scanner_next_batch(table: Table) -> Result<(), Error> {
    table.multi_set("user:1", &[("mail", "ada@example.org"), ("name", "Ada")]).await?;
    let mut scanner = table.full_scan(Default::default()).await?;
    assert_eq!(scanner.next_batch().await?.expect("rows").len(), 2);
    assert!(scanner.next_batch().await?.is_none());
    Ok(())
}

async fn scanner_count(table: Table) -> Result<(), Error> {
    use pegasus_client::{KeyFilter, ScanOptions};

    table.set("user:1", "name", "Ada").await?;
    table.set("page:1", "title", "Home").await?;
    let users = ScanOptions { hash_key_filter: KeyFilter::Prefix("user:".into()), ..ScanOptions::default() };
    assert_eq!(table.full_scan(users).await?.count().await?, 1);
    Ok(())
}

async fn scanner_snapshots(table: Table) -> Result<(), Error> {
    table.multi_set("user:1", &[("mail", "ada@example.org"), ("name", "Ada")]).await?;
    let mut scanner = table.hash_scan("user:1", &Default::default(), Default::default())?;
    while scanner.next().await?.is_some() {}
    assert_eq!(scanner.snapshots(), 1);
    Ok(())
}

async fn scanners(table: Table) -> Result<(), Error> {
    table.set("user:1", "name", "Ada").await?;
    table.set("user:2", "name", "Bob").await?;
    let mut counts = Vec::new();
    for mut scanner in table.scanners(4, Default::default()).await? {
        counts.push(tokio::spawn(async move { scanner.count().await }));
    }
    let mut rows = 0;
    for count in counts {
        rows += count.await.expect("no panic")?;
    }
    assert_eq!(rows, 2);
    Ok(())
}

async fn range_scanners(table: Table) -> Result<(), Error> {
    use pegasus_client::{HashKeyRange, ScanOptions, SortKeyRange};

    for day in ["2024-04-30", "2024-05-01", "2024-05-31", "2024-06-01"] {
        table.multi_set(day, &[("cold", "7"), ("warm", "25")]).await?;
    }
    let may = HashKeyRange { start: "2024-05-01".into(), stop: "2024-06-01".into(), ..HashKeyRange::default() };
    let warm = SortKeyRange { start: "warm".into(), ..SortKeyRange::default() };
    let mut rows = 0;
    for mut scanner in table.range_scanners(2, &may, &warm, ScanOptions::default()).await? {
        while let Some(row) = scanner.next().await? {
            assert!(row.hash_key.starts_with(b"2024-05") && row.sort_key == "warm");
            rows += 1;
        }
    }
    assert_eq!(rows, 2);
    Ok(())
}

async fn sorted_scan(table: Table) -> Result<(), Error> {
    use pegasus_client::{HashKeyRange, ScanOptions, SortKeyRange};

    for name in ["b", "aa", "a", "abc", "c"] {
        table.multi_set(name, &[("mail", ""), ("phone", "")]).await?;
    }
    let from_aa = HashKeyRange { start: "aa".into(), stop: "c".into(), ..HashKeyRange::default() };
    let mails = SortKeyRange { stop: "n".into(), ..SortKeyRange::default() };
    let mut scanner = table.sorted_scan(&from_aa, &mails, ScanOptions::default()).await?;
    let mut names = Vec::new();
    while let Some(row) = scanner.next().await? {
        names.push(row.hash_key);
    }
    assert_eq!(names, ["aa", "abc", "b"]);
    Ok(())
}

async fn sorted_next_batch(table: Table) -> Result<(), Error> {
    use pegasus_client::ScanOptions;

    table.set("b", "", "2").await?;
    table.set("aa", "", "1").await?;
    let descending = ScanOptions { reverse: true, ..ScanOptions::default() };
    let mut scanner = table.sorted_scan(&Default::default(), &Default::default(), descending).await?;
    let mut values = Vec::new();
    while let Some(rows) = scanner.next_batch().await? {
        values.extend(rows.into_iter().map(|row| row.value));
    }
    assert_eq!(values, ["2", "1"]);
    Ok(())
}
