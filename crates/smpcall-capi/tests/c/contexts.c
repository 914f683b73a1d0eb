/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Where a call is made and where it runs: handlers, interrupts off, ordinary context, hotplug. */
#include "harness.h"

static int runs;

static void count(void *info)
{
	(void)info;
	ADD(runs, 1);
}

/* What a called function saw. */
struct seen {
	int me;
	bool irqs_were_off;
	int single, csd, many, others, each, mask, cond, kick, on_cpu, down;
	int posted;
};

static bool yes(int cpu, void *info)
{
	(void)cpu, (void)info;
	return true;
}

static int answer(void *par)
{
	return *(int *)par;
}

/* Tries every call that waits, on another CPU than its own. */
static void try_to_wait(struct seen *seen, int other)
{
	struct call_single_data csd = CSD_INIT(count, NULL);
	int three = 3;

	seen->single = smp_call_function_single(other, count, NULL, 1);
	seen->csd = smpcall_function_single_csd(other, &csd, 1);
	seen->many = smpcall_function_many(cpu_online_mask, count, NULL, true);
	seen->others = smp_call_function(count, NULL, 1);
	seen->each = on_each_cpu(count, NULL, 1);
	seen->mask = smpcall_on_each_cpu_mask(cpu_online_mask, count, NULL, true);
	seen->cond = smpcall_on_each_cpu_cond(yes, count, NULL, true, GFP_KERNEL);
	seen->kick = smpcall_kick_all_cpus_sync();
	seen->on_cpu = smp_call_on_cpu((unsigned int)other, answer, &three, false);
	seen->down = cpu_down((unsigned int)other);
	/* The void ones say so, and return. */
	__smp_call_function_single(other, &csd, 1);
	smp_call_function_many(cpu_online_mask, count, NULL, true);
	on_each_cpu_mask(cpu_online_mask, count, NULL, true);
	on_each_cpu_cond(yes, count, NULL, true, GFP_KERNEL);
	kick_all_cpus_sync();
}

static bool all_refused(const struct seen *seen)
{
	return seen->single == -EDEADLK && seen->csd == -EDEADLK && seen->many == -EDEADLK &&
	       seen->others == -EDEADLK && seen->each == -EDEADLK && seen->mask == -EDEADLK &&
	       seen->cond == -EDEADLK && seen->kick == -EDEADLK && seen->on_cpu == -EDEADLK &&
	       seen->down == -EDEADLK;
}

static void wait_in_a_handler(void *info)
{
	struct seen *seen = (struct seen *)info;

	seen->me = smp_processor_id();
	seen->irqs_were_off = irqs_disabled();
	try_to_wait(seen, 0);
	/* To itself, and without waiting, both are fine. */
	seen->posted = smp_call_function_single(0, count, NULL, 0);
	if (smp_call_function_single(seen->me, count, NULL, 1) != 0)
		seen->posted = 1;
}

static void waiting_inside_a_called_function_is_refused(void)
{
	struct seen seen;

	STORE(runs, 0);
	CHECK(smp_call_function_single(1, wait_in_a_handler, &seen, 1) == 0);
	CHECK(seen.me == 1 && seen.irqs_were_off);
	CHECK(all_refused(&seen));
	CHECK(seen.posted == 0);
	WAIT_FOR(LOAD(runs) == 2);
}

static void waiting_with_interrupts_off_is_refused(void)
{
	struct seen seen;
	unsigned long flags;
	int posted, here;

	STORE(runs, 0);
	CHECK(!irqs_disabled());
	local_irq_save(flags);
	CHECK(irqs_disabled());
	try_to_wait(&seen, 1);
	posted = smp_call_function_single(1, count, NULL, 0);
	here = smp_call_function_single(0, count, NULL, 1);
	local_irq_restore(flags);
	CHECK(!irqs_disabled());
	CHECK(all_refused(&seen));
	CHECK(posted == 0 && here == 0);
	WAIT_FOR(LOAD(runs) == 2);
	local_irq_disable();
	CHECK(irqs_disabled());
	local_irq_enable();
	CHECK(!irqs_disabled());
}

static int calls_while_masked;

static void count_masked(void *info)
{
	(void)info;
	ADD(calls_while_masked, 1);
}

static void call_back(void *info)
{
	(void)info;
	(void)smp_call_function_single(0, count_masked, NULL, 0);
	ADD(runs, 1);
}

static void calls_wait_until_interrupts_are_on_again(void)
{
	unsigned long flags;
	int before;

	STORE(runs, 0);
	STORE(calls_while_masked, 0);
	local_irq_save(flags);
	CHECK(smp_call_function_single(1, call_back, NULL, 0) == 0);
	WAIT_FOR(LOAD(runs) == 1);
	CHECK(!smpcall_poll());
	generic_smp_call_function_single_interrupt();
	before = LOAD(calls_while_masked);
	local_irq_restore(flags);
	/* The entry of the interrupt drains by itself; nothing else did. */
	CHECK(before == 1);
	CHECK(LOAD(calls_while_masked) == 1);
	local_irq_save(flags);
	STORE(runs, 0);
	CHECK(smp_call_function_single(1, call_back, NULL, 0) == 0);
	WAIT_FOR(LOAD(runs) == 1);
	before = LOAD(calls_while_masked);
	local_irq_restore(flags);
	CHECK(before == 1);
	WAIT_FOR(LOAD(calls_while_masked) == 2);
}

/* Work in ordinary context: it may wait for others. */
static int work(void *par)
{
	int *me = (int *)par;

	*me = smp_processor_id();
	if (irqs_disabled())
		return -1;
	if (smp_call_function_single(0, count, NULL, 1) != 0)
		return -2;
	return 40 + *me;
}

static void work_runs_in_ordinary_context_and_answers(void)
{
	int cpu, me, five = 5;

	STORE(runs, 0);
	for_each_online_cpu(cpu) {
		me = -1;
		CHECK(smp_call_on_cpu((unsigned int)cpu, work, &me, false) == 40 + cpu);
		CHECK(me == cpu);
	}
	CHECK(smp_call_on_cpu(0, answer, &five, true) == 5);
	CHECK(smp_call_on_cpu((unsigned int)nr_cpu_ids, answer, &five, false) == -ENXIO);
	CHECK(smp_call_on_cpu(0, NULL, &five, false) == -EINVAL);
	CHECK(LOAD(runs) == (int)num_online_cpus());
}

static int accepted;

static void fill_the_queue(void *info)
{
	struct seen *seen = (struct seen *)info;

	/* A called function cannot wait for room. */
	do {
		seen->posted = smp_call_function_single(1, count, NULL, 0);
		if (seen->posted == 0)
			accepted++;
	} while (seen->posted == 0 && accepted < 1000);
	seen->others = smp_call_function(count, NULL, 0);
	smp_call_function_many(cpumask_of(1), count, NULL, false);
}

static void a_full_queue_is_refused_where_waiting_is(void)
{
	static struct harness_hold hold;
	static struct call_single_data csd;
	static struct seen seen;

	STORE(runs, 0);
	accepted = 0;
	INIT_CSD(&csd, count, NULL);
	harness_hold(&hold, 1);
	CHECK(smp_call_function_single(0, fill_the_queue, &seen, 1) == 0);
	CHECK(seen.posted == -EBUSY && seen.others == -EBUSY);
	CHECK(accepted >= 8);
	/* A descriptor needs no room. */
	CHECK(smp_call_function_single_async(1, &csd) == 0);
	accepted += 1 + (int)num_online_cpus() - 2;
	harness_let_go(&hold);
	WAIT_FOR(LOAD(runs) == accepted);
	/* Where waiting is allowed, any number goes through. */
	for (accepted = 0; accepted < 300; accepted++)
		CHECK(smp_call_function_single(1, count, NULL, 0) == 0);
	CHECK(smp_call_function_single(1, count, NULL, 1) == 0);
}

static void a_cpu_goes_down_and_comes_back(void)
{
	struct call_single_data csd = CSD_INIT(count, NULL);
	unsigned int all = num_online_cpus(), last = all - 1;
	int round, five = 5;

	for (round = 0; round < 10; round++) {
		CHECK(cpu_down(last) == 0);
		CHECK(!cpu_online(last) && cpu_present(last) && num_online_cpus() == all - 1);
		CHECK(cpumask_weight(cpu_online_mask) == all - 1);
		STORE(runs, 0);
		CHECK(smp_call_function_single((int)last, count, NULL, 1) == -ENXIO);
		CHECK(smp_call_function_single((int)last, count, NULL, 0) == -ENXIO);
		CHECK(smpcall_function_single_csd((int)last, &csd, 1) == -ENXIO);
		CHECK(smpcall_function_single_csd((int)last, &csd, 0) == -ENXIO && csd.flags == 0);
		CHECK(smp_call_function_any(cpumask_of(last), count, NULL, 1) == -ENXIO);
		CHECK(smp_call_on_cpu(last, answer, &five, false) == -ENXIO);
		CHECK(cpu_down(last) == -EINVAL);
		CHECK(LOAD(runs) == 0);
		on_each_cpu_mask(cpu_all_mask, count, NULL, true);
		CHECK(LOAD(runs) == (int)all - 1);
		CHECK(cpu_up(last) == 0);
		CHECK(cpu_online(last) && num_online_cpus() == all);
		CHECK(cpu_up(last) == -EINVAL);
		CHECK(on_each_cpu(count, NULL, 1) == 0);
		CHECK(LOAD(runs) == 2 * (int)all - 1);
	}
	CHECK(cpu_down(0) == -EDEADLK);
	CHECK(cpu_up((unsigned int)nr_cpu_ids) == -EINVAL);
	CHECK(cpu_down(NR_CPUS) == -EINVAL);
}

/* What was told of the CPU that comes and goes, a letter each. */
static char told[32];
static int told_count;
static int refuse_with;

static void tell(char what)
{
	if (told_count < (int)sizeof(told) - 1)
		told[told_count++] = what;
	told[told_count] = '\0';
}

static bool was_told(const char *expected)
{
	int i;

	for (i = 0; expected[i] != '\0' && told[i] == expected[i]; i++)
		;
	return expected[i] == '\0' && i == told_count;
}

static int first_prepare(unsigned int cpu)
{
	(void)cpu;
	tell('P');
	return 0;
}
static void first_starting(unsigned int cpu)
{
	tell((int)cpu == smp_processor_id() && irqs_disabled() && !cpu_online(cpu) ? 'S' : '?');
}
static void first_dying(unsigned int cpu)
{
	tell((int)cpu == smp_processor_id() && irqs_disabled() && cpu_online(cpu) ? 'D' : '?');
}
static void first_dead(unsigned int cpu)
{
	tell(cpu_online(cpu) ? '?' : 'X');
}
static int second_prepare(unsigned int cpu)
{
	(void)cpu;
	tell('p');
	return refuse_with;
}
static void second_dead(unsigned int cpu)
{
	(void)cpu;
	tell('x');
}

static void callbacks_are_told_of_cpus_that_come_and_go(void)
{
	static const struct smpcall_cpu_callbacks first = { first_prepare, first_starting,
							    first_dying, first_dead };
	static const struct smpcall_cpu_callbacks second = { second_prepare, NULL, NULL,
							     second_dead };
	unsigned int last = num_online_cpus() - 1;

	CHECK(smpcall_register_cpu_callbacks(NULL) == -EINVAL);
	CHECK(smpcall_register_cpu_callbacks(&first) == 0);
	CHECK(smpcall_register_cpu_callbacks(&second) == 0);
	CHECK(cpu_down(last) == 0 && was_told("DxX"));
	told_count = 0;
	refuse_with = -EIO;
	CHECK(cpu_up(last) == -EIO && was_told("PpX") && !cpu_online(last));
	told_count = 0;
	refuse_with = 0;
	CHECK(cpu_up(last) == 0 && was_told("PpS") && cpu_online(last));
}

static void boot_functions_of_the_seed_may_be_called_again(void)
{
	int ids = nr_cpu_ids;
	unsigned int online = num_online_cpus();

	call_function_init();
	setup_nr_cpu_ids();
	smp_init();
	CHECK(nr_cpu_ids == ids && num_online_cpus() == online);
	CHECK(num_possible_cpus() >= online && num_present_cpus() >= online);
	CHECK(smpcall_early_param(NULL) == -EINVAL);
	CHECK(raw_smp_processor_id() == 0 && get_cpu() == 0);
	put_cpu();
}

const struct harness_case harness_contexts[] = {
	{ "c_waiting_inside_a_called_function_is_refused",
	  waiting_inside_a_called_function_is_refused, 2 },
	{ "c_waiting_with_interrupts_off_is_refused", waiting_with_interrupts_off_is_refused, 2 },
	{ "c_calls_wait_until_interrupts_are_on_again", calls_wait_until_interrupts_are_on_again,
	  2 },
	{ "c_work_runs_in_ordinary_context_and_answers",
	  work_runs_in_ordinary_context_and_answers, 1 },
	{ "c_a_full_queue_is_refused_where_waiting_is", a_full_queue_is_refused_where_waiting_is,
	  2 },
	{ "c_a_cpu_goes_down_and_comes_back", a_cpu_goes_down_and_comes_back, 2 },
	{ "c_callbacks_are_told_of_cpus_that_come_and_go",
	  callbacks_are_told_of_cpus_that_come_and_go, 2 },
	{ "c_boot_functions_of_the_seed_may_be_called_again",
	  boot_functions_of_the_seed_may_be_called_again, 1 },
};
const int harness_contexts_count = COUNT(harness_contexts);
