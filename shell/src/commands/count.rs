//! Counting rows, by the servers.

use clap::Args;
use serde_json::json;

use crate::cli::Text;
use crate::context::Context;
use crate::output::{Ending, Outcome};

/// Options of `count`.
#[derive(Debug, Args)]
pub struct CountArguments {
    /// Count the rows of this hash key only
    pub hash_key: Option<Text>,
}

/// Counts the rows of the table, or of one hash key.
pub async fn run(context: &Context, arguments: CountArguments) -> Outcome {
    let table = context.table().await?;
    let count = match &arguments.hash_key {
        Some(hash_key) => table.count(hash_key).await?,
        None => table.count_all().await?,
    };
    context.style().show(&count.to_string(), json!({ "count": count }));
    Ok(Ending::Yes)
}
