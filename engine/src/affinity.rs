//! Which CPUs a thread may run on, and how it shares them.
//!
//! Serving cores are pinned by their executors. Everything that may block (pools, RocksDB's threads) is kept off
//! those CPUs where the machine has others to spare. Where it has none, what nobody waits for (flushes, compactions,
//! checkpoints) gives way to what somebody does. This module only sets and reads masks and priorities; it must never
//! decide the placement, which is the server's business.

use std::io;
use std::mem;

/// Where a thread may run, and how it shares the CPUs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Its CPUs; `None` leaves it where it is.
    pub cpus: Option<Vec<usize>>,
    /// What it leaves to others at least, see [`be_nice`]; 0 leaves it as it is.
    pub niceness: i32,
}

impl Placement {
    /// Puts the calling thread there, and the threads it will start.
    pub fn take(&self) -> io::Result<()> {
        if let Some(cpus) = &self.cpus {
            restrict_current_thread(cpus)?;
        }
        // A process that was started nicer stays so: to be less nice needs rights.
        if self.niceness > current_niceness() { be_nice(self.niceness) } else { Ok(()) }
    }
}

/// Most CPUs a mask can name (the width of the C library's fixed set).
pub const CPUS_MAX: usize = libc::CPU_SETSIZE as usize;

/// Restricts the calling thread, and the threads it will start, to these CPUs.
///
/// Fails if the list is empty, names a CPU above [`CPUS_MAX`], or has no CPU that this process may use.
pub fn restrict_current_thread(cpus: &[usize]) -> io::Result<()> {
    if cpus.is_empty() || cpus.iter().any(|&cpu| cpu >= CPUS_MAX) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("a CPU list names 1 to {CPUS_MAX} CPUs below {CPUS_MAX}; got {cpus:?}"),
        ));
    }
    let mut set = empty_set();
    for &cpu in cpus {
        // SAFETY: `set` is a valid set and `cpu` is below its width, checked above.
        unsafe { libc::CPU_SET(cpu, &mut set) };
    }
    // SAFETY: 0 means the calling thread; the pointer is to a set of the stated size that lives over the call.
    let result = unsafe { libc::sched_setaffinity(0, mem::size_of::<libc::cpu_set_t>(), &set) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The CPUs the calling thread may run on, ascending.
pub fn current_thread_cpus() -> io::Result<Vec<usize>> {
    let mut set = empty_set();
    // SAFETY: 0 means the calling thread; the pointer is to a set of the stated size that lives over the call.
    let result = unsafe { libc::sched_getaffinity(0, mem::size_of::<libc::cpu_set_t>(), &mut set) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `set` was filled by the call above and every index asked for is below its width.
    Ok((0..CPUS_MAX).filter(|&cpu| unsafe { libc::CPU_ISSET(cpu, &set) }).collect())
}

/// Makes the calling thread, and the threads it will start, give way to others: each step of niceness (0 to 19) leaves
/// it about a fifth less than an ordinary thread gets where CPUs are short. It cannot be taken back without rights.
pub fn be_nice(niceness: i32) -> io::Result<()> {
    // SAFETY: the call touches no memory; 0 means the calling thread, since Linux keeps the value per thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, niceness) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The niceness of the calling thread.
pub fn current_niceness() -> i32 {
    // SAFETY: the call touches no memory; 0 means the calling thread. It cannot fail for that one.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Niceness of what nobody waits for: next to busy serving cores it gets a tenth of a CPU, on an idle one all of it.
pub const BACKGROUND_NICENESS: i32 = 10;

fn empty_set() -> libc::cpu_set_t {
    // SAFETY: the set is a plain array of integers, for which all zeros is the empty set.
    unsafe { mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restricted_thread_and_its_children_stay_on_their_cpu() {
        let all = current_thread_cpus().unwrap();
        let last = *all.last().unwrap();
        std::thread::spawn(move || {
            restrict_current_thread(&[last]).unwrap();
            assert_eq!(current_thread_cpus().unwrap(), [last]);
            let child = std::thread::spawn(|| current_thread_cpus().unwrap());
            assert_eq!(child.join().unwrap(), [last]);
        })
        .join()
        .unwrap();
        assert_eq!(current_thread_cpus().unwrap(), all, "the caller was not touched");
    }

    #[test]
    fn a_nice_thread_has_nice_children() {
        let ours = current_niceness();
        let nicer = (ours + 3).min(19);
        let theirs = std::thread::spawn(move || {
            Placement { cpus: None, niceness: nicer }.take().unwrap();
            (current_niceness(), std::thread::spawn(current_niceness).join().unwrap())
        });
        assert_eq!(theirs.join().unwrap(), (nicer, nicer));
        let nicest = std::thread::spawn(|| {
            be_nice(19).unwrap();
            Placement { cpus: None, niceness: 3 }.take().unwrap();
            current_niceness()
        });
        assert_eq!(nicest.join().unwrap(), 19, "it gives nothing back");
        assert_eq!(current_niceness(), ours, "the caller was not touched");
    }

    #[test]
    fn impossible_lists_are_refused() {
        assert!(restrict_current_thread(&[]).is_err());
        assert!(restrict_current_thread(&[CPUS_MAX]).is_err());
    }
}
