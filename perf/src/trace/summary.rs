//! Reads the lines of `strace -T` and sums them up by system call.
//!
//! With several threads traced, each line begins with the thread's number. A call that was interrupted by another
//! thread's line comes in two: the first ends in `<unfinished ...>`, the second begins `<... name resumed>`. Only
//! the second carries the time, so it alone is counted.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// One completed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The call's name.
    pub name: &'a str,
    /// The time spent in it.
    pub took: Duration,
}

/// Reads one line; `None` for lines that are no completed call (signals, exits, first halves, messages of strace
/// itself).
pub fn parse_line(line: &str) -> Option<Call<'_>> {
    let line = without_thread(line.trim_end());
    let (rest, time) = line.strip_suffix('>')?.rsplit_once('<')?;
    let took = Duration::try_from_secs_f64(time.parse().ok()?).ok()?;
    let name = match rest.strip_prefix("<... ") {
        Some(resumed) => resumed.split_once(" resumed")?.0,
        None => rest.split_once('(')?.0,
    };
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    is_name.then_some(Call { name, took })
}

/// Drops `[pid 123] ` or `123 ` from the front of a line.
fn without_thread(line: &str) -> &str {
    if let Some(rest) = line.strip_prefix("[pid ")
        && let Some((number, rest)) = rest.split_once("] ")
        && is_number(number.trim())
    {
        return rest;
    }
    match line.split_once(' ') {
        Some((number, rest)) if is_number(number) => rest.trim_start(),
        _ => line,
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// All calls of one name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CallSummary {
    /// How often it was called.
    pub count: u64,
    /// The longest one, in microseconds.
    pub longest_us: f64,
    /// All together, in microseconds.
    pub total_us: f64,
    /// Whether serving threads are meant to make this call.
    pub expected: bool,
    /// The first lines of an unexpected call, as strace wrote them.
    pub examples: Vec<String>,
}

/// Calls by name.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Summary {
    /// The calls.
    pub calls: BTreeMap<String, CallSummary>,
}

impl Summary {
    /// Counts a line if it is a completed call.
    pub fn add_line(&mut self, line: &str) {
        let Some(Call { name, took }) = parse_line(line) else { return };
        if !self.calls.contains_key(name) {
            let expected = EXPECTED.contains(&name);
            self.calls.insert(name.to_owned(), CallSummary { expected, ..CallSummary::default() });
        }
        let call = self.calls.get_mut(name).expect("inserted above if it was missing");
        let took_us = took.as_secs_f64() * 1e6;
        call.count += 1;
        call.total_us += took_us;
        call.longest_us = call.longest_us.max(took_us);
        if !call.expected && call.examples.len() < EXAMPLES_MAX {
            call.examples.push(line.trim().chars().take(EXAMPLE_CHARS_MAX).collect());
        }
    }

    /// Names and figures, the expected calls first, then by falling count.
    pub fn ordered(&self) -> Vec<(&str, &CallSummary)> {
        let mut calls: Vec<_> = self.calls.iter().map(|(name, call)| (name.as_str(), call)).collect();
        calls.sort_by_key(|(_, call)| (!call.expected, std::cmp::Reverse(call.count)));
        calls
    }

    /// Calls that serving threads are not meant to make.
    pub fn unexpected(&self) -> impl Iterator<Item = (&str, &CallSummary)> {
        self.ordered().into_iter().filter(|(_, call)| !call.expected)
    }
}

/// What serving threads are meant to call: io_uring, their UDP sockets, memory.
pub const EXPECTED: [&str; 13] = [
    "io_uring_enter",
    "sendto",
    "sendmsg",
    "sendmmsg",
    "recvfrom",
    "recvmsg",
    "recvmmsg",
    "mmap",
    "munmap",
    "mremap",
    "madvise",
    "mprotect",
    "brk",
];
/// Examples kept of each unexpected call.
const EXAMPLES_MAX: usize = 3;
/// Characters kept of each example.
const EXAMPLE_CHARS_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_every_form() {
        let call = |name, micros| Some(Call { name, took: Duration::from_micros(micros) });
        let cases = [
            ("io_uring_enter(5, 1, 0, 0, NULL, 8) = 1 <0.000017>", call("io_uring_enter", 17)),
            ("812 sendmsg(7, {msg_name=NULL}, 0) = 100 <0.000200>", call("sendmsg", 200)),
            ("812   sendmsg(7, {msg_name=NULL}, 0) = 100 <0.000200>", call("sendmsg", 200)),
            (
                "[pid   812] recvmmsg(7, [], 32, 0, NULL) = -1 EAGAIN (Resource unavailable) <0.000003>",
                call("recvmmsg", 3),
            ),
            ("[pid 812] <... futex resumed>) = 0 <1.500000>", call("futex", 1_500_000)),
            ("812 <... futex resumed>) = 0 <0.000001>", call("futex", 1)),
            ("write(1, \"a) = 1 <0.5>\", 12) = 12 <0.000002>", call("write", 2)),
            ("812 futex(0x7f, FUTEX_WAIT, 2, NULL <unfinished ...>", None),
            ("[pid 812] futex(0x7f, FUTEX_WAIT, 2, NULL <unfinished ...>", None),
            ("812 --- SIGSTOP {si_signo=SIGSTOP} ---", None),
            ("+++ exited with 0 +++", None),
            ("strace: Process 812 attached", None),
            ("write(1, \"x\", 1) = 1", None),
            ("write(1) = 1 <-0.5>", None),
            ("write(1) = 1 <NaN>", None),
            ("", None),
            ("812", None),
            (">", None),
        ];
        for (line, expected) in cases {
            assert_eq!(parse_line(line), expected, "{line}");
        }
    }

    #[test]
    fn sums_by_name_and_tells_the_unexpected() {
        let mut summary = Summary::default();
        for line in [
            "1 io_uring_enter(5) = 1 <0.000010>",
            "2 io_uring_enter(5) = 1 <0.000030>",
            "1 fdatasync(9) = 0 <0.004000>",
            "1 futex(1, FUTEX_WAIT <unfinished ...>",
            "1 <... futex resumed>) = 0 <0.000005>",
            "noise",
        ] {
            summary.add_line(line);
        }
        let enter = &summary.calls["io_uring_enter"];
        assert_eq!((enter.count, enter.longest_us.round(), enter.total_us.round()), (2, 30.0, 40.0));
        assert!(enter.expected && enter.examples.is_empty());
        let unexpected: Vec<_> = summary.unexpected().map(|(name, call)| (name, call.count)).collect();
        assert_eq!(unexpected, [("fdatasync", 1), ("futex", 1)]);
        assert_eq!(summary.calls["fdatasync"].examples, ["1 fdatasync(9) = 0 <0.004000>"]);
        assert_eq!(summary.ordered()[0].0, "io_uring_enter");
    }

    #[test]
    fn examples_are_bounded() {
        let mut summary = Summary::default();
        let long = format!("openat({}) = 3 <0.000001>", "x".repeat(1000));
        for _ in 0..10 {
            summary.add_line(&long);
        }
        let examples = &summary.calls["openat"].examples;
        assert_eq!(examples.len(), EXAMPLES_MAX);
        assert!(examples.iter().all(|example| example.len() <= EXAMPLE_CHARS_MAX));
    }
}
