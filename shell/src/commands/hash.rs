//! The hash of a key, and where it leads.

use clap::Args;
use pegasus_wire::{partition_hash, partition_index};
use serde_json::json;

use crate::cli::Text;
use crate::context::Context;
use crate::nodes::NodeNames;
use crate::output::{Ending, Outcome};

/// Options of `hash`.
#[derive(Debug, Args)]
pub struct HashArguments {
    /// Hash key
    #[arg(allow_negative_numbers = true)]
    pub hash_key: Text,
    /// Sort key; counts only if the hash key is empty
    #[arg(allow_negative_numbers = true)]
    pub sort_key: Option<Text>,
}

/// Prints the hash of a key and, if a table is named, its partition and the members.
pub async fn run(context: &Context, arguments: HashArguments) -> Outcome {
    let sort_key = arguments.sort_key.map_or_else(Vec::new, |text| text.0);
    let hash = partition_hash(&arguments.hash_key.0, &sort_key);
    let mut text = format!("hash       {hash} (0x{hash:016x})");
    // Half of the numbers are beyond what JSON's readers keep exactly.
    let mut value = json!({"hash": format!("{hash:016x}")});
    if let Ok(name) = context.table_name() {
        let reply = context.client().await?.describe_table(&name).await?;
        let index = partition_index(&arguments.hash_key.0, &sort_key, reply.table.partition_count);
        let names = NodeNames::new(&reply.nodes);
        text.push_str(&format!("\npartition  {index} of table {name}"));
        value["partition"] = json!(index);
        if let Some(configuration) = reply.partitions.get(index as usize) {
            let (primary, secondaries) = (names.primary(configuration), names.secondaries(configuration));
            text.push_str(&format!("\nprimary    {primary}\nsecondary  {}", secondaries.join(" ")));
            value["primary"] = json!(configuration.primary.map(|node| names.name(node)));
            value["secondaries"] = json!(secondaries);
        }
    }
    context.style().show(&text, value);
    Ok(Ending::Yes)
}
