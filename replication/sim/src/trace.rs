//! The event log of a run: one line for each thing that happened, kept only when somebody will read it.

use pegasus_replication::{Effect, Event};

/// Lines, or nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    lines: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(on: bool) -> Trace {
        Trace { lines: on.then(Vec::new) }
    }

    pub(crate) fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }

    /// Something that concerns no single replica.
    pub(crate) fn note(&mut self, now: u64, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>12} ----- {}", micros(now), text()));
        }
    }

    pub(crate) fn event(&mut self, now: u64, node: usize, partition: usize, event: &Event) {
        if let Some(lines) = &mut self.lines
            && !matches!(event, Event::Tick)
        {
            lines.push(format!("{:>12} n{} p{partition} <- {}", micros(now), node + 1, event));
        }
    }

    pub(crate) fn effects(&mut self, now: u64, node: usize, partition: usize, effects: &[Effect]) {
        if let Some(lines) = &mut self.lines {
            for effect in effects {
                lines.push(format!("{:>12} n{} p{partition}    -> {}", micros(now), node + 1, effect));
            }
        }
    }
}

fn micros(now: u64) -> String {
    format!("{}.{:06}", now / 1_000_000, now % 1_000_000)
}
