//! The machine a figure was measured on. Figures without it say nothing.

use std::fmt;
use std::fs;
use std::thread;

use serde::Serialize;

/// What of a machine decides its figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// CPUs this process may use.
    pub cpus: usize,
    /// The CPU's name.
    pub cpu_model: String,
    /// The kernel's release.
    pub kernel: String,
    /// Mean number of running threads in the last minute: above zero before a measurement, something else is
    /// running too.
    pub load: f64,
}

impl Machine {
    /// This machine now. What cannot be found out is "unknown".
    pub fn now() -> Machine {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let load = read("/proc/loadavg").split_ascii_whitespace().next().and_then(|load| load.parse().ok());
        Machine {
            cpus: thread::available_parallelism().map_or(1, usize::from),
            cpu_model: cpu_model(&read("/proc/cpuinfo")).unwrap_or("unknown").to_owned(),
            kernel: known(read("/proc/sys/kernel/osrelease").trim()).to_owned(),
            load: load.unwrap_or(0.0),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpus, cpu_model, kernel, load } = self;
        write!(out, "{cpus} CPUs ({cpu_model}), Linux {kernel}, load before {load:.2}")
    }
}

fn cpu_model(cpuinfo: &str) -> Option<&str> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    line.split_once(':').map(|(_, model)| model.trim())
}

fn known(text: &str) -> &str {
    if text.is_empty() { "unknown" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found() {
        assert_eq!(cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n"), Some("Some CPU @ 2 GHz"));
        assert_eq!(cpu_model(""), None);
    }

    #[test]
    fn this_machine_has_cpus_and_a_kernel() {
        let machine = Machine::now();
        assert!(machine.cpus > 0 && !machine.kernel.is_empty());
        assert!(machine.to_string().contains("CPUs"));
    }
}
