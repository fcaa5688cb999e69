//! Examples of operators' calls.

use pegasus_client::{Client, Error};

use crate::run;

run! {
    create_table(client);
    wait_until_serving(client);
    list_tables(client);
    describe_table(client);
    drop_table(client);
    recall_table(client);
    rename_table(client);
    purge_table(client);
    change_environment(client);
    environment(client);
    copies(client);
}

async fn create_table(client: Client) -> Result<(), Error> {
    use pegasus_client::TableSpec;
    use std::time::Duration;

    let wait = Some(Duration::from_secs(30));
    let spec = TableSpec { if_not_exists: true, replica_count: 2, wait, ..TableSpec::new("users", 8) };
    client.create_table(&spec).await?;
    client.table("users").await?.set("user:1", "name", "Ada").await?;
    Ok(())
}

async fn wait_until_serving(client: Client) -> Result<(), Error> {
    use std::time::Duration;

    client.wait_until_serving("temp", Duration::from_secs(30)).await?;
    Ok(())
}

async fn list_tables(client: Client) -> Result<(), Error> {
    use pegasus_client::TableState;

    let tables = client.list_tables().await?;
    assert!(tables.iter().any(|table| table.properties.name == "temp" && table.state == TableState::Available));
    Ok(())
}

async fn describe_table(client: Client) -> Result<(), Error> {
    let description = client.describe_table("temp").await?;
    assert_eq!(description.partitions.len(), description.table.partition_count as usize);
    Ok(())
}

async fn drop_table(client: Client) -> Result<(), Error> {
    use pegasus_client::{DropOptions, Error};

    let temp = client.table("temp").await?;
    let dropped = client.drop_table("temp", DropOptions::default()).await?.expect("there was one");
    assert!(matches!(temp.get("user:1", "name").await, Err(Error::NoSuchTable(_))));
    client.recall_table(dropped.table, None).await?;
    temp.get("user:1", "name").await?;
    Ok(())
}

async fn recall_table(client: Client) -> Result<(), Error> {
    use pegasus_client::DropOptions;

    let dropped = client.drop_table("temp", DropOptions::default()).await?.expect("there was one");
    let recalled = client.recall_table(dropped.table, Some("temp_of_may")).await?;
    assert_eq!(recalled.table.name, "temp_of_may");
    client.table("temp_of_may").await?;
    Ok(())
}

async fn rename_table(client: Client) -> Result<(), Error> {
    let table = client.table("temp").await?;
    client.rename_table("temp", "users").await?;
    table.set("user:1", "name", "Ada").await?;
    assert!(client.table("users").await?.exist("user:1", "name").await?);
    assert!(client.table("temp").await.is_err());
    Ok(())
}

async fn purge_table(client: Client) -> Result<(), Error> {
    use pegasus_client::DropOptions;

    let dropped = client.drop_table("temp", DropOptions::default()).await?.expect("there was one");
    client.purge_table(dropped.table).await?;
    assert!(client.recall_table(dropped.table, None).await.is_err());
    Ok(())
}

async fn change_environment(client: Client) -> Result<(), Error> {
    use pegasus_client::EnvironmentChange;

    let change = EnvironmentChange::set("default_ttl", 3600).and_set("replica.write_throttling", "1K*delay*100");
    let in_force = client.change_environment("temp", &change).await?;
    assert_eq!(in_force.len(), 2);
    Ok(())
}

async fn environment(client: Client) -> Result<(), Error> {
    for setting in client.environment("temp").await? {
        println!("{} = {}", setting.key, setting.value);
    }
    Ok(())
}

async fn copies(client: Client) -> Result<(), Error> {
    for copy in client.copies("temp").await? {
        match copy.outcome {
            Ok(copy_of) => println!("{} on {}: {} bytes", copy.partition, copy.node, copy_of.file_bytes),
            Err(error) => println!("{} on {}: {error}", copy.partition, copy.node),
        }
    }
    Ok(())
}
