//! Which CPUs the computer offers to this process, and pinning a thread to one.
//!
//! The affinity mask decides, not what is online: a process in a container, or one that was started
//! by `taskset`, uses what it was given. Ids are the kernel's own.

use std::io;

use smpcall::CpuMask as AnyMask;

use crate::CpuMask;

/// The kernel's own numbers of the CPUs that this process may use.
///
/// ```
/// let host = smpcall_hosted::HostCpus::allowed()?;
/// assert!(!host.mask().is_empty());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct HostCpus {
    mask: CpuMask,
}

/// A mask as large as the kernel's affinity calls may want: 4,096 CPUs.
type Kernel = [u64; 64];

impl HostCpus {
    /// What the calling thread's affinity mask allows.
    ///
    /// # Errors
    /// What the kernel answered.
    pub fn allowed() -> io::Result<Self> {
        let mut words: Kernel = [0; 64];
        // SAFETY: the kernel writes at most the given size to the array.
        let got =
            unsafe { libc::sched_getaffinity(0, size_of::<Kernel>(), words.as_mut_ptr().cast()) };
        if got != 0 {
            return Err(io::Error::last_os_error());
        }
        let mask = AnyMask::<64>::from_words(words).iter().collect();
        Ok(Self { mask })
    }

    /// The CPUs as a mask; ids beyond the capacity are left out.
    pub fn mask(&self) -> &CpuMask {
        &self.mask
    }
}

/// Pins the calling thread to a CPU of the computer.
pub(crate) fn pin_to(host_cpu: u32) -> io::Result<()> {
    let mut words: Kernel = [0; 64];
    let index = host_cpu as usize;
    *words
        .get_mut(index / 64)
        .ok_or(io::ErrorKind::InvalidInput)? |= 1 << (index % 64);
    // SAFETY: the kernel reads at most the given size from the array.
    match unsafe { libc::sched_setaffinity(0, size_of::<Kernel>(), words.as_ptr().cast()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The CPU of the computer that the calling thread is running on, as the kernel says.
#[doc(alias = "sched_getcpu")]
pub fn host_cpu() -> u32 {
    rustix::thread::sched_getcpu() as u32
}
