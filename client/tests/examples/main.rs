//! Every example of the documentation, carried out against the stand-in. What an example says is here word for word; a
//! test compares.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod operators;
mod reads;
mod rows;

use std::fs;
use std::path::Path;

/// Runs examples, each with a cluster of its own.
macro_rules! run {
    ($($name:ident($of:ident);)*) => {
        $(
            mod $name {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn runs() {
                    let cluster = crate::support::Cluster::start(8).await;
                    crate::run!(@ cluster, $name, $of).unwrap();
                }
            }
        )*
    };
    (@ $cluster:ident, $name:ident, table) => { super::$name($cluster.table().await).await };
    (@ $cluster:ident, $name:ident, client) => { super::$name($cluster.client.clone()).await };
}

use run;

/// The visible lines of the examples in a file, without blanks at their beginnings.
fn examples_in(source: &str) -> Vec<String> {
    let mut examples = Vec::new();
    let mut lines = source.lines().map(str::trim);
    while lines.any(|line| line == "/// ```no_run") {
        let body = lines.by_ref().take_while(|line| *line != "/// ```");
        let shown = body.map(|line| line.trim_start_matches("///").trim()).filter(|line| !line.starts_with("# "));
        examples.push(shown.collect::<Vec<_>>().join("\n"));
    }
    examples
}

fn all_sources(directory: &Path, sources: &mut Vec<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_sources(&path, sources);
        } else {
            sources.push(fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn every_example_of_the_documentation_is_carried_out_here() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut sources, mut carried_out) = (Vec::new(), Vec::new());
    all_sources(&here.join("src"), &mut sources);
    all_sources(&here.join("tests/examples"), &mut carried_out);
    let carried_out: String = carried_out.join("\n").lines().map(str::trim).collect::<Vec<_>>().join("\n");
    let examples: Vec<String> = sources.iter().flat_map(|source| examples_in(source)).collect();
    // That of a client alone connects to an address of its own.
    let (connecting, others): (Vec<_>, Vec<_>) =
        examples.iter().partition(|example| example.contains("Client::connect"));
    assert_eq!(connecting.len(), 1);
    for example in &others {
        assert!(carried_out.contains(example.as_str()), "this example is nowhere carried out:\n{example}");
    }
    assert!(others.len() > 40, "{}", others.len());
}
