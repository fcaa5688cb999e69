//! What a command works with: the cluster, the table, and how to print. Connects when first needed.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pegasus_client::{Client, ClientOptions, Table};
use tokio::sync::OnceCell;

use crate::cli::GlobalOptions;
use crate::escape::{escape, escape_all};
use crate::output::{Failure, Style};

/// Where a cluster is looked for if nothing is said.
const META_DEFAULT: &str = "127.0.0.1:34601";
/// Where the certificates are looked for if nothing is said.
const TLS_DEFAULT: &str = "./onebox/tls";

/// How long a person waits to hear that there is no cluster.
const META_TIMEOUT: Duration = Duration::from_secs(5);

/// The surroundings of one command.
pub struct Context {
    options: GlobalOptions,
    connection: OnceCell<Client>,
}

impl Context {
    /// Surroundings that connect as the options say.
    pub fn new(options: GlobalOptions) -> Context {
        Context { options, connection: OnceCell::new() }
    }

    /// Surroundings that use a connection made before, as the prompt does.
    pub fn with_client(options: GlobalOptions, client: Option<Client>) -> Context {
        Context { options, connection: OnceCell::new_with(client) }
    }

    /// The options it was made with.
    pub fn options(&self) -> &GlobalOptions {
        &self.options
    }

    /// How to print.
    pub fn style(&self) -> Style {
        if self.options.json { Style::Json } else { Style::Text }
    }

    /// Bytes as text for people.
    pub fn text(&self, bytes: &[u8]) -> String {
        if self.options.escape_all { escape_all(bytes) } else { escape(bytes) }
    }

    /// The connection, if one was made.
    pub fn connected(&self) -> Option<Client> {
        self.connection.get().cloned()
    }

    /// The cluster.
    pub async fn client(&self) -> Result<Client, Failure> {
        let client = self.connection.get_or_try_init(|| async {
            let options = client_options(&self.options)?;
            Ok::<_, Failure>(Client::connect(options).await?)
        });
        client.await.cloned()
    }

    /// The name of the table to work on.
    pub fn table_name(&self) -> Result<String, Failure> {
        let name = self.options.table.clone().or_else(|| std::env::var("PEGASUS_TABLE").ok());
        name.ok_or_else(|| Failure::usage("name a table with --table (-t), or at the prompt with: use TABLE"))
    }

    /// The name a command was given, or else that of the table to work on.
    pub fn name_or_table(&self, given: Option<String>) -> Result<String, Failure> {
        given.map_or_else(|| self.table_name(), Ok)
    }

    /// The table to work on.
    pub async fn table(&self) -> Result<Table, Failure> {
        let name = self.table_name()?;
        Ok(self.with_timeout(self.client().await?.table(&name).await?))
    }

    /// A table of any cluster, with the time limit that was asked for.
    pub fn with_timeout(&self, table: Table) -> Table {
        match self.options.timeout_ms {
            Some(timeout_ms) => table.with_timeout(Duration::from_millis(timeout_ms)),
            None => table,
        }
    }
}

/// How to connect, from options, environment and defaults.
pub fn client_options(options: &GlobalOptions) -> Result<ClientOptions, Failure> {
    let meta = options.meta.clone().or_else(|| std::env::var("PEGASUS_META").ok());
    let meta_servers = parse_addresses(meta.as_deref().unwrap_or(META_DEFAULT))?;
    let tls = options.tls.clone().or_else(|| std::env::var_os("PEGASUS_TLS").map(PathBuf::from));
    let tls = tls.unwrap_or_else(|| PathBuf::from(TLS_DEFAULT));
    check_tls_directory(&tls)?;
    let mut client_options = ClientOptions::new(meta_servers, &tls);
    client_options.meta_timeout = META_TIMEOUT;
    if let Some(timeout_ms) = options.timeout_ms {
        if timeout_ms == 0 {
            return Err(Failure::usage("--timeout-ms must be above zero"));
        }
        client_options.operation_timeout = Duration::from_millis(timeout_ms);
        client_options.meta_timeout = client_options.meta_timeout.min(client_options.operation_timeout);
    }
    Ok(client_options)
}

/// The commonest mistake gets the clearest words: no cluster here, or another directory.
fn check_tls_directory(tls: &Path) -> Result<(), Failure> {
    for name in ["ca.crt", "client.crt", "client.key"] {
        let path = tls.join(name);
        if !path.is_file() {
            return Err(Failure::usage(format!(
                "{} is not there; start a cluster with `pegasus onebox start`, or say where its certificates are with \
                 --tls or PEGASUS_TLS",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Addresses separated by commas; names are resolved.
fn parse_addresses(text: &str) -> Result<Vec<SocketAddr>, Failure> {
    let mut addresses = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let resolved = part.to_socket_addrs().map_err(|error| {
            Failure::usage(format!("--meta: {part:?} is not an address with a port, such as {META_DEFAULT}: {error}"))
        })?;
        addresses.extend(resolved);
    }
    if addresses.is_empty() {
        return Err(Failure::usage(format!("--meta names no address; an example is {META_DEFAULT}")));
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_listed_with_commas() {
        let addresses = parse_addresses("127.0.0.1:1, 127.0.0.1:2").expect("two addresses");
        assert_eq!(addresses.iter().map(SocketAddr::port).collect::<Vec<_>>(), [1, 2]);
        assert!(parse_addresses("127.0.0.1").unwrap_err().message.contains("not an address"));
        assert!(parse_addresses(" ,").unwrap_err().message.contains("no address"));
    }

    #[test]
    fn a_missing_identity_is_explained() {
        let directory = tempfile::tempdir().expect("a directory");
        let options = GlobalOptions { tls: Some(directory.path().to_owned()), ..GlobalOptions::default() };
        let failure = client_options(&options).unwrap_err();
        assert!(failure.message.contains("ca.crt") && failure.message.contains("--tls"), "{failure:?}");
        for name in ["ca.crt", "client.crt", "client.key"] {
            std::fs::write(directory.path().join(name), "").expect("written");
        }
        assert!(client_options(&options).is_ok());
        assert!(client_options(&GlobalOptions { timeout_ms: Some(0), ..options }).is_err());
    }
}
