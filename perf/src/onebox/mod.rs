//! Measurements for which processes of a onebox are stopped, wiped and started again. Everything is done with the
//! `pegasus` program, as an operator would; only processes and files of that onebox are touched.

pub mod learning;
pub mod without_meta;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::failure::Failure;
use crate::workload::options::{ONEBOX_DEFAULT, ServerOptions};

/// A onebox directory and the program that manages it.
#[derive(Clone, Debug)]
pub struct Onebox {
    directory: PathBuf,
    program: PathBuf,
}

impl Onebox {
    /// The onebox of the options, else the one in this directory.
    pub fn find(options: &ServerOptions) -> Result<Onebox, Failure> {
        let directory = options.onebox.clone().unwrap_or_else(|| PathBuf::from(ONEBOX_DEFAULT));
        if !directory.join("onebox.toml").is_file() {
            let directory = directory.display();
            return Err(Failure::new(format!("{directory} is no onebox: start one, or name its directory (--onebox)")));
        }
        let this = std::env::current_exe().map_err(Failure::at("find this program"))?;
        Ok(Onebox { directory, program: this.with_file_name("pegasus") })
    }

    /// Starts a process and waits until it serves.
    pub async fn start(&self, name: &str) -> Result<(), Failure> {
        self.run(&["start", "--no-tables", "--only", name]).await
    }

    /// Asks a process to end, and waits for its end.
    pub async fn stop(&self, name: &str) -> Result<(), Failure> {
        self.run(&["stop", "--only", name]).await
    }

    /// kill -9.
    pub async fn kill(&self, name: &str) -> Result<(), Failure> {
        self.run(&["kill", "--only", name]).await
    }

    /// Removes everything that a stopped process kept.
    pub async fn wipe(&self, name: &str) -> Result<(), Failure> {
        let data = self.directory.join(name).join("data");
        let doing = format!("remove {}", data.display());
        in_background(move || std::fs::remove_dir_all(data).map_err(Failure::at(doing))).await
    }

    async fn run(&self, arguments: &[&str]) -> Result<(), Failure> {
        let mut command = Command::new(&self.program);
        command.arg("onebox").args(arguments).arg("--dir").arg(&self.directory).stdin(Stdio::null());
        in_background(move || finish(command)).await
    }

    /// Where it lies.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

async fn in_background(work: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Result<(), Failure> {
    tokio::task::spawn_blocking(work).await.map_err(Failure::at("work in the background"))?
}

fn finish(mut command: Command) -> Result<(), Failure> {
    let said = format!("{command:?}");
    let output = command.output().map_err(Failure::at(&said))?;
    if output.status.success() {
        return Ok(());
    }
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Err(Failure::new(format!("{said}: {}: {}{}", output.status, out.trim(), err.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_without_a_onebox_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let options = ServerOptions { server_pids: vec![], onebox: Some(directory.path().to_owned()) };
        let failure = Onebox::find(&options).unwrap_err().to_string();
        assert!(failure.contains("is no onebox"), "{failure}");
        std::fs::write(directory.path().join("onebox.toml"), "").unwrap();
        assert_eq!(Onebox::find(&options).unwrap().directory(), directory.path());
    }

    #[tokio::test]
    async fn a_program_that_fails_is_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let onebox = Onebox { directory: directory.path().to_owned(), program: "/bin/false".into() };
        let failure = onebox.start("replica1").await.unwrap_err().to_string();
        assert!(failure.contains("onebox") && failure.contains("exit status: 1"), "{failure}");
        assert!(onebox.wipe("replica1").await.is_err());
        std::fs::create_dir_all(directory.path().join("replica1/data/deep")).unwrap();
        onebox.wipe("replica1").await.unwrap();
        assert!(!directory.path().join("replica1/data").exists());
    }
}
