/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * A kernel in C that runs the conformance cases: its table, its boot, its idle loop.
 *
 * The metal_ functions are its drivers; the image that it is linked with has them
 * (crates/smpcall-kernel/src/capi.rs).
 */
#include "harness.h"
#include "smpcall/platform.h"

int metal_current_cpu(void);
bool metal_irqs_save(void);
void metal_irqs_restore(bool were_on);
bool metal_irqs_enabled(void);
void metal_wait_for_interrupt(void);
void metal_send_ipi(int cpu);
void metal_send_ipi_words(const unsigned long *words, size_t count);
int metal_max_cpus(void);
void metal_relax(void);
uint64_t metal_now_ns(void);
int metal_start_cpu(int cpu);
bool metal_is_stopped(int cpu);
void metal_say(const char *line);
void metal_exit(int code);

/* What the image calls. */
int c_kernel_main(const char *cmdline, int cpus);
void c_kernel_secondary(void);

void harness_say(const char *line)
{
	metal_say(line);
}

uint64_t harness_now_ns(void)
{
	return metal_now_ns();
}

static void send_ipi_mask(const struct cpumask *cpus)
{
	metal_send_ipi_words(cpumask_bits(cpus), (size_t)metal_max_cpus() / 64);
}

static void fatal(const char *line)
{
	metal_say(line);
	metal_say("smpcall: end failed");
	metal_exit(1);
}

/* Preemption does not exist here; the calls must still pair. */
static int preempt_count[NR_CPUS];

static void count_preempt_disable(void)
{
	preempt_count[metal_current_cpu()]++;
}

static void count_preempt_enable(void)
{
	preempt_count[metal_current_cpu()]--;
}

static unsigned int node_of(int cpu)
{
	return (unsigned int)cpu / 2;
}

static struct smpcall_platform platform;

static void fill_platform(void)
{
	platform.current_cpu = metal_current_cpu;
	platform.irqs_save = metal_irqs_save;
	platform.irqs_restore = metal_irqs_restore;
	platform.irqs_enabled = metal_irqs_enabled;
	platform.send_ipi = metal_send_ipi;
	platform.send_ipi_mask = send_ipi_mask;
	platform.relax = metal_relax;
	platform.now_ns = metal_now_ns;
	platform.start_cpu = metal_start_cpu;
	platform.is_stopped = metal_is_stopped;
	platform.report = metal_say;
	platform.fatal = fatal;
	platform.preempt_disable = count_preempt_disable;
	platform.preempt_enable = count_preempt_enable;
	platform.node_of = node_of;
}

/* Halts until there is something to do; returns when the CPU has left. Interrupts are off. */
static void idle(void)
{
	for (;;) {
		if (smpcall_has_tasks()) {
			metal_irqs_restore(true);
			smpcall_run_tasks();
			metal_irqs_save();
		} else if (smpcall_is_asked_to_leave()) {
			metal_irqs_restore(true);
			if (smpcall_leave_if_asked())
				return;
			metal_irqs_save();
		} else if (!smpcall_has_pending()) {
			metal_wait_for_interrupt();
		} else {
			/* The interrupt that announces it is on its way. */
			generic_smp_call_function_single_interrupt();
		}
	}
}

void c_kernel_secondary(void)
{
	if (smpcall_online_this_cpu())
		idle();
}

/* Set-up refuses what it cannot be built on. */
static bool bad_set_ups_are_refused(const struct cpumask *all)
{
	static struct smpcall_platform incomplete;
	struct call_single_data csd = CSD_INIT(NULL, NULL);

	if (num_online_cpus() != 0 || smp_call_function_single_async(0, &csd) != -EINVAL ||
	    smpcall_kick_all_cpus_sync() != -ENXIO || cpu_up(1) != -ENXIO)
		return false;
	incomplete = platform;
	incomplete.now_ns = NULL;
	return smpcall_init(NULL, all, all) == -EINVAL &&
	       smpcall_init(&incomplete, all, all) == -EINVAL &&
	       smpcall_init(&platform, NULL, all) == -EINVAL &&
	       smpcall_init(&platform, all, cpu_none_mask) == -EINVAL;
}

static void set_up_is_over(void)
{
	CHECK(smpcall_init(&platform, cpu_possible_mask, cpu_present_mask) == -EBUSY);
	CHECK(smpcall_processor_id() == metal_current_cpu());
	CHECK(!smpcall_leave_if_asked() && !smpcall_is_asked_to_leave());
}

static void preemption_was_enabled_as_often_as_disabled(void)
{
	int cpu;

	for_each_possible_cpu(cpu)
		WAIT_FOR(LOAD(preempt_count[cpu]) == 0);
}

static const struct harness_case own_cases[] = {
	{ "c_set_up_is_over", set_up_is_over, 1 },
	{ "c_preemption_was_enabled_as_often_as_disabled",
	  preemption_was_enabled_as_often_as_disabled, 1 },
};

int c_kernel_main(const char *cmdline, int cpus)
{
	static struct cpumask all;
	int cpu;

	fill_platform();
	for (cpu = 0; cpu < cpus; cpu++)
		cpumask_set_cpu((unsigned int)cpu, &all);
	if (!bad_set_ups_are_refused(&all)) {
		metal_say("smpcall: case c_bad_set_ups_are_refused FAILED: one was not");
		metal_say("smpcall: end failed");
		return 1;
	}
	if (smpcall_early_param(cmdline) != 0 || smpcall_init(&platform, &all, &all) != 0) {
		metal_say("smpcall: end failed");
		return 1;
	}
	metal_irqs_restore(true);
	call_function_init();
	setup_nr_cpu_ids();
	smp_init();
	harness_run(own_cases, 1);
	harness_run(harness_masks, harness_masks_count);
	harness_run(harness_calls, harness_calls_count);
	harness_run(harness_contexts, harness_contexts_count);
	harness_run(harness_callers, harness_callers_count);
	harness_run(own_cases + 1, 1);
	return harness_end();
}
