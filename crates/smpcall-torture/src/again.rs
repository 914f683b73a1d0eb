//! A descriptor whose own function posts it again.
//!
//! The function's type holds what it captures, so it cannot hold the descriptor that holds it. The
//! address goes by way of a word that both know, together with the function that knows its type.

use core::pin::Pin;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use smpcall::{CallError, CpuId, Csd, Platform, Smp};

/// Posts the descriptor at an address.
type Post<P, const W: usize, const D: usize> =
    unsafe fn(&Smp<P, W, D>, CpuId, *const ()) -> Result<(), CallError>;

/// Where a descriptor is, and how to post it.
#[derive(Debug)]
pub(crate) struct Again {
    csd: AtomicPtr<()>,
    post: AtomicPtr<()>,
}

impl Again {
    /// Knows no descriptor.
    pub(crate) const fn new() -> Self {
        Self {
            csd: AtomicPtr::new(ptr::null_mut()),
            post: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Keeps a descriptor, to be posted on an instance of this type.
    pub(crate) fn arm<P, F, const W: usize, const D: usize>(
        &self,
        _: &Smp<P, W, D>,
        csd: Pin<&Csd<F>>,
    ) where
        P: Platform,
        F: Fn() + Copy + Send + 'static,
    {
        let address = ptr::from_ref(csd.get_ref()).cast_mut().cast();
        let post: Post<P, W, D> = post_at::<P, F, W, D>;
        // ORDERING: Relaxed — the descriptor is posted after this, which orders it before its runs.
        self.csd.store(address, Ordering::Relaxed);
        self.post.store(post as *mut (), Ordering::Relaxed);
    }

    /// Posts the descriptor.
    ///
    /// # Errors
    /// As [`Smp::post_csd`].
    ///
    /// # Safety
    /// 1. [`Self::arm`] was called with an instance of this type.
    /// 2. The descriptor lives until it is free after the last post.
    pub(crate) unsafe fn post<P: Platform, const W: usize, const D: usize>(
        &self,
        smp: &Smp<P, W, D>,
        cpu: CpuId,
    ) -> Result<(), CallError> {
        // ORDERING: Relaxed — as `arm`.
        let csd = self.csd.load(Ordering::Relaxed);
        let post = self.post.load(Ordering::Relaxed);
        // SAFETY: 1 — `arm` stored a function of this type.
        let post = unsafe { core::mem::transmute::<*mut (), Post<P, W, D>>(post) };
        // SAFETY: 2 — stored together with its function.
        unsafe { post(smp, cpu, csd) }
    }
}

/// Posts the descriptor at this address.
///
/// # Safety
/// 1. A pinned `Csd<F>` is there, and lives until it is free after this post.
unsafe fn post_at<P, F, const W: usize, const D: usize>(
    smp: &Smp<P, W, D>,
    cpu: CpuId,
    csd: *const (),
) -> Result<(), CallError>
where
    P: Platform,
    F: Fn() + Copy + Send + 'static,
{
    // SAFETY: 1.
    let csd = unsafe { &*csd.cast::<Csd<F>>() };
    // SAFETY: 1 — pinned.
    smp.post_csd(cpu, unsafe { Pin::new_unchecked(csd) })
}
