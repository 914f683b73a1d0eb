/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* A machine's life: before boot, boot, threads that are no CPU, spawned work, shutting down. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "smpcall.h"

#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#define STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELEASE)
#define ADD(word, n) __atomic_add_fetch(&(word), (n), __ATOMIC_ACQ_REL)
#define MUST(condition)                                                                            \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			printf("FAILED: %s (%s, line %d)\n", #condition, __func__, __LINE__);      \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)

static int runs;

static void count(void *info)
{
	(void)info;
	ADD(runs, 1);
}

static bool yes(int cpu, void *info)
{
	(void)cpu, (void)info;
	return true;
}

static int answer(void *par)
{
	(void)par;
	return 3;
}

static void nothing_is_there_before_boot(void)
{
	struct call_single_data csd = CSD_INIT(count, NULL);
	unsigned long flags;

	MUST(smp_call_function_single(0, count, NULL, 1) == -ENXIO);
	MUST(smp_call_function_single(0, count, NULL, 0) == -ENXIO);
	MUST(smp_call_function_any(cpu_all_mask, count, NULL, 1) == -ENXIO);
	MUST(smpcall_function_single_csd(0, &csd, 1) == -ENXIO && csd.flags == 0);
	MUST(smp_call_function_single_async(0, &csd) == -ENXIO && csd.flags == 0);
	MUST(smpcall_function_many(cpu_all_mask, count, NULL, true) == -ENXIO);
	MUST(smp_call_function(count, NULL, 1) == -ENXIO);
	MUST(on_each_cpu(count, NULL, 1) == -ENXIO);
	MUST(smpcall_on_each_cpu_mask(cpu_all_mask, count, NULL, true) == -ENXIO);
	MUST(smpcall_on_each_cpu_cond(yes, count, NULL, true, GFP_KERNEL) == -ENXIO);
	MUST(smpcall_kick_all_cpus_sync() == -ENXIO);
	MUST(smp_call_on_cpu(0, answer, NULL, false) == -ENXIO);
	MUST(cpu_up(0) == -ENXIO && cpu_down(0) == -ENXIO);
	MUST(smpcall_spawn(0, count, NULL) == -ENXIO && smpcall_join() == 0);
	MUST(smpcall_shutdown() == -ENXIO);
	/* The void ones say so, and return. */
	__smp_call_function_single(0, &csd, 0);
	smp_call_function_many(cpu_all_mask, count, NULL, true);
	on_each_cpu_mask(cpu_all_mask, count, NULL, false);
	on_each_cpu_cond(yes, count, NULL, true, GFP_KERNEL);
	kick_all_cpus_sync();
	call_function_init();
	setup_nr_cpu_ids();
	smp_init();
	generic_smp_call_function_single_interrupt();
	MUST(num_online_cpus() == 0 && nr_cpu_ids == NR_CPUS && cpumask_empty(cpu_possible_mask));
	MUST(smp_processor_id() == -1 && smpcall_processor_id() == -1);
	local_irq_save(flags);
	local_irq_restore(flags);
	cpu_relax();
	MUST(!irqs_disabled() && !smpcall_poll() && LOAD(runs) == 0);
}

static void impossible_machines_are_refused(void)
{
	MUST(smpcall_boot(0) == -EINVAL);
	MUST(smpcall_boot(-2) == -EINVAL);
	MUST(smpcall_boot(NR_CPUS + 1) == -EINVAL);
	MUST(num_online_cpus() == 0);
}

static bool shut_down_inside(int cpu, void *info)
{
	(void)cpu;
	*(int *)info = smpcall_shutdown();
	return false;
}

static void a_thread_that_is_no_cpu_may_call(void)
{
	unsigned long flags;
	int code = 0;

	MUST(smpcall_boot(3) == 0);
	MUST(smpcall_boot(3) == -EBUSY);
	MUST(num_online_cpus() == 3 && nr_cpu_ids == 3 && num_possible_cpus() == 3);
	MUST(smp_processor_id() == -1 && raw_smp_processor_id() == -1);
	STORE(runs, 0);
	MUST(on_each_cpu(count, NULL, 1) == 0 && LOAD(runs) == 3);
	MUST(smp_call_function(count, NULL, 1) == 0 && LOAD(runs) == 6);
	local_irq_save(flags);
	MUST(smp_call_function_single(1, count, NULL, 1) == 0 && LOAD(runs) == 7);
	local_irq_restore(flags);
	on_each_cpu_cond(shut_down_inside, count, &code, true, GFP_KERNEL);
	MUST(code == -EDEADLK && LOAD(runs) == 7);
}

static int codes[3];

static void try_to_end_it(void *arg)
{
	(void)arg;
	codes[0] = smpcall_shutdown();
	codes[1] = smpcall_join();
	codes[2] = smpcall_boot(2);
	ADD(runs, 1);
}

/* Two CPUs call each other again and again: both serve while they wait. */
static void call_around(void *arg)
{
	int next = (smp_processor_id() + 1) % 3, i;

	(void)arg;
	for (i = 0; i < 1000; i++)
		MUST(smp_call_function_single(next, count, NULL, 1) == 0);
}

static void spawned_work_runs_in_ordinary_context(void)
{
	int cpu;

	STORE(runs, 0);
	MUST(smpcall_spawn(3, count, NULL) == -ENXIO && smpcall_spawn(-1, count, NULL) == -ENXIO);
	MUST(smpcall_spawn(0, NULL, NULL) == -EINVAL);
	MUST(smpcall_spawn(1, try_to_end_it, NULL) == 0 && smpcall_join() == 0);
	MUST(LOAD(runs) == 1);
	MUST(codes[0] == -EDEADLK && codes[1] == -EDEADLK && codes[2] == -EBUSY);
	for_each_online_cpu(cpu)
		MUST(smpcall_spawn(cpu, call_around, NULL) == 0);
	MUST(smpcall_join() == 0 && LOAD(runs) == 3001);
	/* What a CPU accepted runs before it leaves; then it accepts no more. */
	STORE(runs, 0);
	for (cpu = 0; cpu < 20; cpu++)
		MUST(smpcall_spawn(2, count, NULL) == 0);
	MUST(cpu_down(2) == 0 && LOAD(runs) == 20);
	MUST(smpcall_spawn(2, count, NULL) == -ENXIO && smpcall_join() == 0);
	MUST(cpu_up(2) == 0 && LOAD(runs) == 20);
}

static int accepted;

static void *call_until_it_ends(void *arg)
{
	struct cpumask mask;
	int code;

	cpumask_setall(&mask);
	do {
		code = smp_call_function_any(&mask, count, NULL, 1);
		if (code == 0)
			ADD(accepted, 1);
	} while (code == 0);
	MUST(code == -ENXIO);
	return arg;
}

static void calls_of_other_threads_end_before_the_machine(void)
{
	pthread_t threads[8];
	int i;

	STORE(runs, 0);
	STORE(accepted, 0);
	for (i = 0; i < 8; i++)
		MUST(pthread_create(&threads[i], NULL, call_until_it_ends, NULL) == 0);
	while (LOAD(accepted) < 1000)
		cpu_relax();
	MUST(smpcall_shutdown() == 0);
	for (i = 0; i < 8; i++)
		MUST(pthread_join(threads[i], NULL) == 0);
	MUST(LOAD(runs) == LOAD(accepted));
	MUST(smpcall_shutdown() == -ENXIO && num_online_cpus() == 0 && nr_cpu_ids == NR_CPUS);
	MUST(cpumask_empty(cpu_online_mask) && smp_call_function(count, NULL, 1) == -ENXIO);
}

static void what_was_accepted_runs_before_the_end(void)
{
	static struct call_single_data csds[4];
	int round, cpu;

	for (round = 0; round < 10; round++) {
		MUST(smpcall_boot(4) == 0);
		STORE(runs, 0);
		for_each_online_cpu(cpu) {
			INIT_CSD(&csds[cpu], count, NULL);
			MUST(smp_call_function_single_async(cpu, &csds[cpu]) == 0);
			MUST(smp_call_function_single(cpu, count, NULL, 0) == 0);
			MUST(smpcall_spawn(cpu, count, NULL) == 0);
		}
		MUST(smpcall_shutdown() == 0);
		MUST(LOAD(runs) == 12);
	}
}

static void boot_parameters_are_heard(void)
{
	MUST(smpcall_early_param("quiet maxcpus=2 nr_cpus=3") == 0 && setup_max_cpus == 2);
	MUST(smpcall_early_param("nr_cpus=0") == -EINVAL && setup_max_cpus == 2);
	MUST(smpcall_early_param("maxcpus=two") == -EINVAL && setup_max_cpus == 2);
	MUST(smpcall_boot(4) == 0);
	MUST(num_online_cpus() == 2 && nr_cpu_ids == 3);
	MUST(cpu_up(2) == 0 && num_online_cpus() == 3);
	MUST(cpu_up(3) == -EINVAL && smp_call_function_single(3, count, NULL, 1) == -ENXIO);
	MUST(smpcall_shutdown() == 0);
	MUST(smpcall_early_param("nosmp") == 0 && setup_max_cpus == 0);
	MUST(smpcall_boot(4) == 0 && num_online_cpus() == 1);
	MUST(cpu_down(0) == -EBUSY);
	/* Later, as smp_init() of the original would find it. */
	setup_max_cpus = 3;
	smp_init();
	MUST(num_online_cpus() == 3);
	MUST(smpcall_shutdown() == 0);
	MUST(smpcall_early_param("") == 0 && setup_max_cpus == NR_CPUS);
	MUST(smpcall_boot(SMPCALL_ALL_CPUS) == 0 && num_online_cpus() >= 1);
	MUST(smpcall_shutdown() == 0);
}

int main(void)
{
	nothing_is_there_before_boot();
	impossible_machines_are_refused();
	a_thread_that_is_no_cpu_may_call();
	spawned_work_runs_in_ordinary_context();
	calls_of_other_threads_end_before_the_machine();
	what_was_accepted_runs_before_the_end();
	boot_parameters_are_heard();
	puts("ok");
	return 0;
}
