/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Counters that each CPU keeps for itself: cheap to count, and drained where there is something.
 *
 *     cargo build -p smpcall-capi --release
 *     export PKG_CONFIG_PATH=crates/smpcall-capi/pkgconfig
 *     cc crates/smpcall-capi/examples/counters.c $(pkg-config --cflags --libs smpcall) -o counters
 *     ./counters
 */
#include <stdio.h>

#include "smpcall.h"

/* Written by its own CPU only, so no atomic operation is needed. */
static DEFINE_PER_CPU(unsigned long, events);

struct total {
	unsigned long sum;
};

/* Ordinary work of a CPU. */
static void count_events(void *arg)
{
	int cpu = smp_processor_id(), n = *(int *)arg * cpu;

	while (n-- > 0)
		per_cpu(events, cpu)++;
}

/* Asked here, about each CPU: has it anything to drain? */
static bool has_events(int cpu, void *info)
{
	(void)info;
	return per_cpu(events, cpu) != 0;
}

/* Runs on each CPU that has. */
static void drain(void *info)
{
	struct total *total = (struct total *)info;
	int cpu = smp_processor_id();

	__atomic_add_fetch(&total->sum, per_cpu(events, cpu), __ATOMIC_RELAXED);
	per_cpu(events, cpu) = 0;
}

int main(void)
{
	struct total total = { 0 };
	int cpu, each = 1000;

	if (smpcall_boot(4) != 0)
		return 1;
	for_each_online_cpu(cpu)
		smpcall_spawn(cpu, count_events, &each);
	smpcall_join();
	on_each_cpu_cond(has_events, drain, &total, true, GFP_KERNEL);
	printf("%lu events\n", total.sum);
	return smpcall_shutdown() == 0 && total.sum == 6000 ? 0 : 1;
}
