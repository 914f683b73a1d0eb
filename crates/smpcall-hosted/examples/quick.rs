//! quick look
use smpcall_hosted::{CpuId, Machine};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;
#[repr(align(128))]
struct Line(AtomicU64);
static A: Line = Line(AtomicU64::new(0));
static B: Line = Line(AtomicU64::new(0));
fn pingpong(n: u64, one: bool) -> f64 {
    A.0.store(0, Ordering::Relaxed);
    B.0.store(0, Ordering::Relaxed);
    let t = std::thread::spawn(move || {
        pin(1);
        let back = if one { &A.0 } else { &B.0 };
        for i in 0..n {
            let want = if one { 2 * i + 1 } else { i + 1 };
            while A.0.load(Ordering::Acquire) != want {}
            back.store(want + one as u64, Ordering::Release);
        }
    });
    pin(0);
    let back = if one { &A.0 } else { &B.0 };
    std::thread::sleep(std::time::Duration::from_millis(1));
    let s = Instant::now();
    for i in 0..n {
        let want = if one { 2 * i + 1 } else { i + 1 };
        A.0.store(want, Ordering::Release);
        while back.load(Ordering::Acquire) != want + one as u64 {}
    }
    let e = s.elapsed().as_nanos() as f64 / n as f64;
    t.join().unwrap();
    e
}
fn pin(cpu: u32) {
    let mut w = [0u64; 16];
    w[0] = 1 << cpu;
    unsafe { libc::sched_setaffinity(0, 128, w.as_ptr().cast()) };
}
fn main() {
    let m = Machine::builder().boot().unwrap();
    let m = std::sync::Arc::new(m);
    let m2 = m.clone();
    let n = 200_000u64;
    for _ in 0..5 {
        let one = pingpong(n, true);
        let two = pingpong(n, false);
        let m3 = m2.clone();
        let ours = m2
            .spawn_on(CpuId::new(0), move || {
                let mut x = 0u64;
                for i in 0..1000u64 { x += m3.call(CpuId::new(1), move || i + 1).unwrap(); }
                let s = Instant::now();
                for i in 0..n {
                    x += m3.call(CpuId::new(1), move || i + 1).unwrap();
                }
                std::hint::black_box(x);
                s.elapsed().as_nanos() as f64 / n as f64
            })
            .unwrap()
            .join()
            .unwrap();
        let m3 = m2.clone();
        let bc = m2.spawn_on(CpuId::new(0), move || {
                let s = Instant::now();
                for _ in 0..n { m3.on_each_cpu(|c| {std::hint::black_box(c);}).unwrap(); }
                s.elapsed().as_nanos() as f64 / n as f64
            }).unwrap().join().unwrap();
        let m3 = m2.clone();
        let post = m2.spawn_on(CpuId::new(0), move || {
                let s = Instant::now();
                for i in 0..n { m3.post_wait(CpuId::new(1), move || {std::hint::black_box((i,i,i));}).unwrap(); }
                m3.flush(CpuId::new(1)).unwrap();
                s.elapsed().as_nanos() as f64 / n as f64
            }).unwrap().join().unwrap();
        let s = Instant::now();
        for i in 0..20000u64 { m.call(CpuId::new(1), move || i + 1).unwrap(); }
        let foreign = s.elapsed().as_nanos() as f64 / 20000.;
        println!("one {one:.1} two {two:.1} call {ours:.1} ratio {:.2} each {bc:.1} post {post:.1} foreign {foreign:.1}", ours / one);
    }
}
