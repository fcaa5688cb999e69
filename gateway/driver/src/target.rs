//! Addresses as people write them: `pegasus://host:port[,host:port]/table`.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// What every address begins with.
const SCHEME: &str = "pegasus://";

/// A table of a cluster, by the addresses of the cluster's meta servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Meta servers, each as `host:port`; at least one.
    pub meta_servers: Vec<String>,
    /// The table's name; not empty.
    pub table: String,
}

impl Target {
    /// Reads an address. Errors: [`Error::Invalid`], which says what is wrong and how it has to look.
    pub fn parse(text: &str) -> Result<Target, Error> {
        read(text).map_err(|wrong| Error::Invalid(format!("{text:?} is no address of a table: {wrong}; {EXAMPLE}")))
    }
}

const EXAMPLE: &str = "write pegasus://host:port/table, several meta servers separated by commas";

fn read(text: &str) -> Result<Target, String> {
    let rest = text.strip_prefix(SCHEME).ok_or_else(|| format!("it does not begin with {SCHEME}"))?;
    let (servers, table) = rest.split_once('/').ok_or("the table is missing")?;
    if table.is_empty() {
        return Err("the table is missing".to_owned());
    }
    if let Some(odd) = table.chars().find(|&character| character == '/' || character.is_whitespace()) {
        return Err(format!("a table's name has no {odd:?}"));
    }
    let meta_servers: Result<Vec<String>, String> = servers.split(',').map(|server| check(server.trim())).collect();
    Ok(Target { meta_servers: meta_servers?, table: table.to_owned() })
}

fn check(server: &str) -> Result<String, String> {
    let (host, port) = server.rsplit_once(':').ok_or_else(|| format!("the meta server {server:?} has no port"))?;
    if host.is_empty() || host.contains(['@', '?', '#']) || host.chars().any(char::is_whitespace) {
        return Err(format!("{host:?} is no host"));
    }
    match port.parse::<u16>() {
        Ok(1..) => Ok(server.to_owned()),
        _ => Err(format!("{port:?} is no port")),
    }
}

impl FromStr for Target {
    type Err = Error;

    fn from_str(text: &str) -> Result<Target, Error> {
        Target::parse(text)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{SCHEME}{}/{}", self.meta_servers.join(","), self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["pegasus://127.0.0.1:34601/temp", "pegasus://meta-1:34601,[::1]:34602/users.v2"] {
            assert_eq!(Target::parse(text).unwrap().to_string(), text);
        }
        let target: Target = "pegasus://a:1, b:2/t".parse().unwrap();
        assert_eq!((target.meta_servers, target.table.as_str()), (vec!["a:1".to_owned(), "b:2".to_owned()], "t"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("127.0.0.1:34601/temp", "does not begin with"),
            ("http://127.0.0.1:34601/temp", "does not begin with"),
            ("pegasus://127.0.0.1:34601", "table is missing"),
            ("pegasus://127.0.0.1:34601/", "table is missing"),
            ("pegasus://127.0.0.1:34601/a/b", "no '/'"),
            ("pegasus://127.0.0.1:34601/a b", "no ' '"),
            ("pegasus://127.0.0.1/temp", "no port"),
            ("pegasus://127.0.0.1:0/temp", "is no port"),
            ("pegasus://127.0.0.1:65536/temp", "is no port"),
            ("pegasus://:34601/temp", "is no host"),
            ("pegasus://me@host:1/temp", "is no host"),
            ("pegasus:///temp", "no port"),
            ("pegasus://a:1,,b:2/temp", "no port"),
        ] {
            let error = Target::parse(text).unwrap_err().to_string();
            assert!(error.contains(word) && error.contains("pegasus://host:port/table"), "{text}: {error}");
        }
    }
}
