/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Run a function on another CPU: the calls of Linux's kernel/smp.c, as a library.
 *
 * The names and prototypes are those of Linux 3.9, so that code written against <linux/smp.h>
 * compiles with this file in its place. Where the original returns void, a function smpcall_*
 * beside it does the same and returns 0 or a negative errno; the void one names a refusal on
 * standard error (or the platform's report), never silently.
 *
 * A called function runs on its target with interrupts off, in handler context: it is short, does
 * not block, does not wait for another CPU, and leaves by returning (no longjmp, no exception). In
 * a hosted program a CPU is a thread (smpcall_boot), and takes calls while it idles, while it waits,
 * and at smpcall_poll(). All functions here may be called by any thread at any time, by a
 * called function too, unless they say otherwise.
 *
 * What is refused, and how:
 *   -EINVAL   a null function, mask or descriptor; an argument out of range
 *   -ENXIO    the CPU is not online (or no CPU of the mask is); before smpcall_boot none is
 *   -EDEADLK  the call would wait inside a called function or with interrupts off, or for itself
 *   -EBUSY    the descriptor is still queued; or the target's queue is full where no wait is allowed
 *
 * Beside this file: smpcall/cpumask.h (sets of CPUs), smpcall/kernel.h (what callers use of
 * the rest of the kernel), smpcall/platform.h (a C kernel's side: the table of callbacks).
 * The guide is docs/c.md.
 */
#ifndef SMPCALL_H
#define SMPCALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "smpcall/cpumask.h"
#include "smpcall/kernel.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A function that runs on another CPU. */
typedef void (*smp_call_func_t)(void *info);

enum {
	CSD_FLAG_LOCK = 0x01, /* queued: the library has the descriptor */
	CSD_FLAG_WAIT = 0x02 /* never set here: waiting is the kind of call, not a mark */
};

/*
 * A call that its caller owns, so that queueing it needs no room elsewhere.
 *
 * The caller sets func and info, and flags to 0 once; the rest is the library's and need not be
 * initialised. While it is queued (flags has CSD_FLAG_LOCK) nobody else may touch, move or free it.
 * It is free again just before func runs, so func may queue it again, or free what it is part of. A
 * descriptor on the stack is for calls that wait.
 */
struct call_single_data {
	smp_call_func_t func;
	void *info;
	unsigned int flags;
	void *priv[7];
};

typedef struct call_single_data call_single_data_t;

/* Initialises a descriptor: CSD_INIT as an initialiser, INIT_CSD as a statement. */
#define CSD_INIT(_func, _info) { (_func), (_info), 0, { NULL, NULL, NULL, NULL, NULL, NULL, NULL } }
#define INIT_CSD(_csd, _func, _info)                                                              \
	do {                                                                                      \
		(_csd)->func = (_func);                                                           \
		(_csd)->info = (_info);                                                           \
		(_csd)->flags = 0;                                                                \
	} while (0)

/* ---- One CPU ------------------------------------------------------------------------------ */

/*
 * Runs func(info) on a CPU. With wait, it has run when this returns, and what it wrote is visible.
 * Without, it will run soon; if the target's queue is full, this waits for room where waiting is
 * allowed and is -EBUSY elsewhere. On the calling CPU it runs at once, in any context.
 */
int smp_call_function_single(int cpu, smp_call_func_t func, void *info, int wait);

/*
 * The same on one CPU of the mask: this one if it is in it, else the nearest by memory node, else any
 * that is online.
 */
int smp_call_function_any(const struct cpumask *mask, smp_call_func_t func, void *info, int wait);

/*
 * Runs a descriptor's function on a CPU. A descriptor that is still queued is waited for first, as
 * in the original; where waiting is not allowed that is a refusal. On the calling CPU the
 * function runs at once and the descriptor is not used.
 */
void __smp_call_function_single(int cpu, struct call_single_data *csd, int wait);

/* The same with an answer. Without wait it never blocks: -EBUSY if the descriptor is queued. */
int smpcall_function_single_csd(int cpu, struct call_single_data *csd, int wait);

/*
 * The later name of the form that does not wait. Never blocks. A function that queues its own
 * descriptor on its own CPU is called at once, inside itself.
 */
int smp_call_function_single_async(int cpu, struct call_single_data *csd);

/*
 * Runs func(par) in the ordinary context of a CPU, where it may sleep and wait, and returns its
 * result. It runs when the CPU comes to its idle loop. phys is ignored: a CPU here is pinned.
 */
int smp_call_on_cpu(unsigned int cpu, int (*func)(void *par), void *par, bool phys);

/* ---- Many CPUs ---------------------------------------------------------------------------- */

/* Runs func on the online CPUs of the mask, except the calling one. */
void smp_call_function_many(const struct cpumask *mask, smp_call_func_t func, void *info, bool wait);
int smpcall_function_many(const struct cpumask *mask, smp_call_func_t func, void *info, bool wait);

/* Runs func on all other online CPUs. */
int smp_call_function(smp_call_func_t func, void *info, int wait);

/* Runs func on all online CPUs. The local run overlaps the remote ones. */
int on_each_cpu(void (*func)(void *info), void *info, int wait);

/* Runs func on the online CPUs of the mask, the calling one included if it is in it. */
void on_each_cpu_mask(const struct cpumask *mask, smp_call_func_t func, void *info, bool wait);
int smpcall_on_each_cpu_mask(const struct cpumask *mask, smp_call_func_t func, void *info,
			     bool wait);

/*
 * Runs func on the online CPUs for which cond_func(cpu, info) is true. cond_func runs here, once for
 * each online CPU, before anything is queued. Nothing is allocated: gfp_flags are ignored.
 */
void on_each_cpu_cond(bool (*cond_func)(int cpu, void *info), smp_call_func_t func, void *info,
		      bool wait, gfp_t gfp_flags);
int smpcall_on_each_cpu_cond(bool (*cond_func)(int cpu, void *info), smp_call_func_t func,
			     void *info, bool wait, gfp_t gfp_flags);

/*
 * Returns when every other online CPU has run a handler outside any region with interrupts off.
 * What this CPU stored before is visible there then.
 */
void kick_all_cpus_sync(void);
int smpcall_kick_all_cpus_sync(void);

/* ---- CPUs --------------------------------------------------------------------------------- */

/*
 * The CPU that executes. -1 on a thread that is no CPU: the plain name also says so on standard
 * error, once; the others are for asking.
 */
int smp_processor_id(void);
int smpcall_processor_id(void);
#define raw_smp_processor_id() smpcall_processor_id()

/* How many CPUs are online now. */
unsigned int num_online_cpus(void);

/*
 * Starts an offline CPU; takes one down after it ran what it had accepted. They wait, so neither
 * a called function nor a CPU with interrupts off may call them; a CPU cannot take itself down.
 * -EINVAL: no such CPU, or it is so already; -EBUSY: the last one; -ETIMEDOUT: it did not answer.
 */
int cpu_up(unsigned int cpu);
int cpu_down(unsigned int cpu);

/*
 * What is done when a CPU comes and goes, the first one's boot left out. Each may be null, and none
 * may call cpu_up() or cpu_down().
 *   prepare   before it starts, on the CPU that brings it up; not 0 refuses: a negative errno that
 *             cpu_up() answers, after what had been prepared was undone
 *   starting  on the new CPU, interrupts off, before it takes calls
 *   dying     on the leaving CPU, interrupts off, while it still takes calls
 *   dead      after it is gone, or did not come: in the reverse order, for what prepare set up
 */
struct smpcall_cpu_callbacks {
	int (*prepare)(unsigned int cpu);
	void (*starting)(unsigned int cpu);
	void (*dying)(unsigned int cpu);
	void (*dead)(unsigned int cpu);
};

/* For CPUs that come and go from now on, for ever: the struct stays as it is. -ENOSPC: 16 are. */
int smpcall_register_cpu_callbacks(const struct smpcall_cpu_callbacks *callbacks);

/* Ids are below this: NR_CPUS before boot, then one more than the highest possible one. */
extern int nr_cpu_ids;

/* How many CPUs smp_init() and smpcall_boot() bring up, the boot CPU included. Set it before. */
extern unsigned int setup_max_cpus;

/*
 * Reads nosmp, maxcpus=N and nr_cpus=N from a command line; other words are passed over, and what
 * is not named is without limit. For before boot. -EINVAL, and a line that names it, for a value
 * that is not understood; nothing is changed then.
 */
int smpcall_early_param(const char *cmdline);

/* Brings up the CPUs that are present, as far as setup_max_cpus says, and reports how many there are. */
void smp_init(void);

/* Sets nr_cpu_ids from the possible CPUs. Booting does it; another call changes nothing. */
void setup_nr_cpu_ids(void);

/* Booting does what this did. Says so if nothing has been booted. */
void call_function_init(void);

/* What a platform's call-function interrupt calls, with interrupts off. Harmless without cause. */
void generic_smp_call_function_single_interrupt(void);

/* ---- Interrupts, and points where a busy CPU takes calls ----------------------------------- */

/*
 * Turns interrupts off on this CPU; returns what the other takes to restore them. In a hosted
 * program that is a flag of the thread: calls wait until it is back on.
 */
unsigned long smpcall_irq_save(void);
void smpcall_irq_restore(unsigned long flags);
bool smpcall_irqs_disabled(void);

/* Takes the calls that wait for this CPU; for loops that run long. True if there were any. */
bool smpcall_poll(void);

/* One turn of a waiting loop: takes calls, then relaxes the processor. cpu_relax() is this. */
void smpcall_relax(void);

/* ---- A hosted machine: Linux threads as CPUs ----------------------------------------------- */

#define SMPCALL_ALL_CPUS (-1)

/*
 * Starts CPUs 0 to nr_cpus - 1, or as many as this process may use (SMPCALL_ALL_CPUS): a thread
 * each, pinned. More than the computer has may be asked for, up to NR_CPUS. -EBUSY: it is booted,
 * or another thread boots it or shuts it down just now.
 */
int smpcall_boot(int nr_cpus);

/*
 * Runs fn(arg) in the ordinary context of a CPU, where it may run long, sleep and wait. The
 * functions of a CPU run in turn, and one that was accepted runs before its CPU leaves.
 */
int smpcall_spawn(int cpu, smp_call_func_t fn, void *arg);

/* Waits until every spawned function has returned. -EDEADLK on a CPU of the machine. */
int smpcall_join(void);

/*
 * Waits for spawned functions and for calls of other threads, then takes every CPU down after it
 * ran what it had accepted. Everything may be booted anew afterwards. -ENXIO: not booted;
 * -EDEADLK: called by a CPU of the machine, or inside another call of this library; -EBUSY: as
 * smpcall_boot().
 */
int smpcall_shutdown(void);

#ifdef __cplusplus
}
#endif

#endif /* SMPCALL_H */
