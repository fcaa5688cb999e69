//! Examples of operations on rows.

use pegasus_client::{Error, Table};

use crate::run;

run! {
    with_timeout(table);
    properties(table);
    set(table);
    set_with_ttl(table);
    get(table);
    exist(table);
    ttl(table);
    del(table);
    multi_set(table);
    multi_set_with_ttl(table);
    multi_del(table);
    del_range(table);
    write(table);
    incr(table);
    incr_with(table);
    check_and_set(table);
    check_and_mutate(table);
    compare_exchange(table);
    batch_get(table);
    batch_set(table);
    batch_del(table);
}

async fn with_timeout(table: Table) -> Result<(), Error> {
    use std::time::Duration;

    let patient = table.with_timeout(Duration::from_secs(60));
    patient.set("user:1", "name", "Ada").await?;
    Ok(())
}

async fn properties(table: Table) -> Result<(), Error> {
    let properties = table.properties().await?;
    assert_eq!((properties.name.as_str(), properties.partition_count), (table.name(), 8));
    Ok(())
}

async fn set(table: Table) -> Result<(), Error> {
    table.set("user:1", "name", "Ada").await?;
    assert_eq!(table.get("user:1", "name").await?.as_deref(), Some(&b"Ada"[..]));
    Ok(())
}

async fn set_with_ttl(table: Table) -> Result<(), Error> {
    use pegasus_client::Ttl;

    table.set_with_ttl("user:1", "session", "7f3a", 3600).await?;
    assert!(matches!(table.ttl("user:1", "session").await?, Some(Ttl::Seconds(3590..=3600))));
    Ok(())
}

async fn get(table: Table) -> Result<(), Error> {
    assert_eq!(table.get("user:1", "phone").await?, None);
    table.set("user:1", "phone", "").await?;
    assert_eq!(table.get("user:1", "phone").await?.as_deref(), Some(&b""[..]));
    Ok(())
}

async fn exist(table: Table) -> Result<(), Error> {
    table.set("user:1", "name", "Ada").await?;
    assert!(table.exist("user:1", "name").await?);
    assert!(!table.exist("user:1", "phone").await?);
    Ok(())
}

async fn ttl(table: Table) -> Result<(), Error> {
    use pegasus_client::Ttl;

    table.set("user:1", "name", "Ada").await?;
    assert_eq!(table.ttl("user:1", "name").await?, Some(Ttl::Never));
    assert_eq!(table.ttl("user:1", "phone").await?, None);
    Ok(())
}

async fn del(table: Table) -> Result<(), Error> {
    table.set("user:1", "name", "Ada").await?;
    table.del("user:1", "name").await?;
    assert!(!table.exist("user:1", "name").await?);
    Ok(())
}

async fn multi_set(table: Table) -> Result<(), Error> {
    table.multi_set("user:1", &[("name", "Ada"), ("mail", "ada@example.org")]).await?;
    assert_eq!(table.count("user:1").await?, 2);
    Ok(())
}

async fn multi_set_with_ttl(table: Table) -> Result<(), Error> {
    table.multi_set_with_ttl("cart:1", &[("apples", "3"), ("pears", "1")], 1800).await?;
    assert!(table.exist("cart:1", "pears").await?);
    Ok(())
}

async fn multi_del(table: Table) -> Result<(), Error> {
    table.multi_set("user:1", &[("name", "Ada"), ("mail", "ada@example.org")]).await?;
    table.multi_del("user:1", &["mail", "phone"]).await?;
    assert_eq!(table.count("user:1").await?, 1);
    Ok(())
}

async fn del_range(table: Table) -> Result<(), Error> {
    use pegasus_client::SortKeyRange;

    table.multi_set("log", &[("05-01", "a"), ("05-31", "b"), ("06-01", "c")]).await?;
    let may = SortKeyRange { start: "05".into(), stop: "06".into(), ..SortKeyRange::default() };
    table.del_range("log", &may).await?;
    assert_eq!(table.count("log").await?, 1);
    Ok(())
}

async fn write(table: Table) -> Result<(), Error> {
    use pegasus_client::WriteBatch;

    let mut batch = WriteBatch::new();
    batch.put("name", "Ada").put_with_ttl("session", "7f3a", 3600).delete("draft");
    table.write("user:1", &batch).await?;
    assert_eq!(table.count("user:1").await?, 2);
    Ok(())
}

async fn incr(table: Table) -> Result<(), Error> {
    assert_eq!(table.incr("page:home", "views", 1).await?, 1);
    assert_eq!(table.incr("page:home", "views", -3).await?, -2);
    assert_eq!(table.get("page:home", "views").await?.as_deref(), Some(&b"-2"[..]));
    Ok(())
}

async fn incr_with(table: Table) -> Result<(), Error> {
    use pegasus_client::{Ttl, TtlChange};

    table.incr_with("user:1", "logins", 1, TtlChange::Set(3600)).await?;
    assert!(matches!(table.ttl("user:1", "logins").await?, Some(Ttl::Seconds(3590..))));
    table.incr_with("user:1", "logins", 1, TtlChange::Clear).await?;
    assert_eq!(table.ttl("user:1", "logins").await?, Some(Ttl::Never));
    Ok(())
}

async fn check_and_set(table: Table) -> Result<(), Error> {
    use pegasus_client::{Check, CheckAndSet};

    table.set("job:1", "tries", "3").await?;
    let give_up = CheckAndSet {
        check_sort_key: b"tries",
        check: Check::IntegerGreaterOrEqual,
        operand: b"3",
        set_sort_key: b"state",
        value: b"failed",
        ttl_seconds: 0,
        return_value: true,
    };
    let outcome = table.check_and_set("job:1", &give_up).await?;
    assert!(outcome.written && outcome.exists);
    assert_eq!(outcome.value.as_deref(), Some(&b"3"[..]));
    Ok(())
}

async fn check_and_mutate(table: Table) -> Result<(), Error> {
    use pegasus_client::{Check, RowCheck, WriteBatch};

    let unlocked = RowCheck { sort_key: b"lock", check: Check::NotExistOrEmpty, operand: b"", return_value: true };
    let mut batch = WriteBatch::new();
    batch.put_with_ttl("lock", "worker 7", 30).put("state", "running").delete("error");
    assert!(table.check_and_mutate("job:1", &unlocked, &batch).await?.written);

    let outcome = table.check_and_mutate("job:1", &unlocked, &batch).await?;
    assert!(!outcome.written);
    assert_eq!(outcome.value.as_deref(), Some(&b"worker 7"[..]));
    Ok(())
}

async fn compare_exchange(table: Table) -> Result<(), Error> {
    use pegasus_client::CompareExchange;

    let first = table.compare_exchange("leader", "", None, "node 1", 10).await?;
    assert_eq!(first, CompareExchange::Exchanged);
    let second = table.compare_exchange("leader", "", None, "node 2", 10).await?;
    assert_eq!(second, CompareExchange::Different(Some("node 1".into())));
    let third = table.compare_exchange("leader", "", Some(b"node 1"), "node 3", 10).await?;
    assert_eq!(third, CompareExchange::Exchanged);
    Ok(())
}

async fn batch_get(table: Table) -> Result<(), Error> {
    table.set("user:1", "name", "Ada").await?;
    let found = table.batch_get(&[("user:1", "name"), ("user:2", "name")]).await;
    assert_eq!(found[0].as_ref().unwrap().as_deref(), Some(&b"Ada"[..]));
    assert_eq!(found[1].as_ref().unwrap().as_deref(), None);
    Ok(())
}

async fn batch_set(table: Table) -> Result<(), Error> {
    let rows = [("user:1", "name", "Ada"), ("user:2", "name", "Bob"), ("", "name", "Eve")];
    let written = table.batch_set(&rows, 0).await;
    assert!(written[0].is_ok() && written[1].is_ok());
    assert!(written[2].is_err(), "a hash key is not empty");
    Ok(())
}

async fn batch_del(table: Table) -> Result<(), Error> {
    table.set("user:1", "name", "Ada").await?;
    let deleted = table.batch_del(&[("user:1", "name"), ("user:2", "name")]).await;
    assert!(deleted.iter().all(Result::is_ok));
    assert!(!table.exist("user:1", "name").await?);
    Ok(())
}
