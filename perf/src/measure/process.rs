//! Reading `/proc`: CPU time and names of processes and their threads.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::failure::Failure;

/// One line of `/proc/<pid>/stat` or `/proc/<pid>/task/<tid>/stat`, as far as it is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The name, without its parentheses; at most 15 bytes.
    pub name: String,
    /// Ticks in user mode and in the kernel, together.
    pub ticks: u64,
}

/// Parses a stat line. The name may itself hold spaces and parentheses, so the fields are counted from the last
/// closing one.
pub fn parse_stat(line: &str) -> Option<Stat> {
    let (open, close) = (line.find('(')?, line.rfind(')')?);
    let name = line.get(open + 1..close)?.to_owned();
    let mut fields = line.get(close + 1..)?.split_ascii_whitespace().skip(FIELDS_BEFORE_USER_TIME);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Stat { name, ticks: user.checked_add(system)? })
}

/// The stat of a process, ended threads included; `None` if it has ended.
pub fn process_stat(pid: u32) -> Result<Option<Stat>, Failure> {
    read_stat(Path::new(&format!("/proc/{pid}/stat")))
}

/// Memory of a process that is in use now; 0 if it has ended.
pub fn resident_bytes(pid: u32) -> Result<u64, Failure> {
    let path = format!("/proc/{pid}/status");
    match fs::read_to_string(&path) {
        Ok(status) => Ok(parse_resident_bytes(&status).unwrap_or(0)),
        Err(error) if has_ended(&error) => Ok(0),
        Err(error) => Err(Failure::at(format!("read {path}"))(error)),
    }
}

fn parse_resident_bytes(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// Number and stat of each living thread of a process; empty if it has ended. A thread that ends meanwhile is
/// left out.
pub fn thread_stats(pid: u32) -> Result<Vec<(u32, Stat)>, Failure> {
    let directory = format!("/proc/{pid}/task");
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if has_ended(&error) => return Ok(Vec::new()),
        Err(error) => return Err(Failure::at(format!("read {directory}"))(error)),
    };
    let mut threads = Vec::new();
    for entry in entries.flatten() {
        let Some(thread) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(stat) = read_stat(&entry.path().join("stat"))? {
            threads.push((thread, stat));
        }
    }
    threads.sort_by_key(|(thread, _)| *thread);
    Ok(threads)
}

/// The group a thread belongs to: its name with the digits at the end replaced by `*`.
pub fn thread_group(name: &str) -> String {
    let stem = name.trim_end_matches(|character: char| character.is_ascii_digit());
    if stem.len() == name.len() { name.to_owned() } else { format!("{stem}*") }
}

/// How long a number of ticks is.
pub fn ticks_to_time(ticks: u64) -> Duration {
    // SAFETY: `sysconf` takes a plain number and has no effect.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let per_second = u64::try_from(per_second).ok().filter(|ticks| *ticks > 0).unwrap_or(TICKS_PER_SECOND_USUAL);
    Duration::from_nanos(ticks.saturating_mul(1_000_000_000 / per_second))
}

fn read_stat(path: &Path) -> Result<Option<Stat>, Failure> {
    match fs::read_to_string(path) {
        Ok(line) => match parse_stat(&line) {
            Some(stat) => Ok(Some(stat)),
            None => Err(Failure::new(format!("{} has an unknown form: {line:?}", path.display()))),
        },
        Err(error) if has_ended(&error) => Ok(None),
        Err(error) => Err(Failure::at(format!("read {}", path.display()))(error)),
    }
}

/// Whether an error from `/proc` means that the process or thread is gone.
fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// State, parent, group, session, terminal, its group, flags and four fault counters stand between the name and
/// the user time.
const FIELDS_BEFORE_USER_TIME: usize = 11;
const TICKS_PER_SECOND_USUAL: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_in_use_is_read() {
        assert_eq!(parse_resident_bytes("Name:\tx\nVmRSS:\t   2048 kB\nThreads:\t1\n"), Some(2 << 20));
        assert_eq!(parse_resident_bytes("Name:\tx\n"), None);
        assert!(resident_bytes(std::process::id()).unwrap() > 1 << 20);
        assert_eq!(resident_bytes(u32::MAX), Ok(0));
    }

    #[test]
    fn a_stat_line_with_an_awkward_name() {
        let line = "812 (a (b) c) S 1 812 812 0 -1 4194560 2233 0 7 0 1234 66 3 4 20 0 9 0 5000 123 456 789\n";
        assert_eq!(parse_stat(line), Some(Stat { name: "a (b) c".to_owned(), ticks: 1300 }));
    }

    #[test]
    fn malformed_stat_lines_are_refused() {
        let lines = ["", "1", "1 (x", "1 (x)", "1 (x) S 1 2 3", ")1( S 1", "1 (x) S 1 2 3 4 5 6 7 8 9 10 a b"];
        for line in lines {
            assert_eq!(parse_stat(line), None, "{line:?}");
        }
        let overflow = format!("1 (x) S 1 2 3 4 5 6 7 8 9 10 {} {}", u64::MAX, u64::MAX);
        assert_eq!(parse_stat(&overflow), None);
    }

    #[test]
    fn this_process_and_its_threads_are_found() {
        let pid = std::process::id();
        assert!(process_stat(pid).unwrap().is_some());
        let threads = thread_stats(pid).unwrap();
        assert!(threads.iter().any(|(thread, _)| *thread == pid), "{threads:?}");
    }

    #[test]
    fn a_process_that_is_not_there_has_nothing() {
        assert_eq!(process_stat(u32::MAX).unwrap(), None);
        assert_eq!(thread_stats(u32::MAX).unwrap(), Vec::new());
    }

    #[test]
    fn groups_and_ticks() {
        assert_eq!(thread_group("core-12"), "core-*");
        assert_eq!(thread_group("rocksdb:low0"), "rocksdb:low*");
        assert_eq!(thread_group("admin"), "admin");
        assert_eq!(thread_group(""), "");
        assert_eq!(ticks_to_time(0), Duration::ZERO);
        assert!(ticks_to_time(1000) >= Duration::from_millis(1));
    }
}
