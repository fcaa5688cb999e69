//! How far a transfer is, on standard error: a bar on a terminal, a line a second elsewhere if asked for.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows the progress of one transfer.
pub struct Progress {
    kind: Kind,
    verb: &'static str,
    begun: Instant,
    noted: Option<Instant>,
}

enum Kind {
    Hidden,
    Lines { shown: Instant },
    Bar(ProgressBar),
}

/// Between two lines, and between two notes.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

impl Progress {
    /// A bar if standard error is a terminal, lines if `always`, else nothing. `total` is the length of the input in
    /// bytes, if known.
    pub fn start(verb: &'static str, total: Option<u64>, always: bool) -> Progress {
        let begun = Instant::now();
        let kind = if stderr().is_terminal() {
            Kind::Bar(bar(total))
        } else if always {
            Kind::Lines { shown: begun }
        } else {
            Kind::Hidden
        };
        Progress { kind, verb, begun, noted: None }
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Shows the state. `rows` were moved since the start; `bytes` is the place in the input or output.
    pub fn update(&mut self, rows: u64, bytes: u64) {
        let text = || format!("{} {rows} rows, {:.0} rows/s", self.verb, per_second(rows, self.begun.elapsed()));
        match &mut self.kind {
            Kind::Hidden => {}
            Kind::Lines { shown } => {
                if shown.elapsed() >= LINE_INTERVAL {
                    eprintln!("{}", text());
                    *shown = Instant::now();
                }
            }
            Kind::Bar(bar) => {
                bar.set_position(bytes);
                bar.set_message(text());
            }
        }
    }

    /// Says something that happened, at most once a second.
    pub fn note(&mut self, text: &str) {
        if self.noted.is_some_and(|noted| noted.elapsed() < LINE_INTERVAL) {
            return;
        }
        self.noted = Some(Instant::now());
        match &self.kind {
            Kind::Bar(bar) => bar.println(text),
            Kind::Hidden | Kind::Lines { .. } => eprintln!("{text}"),
        }
    }

    /// Takes the bar away.
    pub fn finish(&mut self) {
        if let Kind::Bar(bar) = &self.kind {
            bar.finish_and_clear();
        }
        self.kind = Kind::Hidden;
    }
}

/// Rows per second; 0 for no time at all.
pub fn per_second(rows: u64, elapsed: Duration) -> f64 {
    let seconds = elapsed.as_secs_f64();
    if seconds > 0.0 { rows as f64 / seconds } else { 0.0 }
}

fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{bar:30} {bytes}/{total_bytes} {eta} {msg}"),
        None => (ProgressBar::no_length(), "{spinner} {bytes} {msg}"),
    };
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(5));
    bar.with_style(ProgressStyle::with_template(template).expect("the template is a constant"))
}
