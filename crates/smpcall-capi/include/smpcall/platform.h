/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A C kernel's side: what it gives the library, and what its boot code and idle loop call.
 *
 * For the library that is built for a bare-metal target (`cargo build -p smpcall-capi --target ...`);
 * the one for Linux has none of this. The order at boot, on CPU 0 with interrupts off:
 *
 *     smpcall_early_param(command_line);
 *     smpcall_init(&platform, &possible, &present);    CPU 0 is online, alone
 *     (turn interrupts on)
 *     smp_init();                                      the others come up
 *
 * A started CPU calls smpcall_online_this_cpu() with interrupts off, and then idles; the
 * call-function interrupt calls generic_smp_call_function_single_interrupt(). An idle loop:
 *
 *     for (;;) {                                       interrupts are off
 *             if (smpcall_has_tasks()) { (interrupts on) smpcall_run_tasks(); (off) }
 *             else if (smpcall_is_asked_to_leave()) {
 *                     (interrupts on)
 *                     if (smpcall_leave_if_asked())
 *                             (stop this CPU)
 *                     (off)
 *             } else
 *                     (sleep until an interrupt is pending, take it)
 *     }
 */
#ifndef SMPCALL_PLATFORM_H
#define SMPCALL_PLATFORM_H

#include "../smpcall.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * The callbacks. One that is marked optional may be null. None may call back into the library but
 * where it says so, and none may leave by longjmp. CPU 0 is the boot CPU; ids are logical.
 *
 * The library's memory safety rests on these promises: (1) current_cpu() names the CPU that
 * executes, and the caller stays on it until it returns from the library (between preempt_disable()
 * and preempt_enable(), if there is a scheduler); (2) between irqs_save() and irqs_restore() no
 * handler that enters the library runs on this CPU.
 */
struct smpcall_platform {
	/* The CPU that executes. Any context; called in every operation. */
	int (*current_cpu)(void);

	/* Turns interrupts off; answers whether they were on. Gives that state back. Asks for it. */
	bool (*irqs_save)(void);
	void (*irqs_restore)(bool were_on);
	bool (*irqs_enabled)(void);

	/*
	 * Interrupts a CPU. Any context; must not block. What was stored before must be visible to the
	 * handler: the barrier that the interrupt controller needs comes first.
	 */
	void (*send_ipi)(int cpu);
	/* Optional: the same for several, by multicast where the hardware has it. */
	void (*send_ipi_mask)(const struct cpumask *cpus);

	/* One turn of a wait: the processor's relax instruction. */
	void (*relax)(void);
	/* Nanoseconds of a clock that never goes back. */
	uint64_t (*now_ns)(void);

	/*
	 * Starts an offline CPU, which must come to smpcall_online_this_cpu(); 0, or a negative errno.
	 * Ordinary context, interrupts on.
	 */
	int (*start_cpu)(int cpu);
	/* Optional: has a CPU that left come to rest, so that it may be started again? */
	bool (*is_stopped)(int cpu);

	/* Says a line to the operator; it ends with a NUL, without a line end. Any context. */
	void (*report)(const char *line);
	/* Says a line and stops everything; must not return. */
	void (*fatal)(const char *line);

	/* Optional, both or neither: keep the caller on its CPU; they nest. */
	void (*preempt_disable)(void);
	void (*preempt_enable)(void);
	/* Optional: the memory node of a CPU. */
	unsigned int (*node_of)(int cpu);
};

/*
 * Sets the library up on the boot CPU, which is online from then on, alone. The table stays valid
 * for ever; the masks are copied. -EINVAL: a callback is missing, or the caller is not one of the
 * present CPUs; -EBUSY: it was done already.
 */
int smpcall_init(const struct smpcall_platform *platform, const struct cpumask *possible,
		 const struct cpumask *present);

/*
 * The calling CPU was started and takes calls when this is true. False: it came too late and was
 * given up; stop it. Interrupts off.
 */
bool smpcall_online_this_cpu(void);

/* For idle loops: has this CPU been asked to leave? It leaves; after a true it is offline, interrupts
 * are off, everything it had accepted has run, and it must be stopped without delay. */
bool smpcall_is_asked_to_leave(void);
bool smpcall_leave_if_asked(void);

/* For idle loops: has this CPU work in ordinary context (smp_call_on_cpu)? It runs it, interrupts on. */
bool smpcall_has_tasks(void);
bool smpcall_run_tasks(void);

/* For idle loops: has this CPU calls pending? To be asked before a deep sleep, interrupts off. */
bool smpcall_has_pending(void);

#ifdef __cplusplus
}
#endif

#endif /* SMPCALL_PLATFORM_H */
