//! `pegasus-replica`: a storage node.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pegasus_server::{Config, node};
use tracing_subscriber::EnvFilter;

/// A storage node of Pegasus.
#[derive(Parser)]
#[command(name = "pegasus-replica", version)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long)]
    config: PathBuf,
    /// Print the configuration in force, defaults included, and stop.
    #[arg(long)]
    print_config: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let config = match Config::load(&arguments.config) {
        Ok(config) => config,
        Err(error) => return fail(&error.to_string()),
    };
    if arguments.print_config {
        match toml::to_string(&config) {
            Ok(text) => print!("{text}"),
            Err(error) => return fail(&error.to_string()),
        }
        return ExitCode::SUCCESS;
    }
    let filter = match EnvFilter::try_new(&config.log_level) {
        Ok(filter) => filter,
        Err(error) => return fail(&format!("configuration key log_level: {error}")),
    };
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    match node::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("pegasus-replica: {message}");
    ExitCode::FAILURE
}
