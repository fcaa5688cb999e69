//! `copy_data --from`: a table of a Pegasus cluster, played by the stand-in, into a real cluster of ours.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use pegasus_client::{ScanOptions, Table};
use pegasus_driver::now_seconds;
use pegasus_stand_in::{Fault, Rpc, StandIn};
use serde_json::Value;
use support::TestCluster;

const PORT_OFFSET: u16 = 27300;
/// Tables of a onebox.
const TARGET: &str = "temp";
/// Rows of the source, in hash keys of different lengths.
const ROWS: u32 = 3000;
const HASH_KEYS: u32 = 170;

/// Rows by key: value and second of expiry.
type Rows = BTreeMap<(Vec<u8>, Vec<u8>), (Vec<u8>, u32)>;

async fn source() -> StandIn {
    let server = StandIn::start(3).await;
    server.create("users", 4);
    for row in 0..ROWS {
        let expiry = if row % 3 == 0 { now_seconds() + 100_000 + row } else { 0 };
        let hash_key = format!("user:{}", row % HASH_KEYS);
        server.put("users", hash_key.as_bytes(), &row.to_be_bytes(), format!("value {row}").as_bytes(), expiry);
    }
    server
}

/// Copies into the target; gives the exit code, what was printed as JSON, and what was said of errors.
async fn copy(cluster: &TestCluster, server: &StandIn, more: &[&str]) -> (i32, Value, String) {
    let mut command = cluster.tool(TARGET);
    command.args(["copy_data", "--from", &server.target("users")]).args(more);
    let output = command.output().await.unwrap();
    let out = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (output.status.code().unwrap(), out, String::from_utf8_lossy(&output.stderr).into_owned())
}

async fn rows_of(table: &Table) -> Rows {
    let mut scanner = table.full_scan(ScanOptions::default()).await.unwrap();
    let mut rows = Rows::new();
    while let Some(row) = scanner.next().await.unwrap() {
        rows.insert((row.hash_key.to_vec(), row.sort_key.to_vec()), (row.value.to_vec(), row.expiry_seconds));
    }
    rows
}

fn rows_at(server: &StandIn) -> Rows {
    let row = |(hash_key, sort_key, value, expiry)| ((hash_key, sort_key), (value, expiry));
    server.rows("users").into_iter().map(row).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_moves_with_its_expiries_and_goes_on_where_it_stopped() {
    let server = source().await;
    let cluster = TestCluster::new(PORT_OFFSET);
    cluster.start(1);
    let client = cluster.client().await;
    let table = client.table(TARGET).await.unwrap();
    let home = tempfile::tempdir().unwrap();
    let progress = home.path().join("users.progress").display().to_string();

    // One partition first; what breaks off on the way is read again.
    server.fault(Rpc::Scan, Fault::CloseAfter);
    server.fault(Rpc::GetScanner, Fault::Error("ERR_OBJECT_NOT_FOUND"));
    let (code, first, errors) = copy(&cluster, &server, &["-p", "2", "--progress_file", &progress]).await;
    assert_eq!((code, &first["complete"], &first["partitions"]), (0, &true.into(), &[2].as_slice().into()), "{errors}");
    let part = rows_of(&table).await;
    assert!(!part.is_empty() && part.len() < ROWS as usize);
    assert_eq!(first["rows"], part.len());

    // Then the others, and nothing twice.
    let (code, rest, errors) = copy(&cluster, &server, &["--progress_file", &progress, "--resume"]).await;
    assert_eq!((code, &rest["rows"]), (0, &(ROWS as usize - part.len()).into()), "{errors}");
    assert_eq!(rows_of(&table).await, rows_at(&server));

    // The progress file is about this table of this cluster only.
    let other = source().await;
    let (code, _, errors) = copy(&cluster, &other, &["--progress_file", &progress, "--resume"]).await;
    assert!(code == 2 && errors.contains("the progress file is about the source"), "{code} {errors}");

    // Filters, and rows that are there already.
    let words = ["--hash_key_filter_type", "exact", "-x", "user:7", "--no_overwrite"];
    let (code, none, errors) = copy(&cluster, &server, &words).await;
    let of_one = rows_at(&server).keys().filter(|(hash_key, _)| hash_key == b"user:7").count();
    assert_eq!((code, &none["rows"], &none["kept"]), (0, &0.into(), &of_one.into()), "{errors}");

    // A row without a hash key cannot be here.
    server.put("users", b"", b"lost", b"v", 0);
    let (code, _, errors) = copy(&cluster, &server, &[]).await;
    assert!(code == 2 && errors.contains("must not be empty") && errors.contains("--skip-unfit"), "{code} {errors}");
    let (code, fitting, errors) = copy(&cluster, &server, &["--skip_unfit", "--rows_per_read", "1000"]).await;
    assert_eq!((code, &fitting["rows"], &fitting["unfit"]), (0, &ROWS.into(), &1.into()), "{errors}");
    client.close().await;
    cluster.stop();
}
