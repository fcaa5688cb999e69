//! The commands: one file per noun, each with its options and what it does. All that can be checked before anything is
//! sent is checked here.

pub mod count;
pub mod export;
pub mod import;
pub mod onebox;
pub mod partition;
pub mod rows;
pub mod scan;
pub mod status;
pub mod table;

use crate::cli::Command;
use crate::context::Context;
use crate::output::Outcome;

/// Carries out a command.
pub async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Onebox(command) => onebox::run(context, command).await,
        Command::Table(command) => table::run(context, command).await,
        Command::Partition(command) => partition::run(context, command).await,
        Command::Status => status::run(context).await,
        Command::Set(arguments) => rows::set(context, arguments).await,
        Command::Get(arguments) => rows::get(context, arguments).await,
        Command::Del(arguments) => rows::del(context, arguments).await,
        Command::Exist(arguments) => rows::exist(context, arguments).await,
        Command::Ttl(arguments) => rows::ttl(context, arguments).await,
        Command::MultiSet(arguments) => rows::multi_set(context, arguments).await,
        Command::MultiGet(arguments) => rows::multi_get(context, arguments).await,
        Command::MultiDel(arguments) => rows::multi_del(context, arguments).await,
        Command::HashScan(arguments) => scan::hash_scan(context, arguments).await,
        Command::Scan(arguments) => scan::scan(context, arguments).await,
        Command::Count(arguments) => count::run(context, arguments).await,
        Command::Import(arguments) => import::run(context, arguments).await,
        Command::Export(arguments) => export::run(context, arguments).await,
    }
}
