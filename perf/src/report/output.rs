//! Where results go.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::failure::Failure;

/// Options every command shares: where its results go.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct OutputOptions {
    /// Also write the results as JSON to this file; "-" writes JSON to standard output and the table to standard
    /// error.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

impl OutputOptions {
    /// Shows the results.
    pub fn emit(&self, text: &str, value: &impl Serialize) -> Result<(), Failure> {
        let Some(path) = &self.json else { return print(&mut io::stdout(), text) };
        let json = serde_json::to_string_pretty(value).map_err(Failure::at("turn the results into JSON"))? + "\n";
        if path == Path::new("-") {
            print(&mut io::stderr(), text)?;
            return print(&mut io::stdout(), &json);
        }
        print(&mut io::stdout(), text)?;
        fs::write(path, json).map_err(Failure::at(format!("write {}", path.display())))
    }

    /// A line on what is going on, for people who wait.
    pub fn progress(&self, line: &str) {
        // Nothing depends on it: a closed standard error must not end a measurement.
        let _ = writeln!(io::stderr(), "{line}");
    }
}

fn print(out: &mut impl Write, text: &str) -> Result<(), Failure> {
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::at("print the results"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_goes_to_its_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("out.json");
        let output = OutputOptions { json: Some(path.clone()) };
        output.emit("", &serde_json::json!({"p50_us": 1.5})).unwrap();
        let value: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(value["p50_us"], 1.5);
    }

    #[test]
    fn an_unwritable_file_is_named() {
        let output = OutputOptions { json: Some(PathBuf::from("/proc/no/such/place")) };
        let failure = output.emit("", &1).unwrap_err().to_string();
        assert!(failure.contains("/proc/no/such/place"), "{failure}");
    }
}
