//! The commands: one file per noun, each with its options and what it does. All that can be checked before anything is
//! sent is checked here.
//!
//! A word of Pegasus's shell that says the same as one of ours (`ls` and `table list`) is another word for the same
//! function.

pub mod arguments;
pub mod check;
pub mod clear_data;
pub mod compact;
pub mod copy_data;
pub mod count;
pub mod count_data;
pub mod environment;
pub mod export;
pub mod hash;
pub mod import;
pub mod lifecycle;
pub mod multi;
pub mod onebox;
pub mod partition;
pub mod rows;
pub mod scan;
pub mod status;
pub mod table;

use crate::cli::{Command, TableWord};
use crate::context::Context;
use crate::output::Outcome;

/// Carries out a command.
pub async fn run(context: &Context, command: Command) -> Outcome {
    match command {
        Command::Set(arguments) => rows::set(context, arguments).await,
        Command::Get(arguments) => rows::get(context, arguments).await,
        Command::Del(arguments) => rows::del(context, arguments).await,
        Command::Exist(arguments) => rows::exist(context, arguments).await,
        Command::Ttl(arguments) => rows::ttl(context, arguments).await,
        Command::Incr(arguments) => rows::incr(context, arguments).await,
        Command::CheckAndSet(arguments) => check::check_and_set(context, arguments).await,
        Command::CheckAndMutate(arguments) => check::check_and_mutate(context, arguments).await,
        Command::CompareExchange(arguments) => check::compare_exchange(context, arguments).await,
        Command::MultiSet(arguments) => multi::multi_set(context, arguments).await,
        Command::MultiGet(arguments) => multi::multi_get(context, arguments).await,
        Command::MultiGetRange(arguments) => multi::multi_get_range(context, arguments).await,
        Command::MultiGetSortkeys(arguments) => multi::multi_get_sortkeys(context, arguments).await,
        Command::MultiDel(arguments) => multi::multi_del(context, arguments).await,
        Command::MultiDelRange(arguments) => multi::multi_del_range(context, arguments).await,
        Command::Count(arguments) => count::run(context, arguments).await,
        Command::HashScan(arguments) => scan::hash_scan(context, arguments).await,
        Command::FullScan(arguments) => scan::full_scan(context, arguments).await,
        Command::SortedScan(arguments) => scan::sorted_scan(context, arguments).await,
        Command::Hash(arguments) => hash::run(context, arguments).await,
        Command::CountData(arguments) => count_data::run(context, arguments).await,
        Command::CopyData(arguments) => copy_data::run(context, arguments).await,
        Command::ClearData(arguments) => clear_data::run(context, arguments).await,
        Command::Import(arguments) => import::run(context, arguments).await,
        Command::Export(arguments) => export::run(context, arguments).await,
        Command::Status => status::run(context).await,
        Command::Nodes => status::nodes(context).await,
        Command::ClusterInfo => status::cluster_info(context).await,
        Command::Partition(command) => partition::run(context, command).await,
        Command::Onebox(command) => onebox::run(context, command).await,
        Command::Tables(word) => run_on_tables(context, word).await,
    }
}

/// Carries out a command about tables.
async fn run_on_tables(context: &Context, word: TableWord) -> Outcome {
    match word {
        TableWord::Table(command) => table::run(context, command).await,
        TableWord::Create(arguments) => table::create(context, arguments).await,
        TableWord::Ls(arguments) => table::list(context, arguments).await,
        TableWord::App(arguments) => table::describe(context, arguments).await,
        TableWord::Drop(arguments) => lifecycle::drop_table(context, arguments).await,
        TableWord::Recall(arguments) => lifecycle::recall(context, arguments).await,
        TableWord::Rename(arguments) => lifecycle::rename(context, arguments).await,
        TableWord::GetAppEnvs => environment::list(context, &context.table_name()?).await,
        TableWord::SetAppEnvs(arguments) => environment::set(context, &context.table_name()?, arguments).await,
        TableWord::DelAppEnvs(arguments) => environment::delete(context, &context.table_name()?, arguments).await,
        TableWord::ClearAppEnvs(arguments) => environment::clear(context, &context.table_name()?, arguments).await,
    }
}
