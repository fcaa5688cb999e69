//! The clients of `chaos` against a stand-in that keeps its word, and against one that lies once in a while: what is
//! recorded and judged must tell them apart.
#![allow(clippy::unwrap_used)]

mod stub;

use std::time::Duration;

use pegasus_client::{Client, ClientOptions, TableSpec};
use pegasus_perf::chaos::clients::{Clients, Load};
use pegasus_perf::chaos::recorder::Clock;
use pegasus_perf::chaos::settle::Settled;
use pegasus_perf::chaos::verdict::{Findings, Verdict};
use pegasus_perf::workload::client_runtime;
use stub::{Lie, Stub};

/// Runs in which a lost write has to show.
const ATTEMPTS: usize = 10;

/// Lets clients work on a stand-in for a second and judges what they recorded.
fn judge(lie: Option<Lie>) -> Findings {
    let home = tempfile::tempdir().unwrap();
    let stub = Stub::start(&home.path().join("tls"));
    let client = ClientOptions::new(vec![stub.meta], home.path().join("tls"));
    client_runtime(1).unwrap().block_on(async {
        let client = Client::connect(client.clone()).await.unwrap();
        client.create_table(&TableSpec::new("rows", 4)).await.unwrap();
        client.close().await;
    });
    lie.into_iter().for_each(|lie| stub.lie(lie));
    let load = Load { client, table: "rows".into(), clients: 8, keys: 4, timeout: Duration::from_secs(5), seed: 1 };
    let clients = Clients::start(load, Clock::start()).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    assert!(!clients.have_ended());
    Findings::of(clients.stop().unwrap(), Settled::default(), Vec::new())
}

#[test]
fn who_keeps_his_word_is_believed() {
    let findings = judge(None);
    assert_eq!(findings.verdict, Verdict::Ok, "{}", findings.text());
    assert!(findings.counts.ok > 500 && findings.counts.failed + findings.counts.unknown == 0, "{findings:?}");
}

#[test]
fn stale_reads_are_found() {
    let findings = judge(Some(Lie::StaleRead));
    assert_eq!(findings.verdict, Verdict::Violation, "{:?}", findings.counts);
    assert!(findings.witnesses[0].contains("found"), "{}", findings.text());
}

#[test]
fn lost_writes_are_found() {
    // A write that is lost and overwritten before anybody reads it does not show; on a busy machine that may be so for
    // all of them in one run.
    let findings = (0..ATTEMPTS).map(|_| judge(Some(Lie::LostWrite))).find(|found| found.verdict != Verdict::Ok);
    let findings = findings.expect("one of the lost writes shows");
    assert_eq!(findings.verdict, Verdict::Violation, "{:?}", findings.counts);
    assert!(!findings.witnesses.is_empty());
}

#[test]
fn damaged_values_are_found() {
    let findings = judge(Some(Lie::Damage));
    assert_eq!(findings.verdict, Verdict::Violation, "{:?}", findings.counts);
    assert!(findings.text().contains("damaged value"), "{}", findings.text());
}
