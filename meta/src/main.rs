//! `pegasus-meta`: a meta server.
//!
//! Prints one line to stdout when it serves: `ready meta <address>`. Logs go to stderr. SIGTERM and SIGINT stop it
//! in order.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use pegasus_meta::host::config::ConfigError;
use pegasus_meta::host::{Config, Server, ServerError};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The meta server of Pegasus: tables, partition configurations, nodes.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// TOML file; what it leaves out has its default.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the configuration in effect and exit.
    #[arg(long)]
    print_config: bool,
    /// UDP address for nodes, clients and operators; goes before the file.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// TCP address for health, metrics and status; goes before the file.
    #[arg(long, value_name = "ADDRESS")]
    admin_listen: Option<SocketAddr>,
    /// Directory of the database; goes before the file.
    #[arg(long, value_name = "DIRECTORY")]
    data_directory: Option<PathBuf>,
    /// Certificate of the role meta (PEM); goes before the file.
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Private key of the certificate (PEM); goes before the file.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// CA of the cluster (PEM); goes before the file.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// error, warn, info, debug or trace; goes before the file.
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let print = arguments.print_config;
    let config = match effective_config(arguments) {
        Ok(config) => config,
        Err(error) => return fail(&error.into()),
    };
    if print {
        print!("{}", config.to_toml());
        return ExitCode::SUCCESS;
    }
    log_to_stderr(&config.log_level);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&ServerError::Failed(format!("no threads: {error}"))),
    };
    match runtime.block_on(serve(&config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn effective_config(arguments: Arguments) -> Result<Config, ConfigError> {
    let mut config = match &arguments.config {
        Some(path) => Config::load(path)?,
        None => Config::default(),
    };
    config.listen = arguments.listen.unwrap_or(config.listen);
    config.admin_listen = arguments.admin_listen.unwrap_or(config.admin_listen);
    config.data_directory = arguments.data_directory.unwrap_or(config.data_directory);
    config.tls.certificate = arguments.certificate.unwrap_or(config.tls.certificate);
    config.tls.key = arguments.key.unwrap_or(config.tls.key);
    config.tls.ca = arguments.ca.unwrap_or(config.tls.ca);
    config.log_level = arguments.log_level.unwrap_or(config.log_level);
    config.validate()?;
    Ok(config)
}

async fn serve(config: &Config) -> Result<(), ServerError> {
    let no_signals = |error: std::io::Error| ServerError::Failed(format!("no signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let server = Server::start(config).await?;
    let address = server.address();
    tracing::info!(%address, admin = %server.admin_address(), "meta server ready");
    announce(address);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM, stopping"),
            _ = interrupt.recv() => tracing::info!("SIGINT, stopping"),
        }
    };
    server.run(stop).await
}

/// Tells a starter that the server serves. A starter that has gone away is no reason to fail.
fn announce(address: SocketAddr) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready meta {address}").and_then(|()| out.flush()).ok();
}

/// Raft and the transport say little of use below warnings unless everything is asked for.
fn log_to_stderr(level: &str) {
    let filter = match level {
        "debug" | "trace" | "error" => level.to_owned(),
        _ => format!("{level},openraft=warn,quinn=warn"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
}

fn fail(error: &ServerError) -> ExitCode {
    eprintln!("pegasus-meta: {error}");
    ExitCode::FAILURE
}

/// The service waits for the disk and the network more than it computes.
const WORKERS: usize = 2;
