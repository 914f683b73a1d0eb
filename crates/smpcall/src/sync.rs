//! Atomics, cells and fences: `core`'s, or loom's when a model is checked.
//!
//! This is the only file that names either, so nothing can slip past the model checker. `ord!`
//! and `full_fence!` give an ordering its edge in `docs/protocol.md` and the name of the mutant that
//! weakens it: `--cfg smpcall_mutant="NAME"` does, and so does `SMPCALL_MUTANT=NAME` in the
//! environment of a loom run, where one build serves all mutants. The edge's loom test must then
//! fail.

#[cfg(not(loom))]
mod imp {
    pub(crate) use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, fence};

    /// `core`'s cell behind loom's closure interface.
    #[derive(Debug)]
    #[repr(transparent)]
    pub(crate) struct UnsafeCell<T>(core::cell::UnsafeCell<T>);

    impl<T> UnsafeCell<T> {
        pub(crate) const fn new(value: T) -> Self {
            Self(core::cell::UnsafeCell::new(value))
        }

        /// Runs `f` on a pointer for reading; the caller keeps the aliasing rules.
        #[inline(always)]
        pub(crate) fn with<R>(&self, f: impl FnOnce(*const T) -> R) -> R {
            f(self.0.get())
        }

        /// Runs `f` on a pointer for writing; the caller keeps the aliasing rules.
        #[inline(always)]
        pub(crate) fn with_mut<R>(&self, f: impl FnOnce(*mut T) -> R) -> R {
            f(self.0.get())
        }
    }
}

#[cfg(loom)]
mod imp {
    pub(crate) use loom::cell::UnsafeCell;
    pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, fence};
}

pub(crate) use core::sync::atomic::Ordering;
pub(crate) use imp::{AtomicPtr, AtomicU32, AtomicU64, UnsafeCell, fence};

/// `const fn` where the atomics are `core`'s; loom's cannot be built in a constant.
macro_rules! loom_const_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),*) -> $ret:ty $body:block) => {
        #[cfg(not(loom))]
        $(#[$meta])* $vis const fn $name($($arg: $ty),*) -> $ret $body
        #[cfg(loom)]
        $(#[$meta])* $vis fn $name($($arg: $ty),*) -> $ret $body
    };
}

/// Is this mutant chosen in the environment? Never, outside the loom tests.
#[cfg(not(all(test, loom)))]
#[inline(always)]
pub(crate) const fn is_mutant(_name: &str) -> bool {
    false
}

/// Is this mutant chosen in the environment?
#[cfg(all(test, loom))]
pub(crate) fn is_mutant(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("SMPCALL_MUTANT").ok());
    chosen.as_deref() == Some(name)
}

/// Is this mutant chosen, by the cfg or in the environment?
macro_rules! mutant {
    ($mutant:tt) => {
        cfg!(smpcall_mutant = $mutant) || crate::sync::is_mutant($mutant)
    };
}

/// An ordering that a mutant weakens to `Relaxed`.
macro_rules! ord {
    ($mutant:tt, $strong:ident) => {
        if crate::sync::mutant!($mutant) {
            crate::sync::Ordering::Relaxed
        } else {
            crate::sync::Ordering::$strong
        }
    };
}

/// A sequentially consistent fence that a mutant leaves out.
macro_rules! full_fence {
    ($mutant:tt) => {
        if !crate::sync::mutant!($mutant) {
            crate::sync::fence(crate::sync::Ordering::SeqCst)
        }
    };
}

pub(crate) use {full_fence, loom_const_fn, mutant, ord};

/// The light side of a fence that [`Platform::fence_all`](crate::Platform::fence_all) makes on all
/// CPUs: it holds the compiler back, and costs nothing.
#[inline(always)]
pub(crate) fn light_fence() {
    #[cfg(not(all(test, loom)))]
    core::sync::atomic::compiler_fence(Ordering::SeqCst);
    // In a model the other side's fence arrives here.
    #[cfg(all(test, loom))]
    crate::testing::fence_point();
}

/// Keeps two hot words out of each other's cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct CacheLine<T>(pub(crate) T);

impl<T> core::ops::Deref for CacheLine<T> {
    type Target = T;
    #[inline(always)]
    fn deref(&self) -> &T {
        &self.0
    }
}
