/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Calls to one and to many, waited for and not, and descriptors. */
#include "harness.h"

/* Who ran, and how often. */
static int ran[NR_CPUS];
static int runs;
static int plain; /* written without atomics: calls must publish it */

static void forget(void)
{
	int cpu;

	for (cpu = 0; cpu < NR_CPUS; cpu++)
		STORE(ran[cpu], 0);
	STORE(runs, 0);
}

static void mark(void *info)
{
	int me = smp_processor_id();

	(void)info;
	if (me >= 0)
		ADD(ran[me], 1);
	ADD(runs, 1);
}

static void write_plain(void *info)
{
	plain = *(int *)info;
}

/* Did exactly the CPUs of the mask run, once each? */
static bool ran_on(const struct cpumask *mask)
{
	int cpu;

	for (cpu = 0; cpu < NR_CPUS; cpu++)
		if (LOAD(ran[cpu]) != (cpumask_test_cpu(cpu, mask) ? 1 : 0))
			return false;
	return true;
}

static void single_runs_on_the_cpu_and_publishes_both_ways(void)
{
	int cpu, value;

	for_each_online_cpu(cpu) {
		forget();
		CHECK(smp_call_function_single(cpu, mark, NULL, 1) == 0);
		CHECK(LOAD(ran[cpu]) == 1 && LOAD(runs) == 1);
		value = 100 + cpu;
		CHECK(smp_call_function_single(cpu, write_plain, &value, 1) == 0);
		CHECK(plain == 100 + cpu);
	}
}

static void single_without_wait_runs_soon(void)
{
	int cpu;

	for_each_online_cpu(cpu) {
		forget();
		CHECK(smp_call_function_single(cpu, mark, NULL, 0) == 0);
		if (cpu == smp_processor_id())
			CHECK(LOAD(ran[cpu]) == 1);
		WAIT_FOR(LOAD(ran[cpu]) == 1);
	}
}

static int letters[64];
static int letters_read;

static void read_letter(void *info)
{
	letters[letters_read++ % 64] = (int)(intptr_t)info;
}

static void posts_to_one_cpu_keep_their_order(void)
{
	int i;

	letters_read = 0;
	for (i = 0; i < 64; i++)
		CHECK(smp_call_function_single(1, read_letter, (void *)(intptr_t)i, 0) == 0);
	forget();
	CHECK(smp_call_function_single(1, mark, NULL, 0) == 0);
	WAIT_FOR(LOAD(runs) == 1);
	CHECK(letters_read == 64);
	for (i = 0; i < 64; i++)
		CHECK(letters[i] == i);
}

static void single_refuses_what_cannot_be(void)
{
	forget();
	CHECK(smp_call_function_single(-1, mark, NULL, 1) == -ENXIO);
	CHECK(smp_call_function_single(nr_cpu_ids, mark, NULL, 1) == -ENXIO);
	CHECK(smp_call_function_single(NR_CPUS, mark, NULL, 0) == -ENXIO);
	CHECK(smp_call_function_single(INT_MAX, mark, NULL, 0) == -ENXIO);
	CHECK(smp_call_function_single(0, NULL, NULL, 1) == -EINVAL);
	CHECK(smp_call_function_single(0, NULL, NULL, 0) == -EINVAL);
	CHECK(LOAD(runs) == 0);
}

static void any_prefers_this_cpu(void)
{
	forget();
	CHECK(smp_call_function_any(cpu_online_mask, mark, NULL, 1) == 0);
	CHECK(LOAD(ran[smp_processor_id()]) == 1 && LOAD(runs) == 1);
	CHECK(smp_call_function_any(cpu_online_mask, mark, NULL, 0) == 0);
	CHECK(LOAD(ran[smp_processor_id()]) == 2);
}

static void any_stays_in_the_mask(void)
{
	struct cpumask others;

	cpumask_andnot(&others, cpu_online_mask, cpumask_of((unsigned int)smp_processor_id()));
	forget();
	CHECK(smp_call_function_any(&others, mark, NULL, 1) == 0);
	CHECK(LOAD(runs) == 1 && LOAD(ran[smp_processor_id()]) == 0);
	CHECK(smp_call_function_any(&others, mark, NULL, 0) == 0);
	WAIT_FOR(LOAD(runs) == 2);
	CHECK(LOAD(ran[smp_processor_id()]) == 0);
}

static void any_refuses_what_cannot_be(void)
{
	struct cpumask none;

	cpumask_clear(&none);
	forget();
	CHECK(smp_call_function_any(&none, mark, NULL, 1) == -ENXIO);
	CHECK(smp_call_function_any(cpu_none_mask, mark, NULL, 0) == -ENXIO);
	CHECK(smp_call_function_any(NULL, mark, NULL, 1) == -EINVAL);
	CHECK(smp_call_function_any(cpu_online_mask, NULL, NULL, 1) == -EINVAL);
	CHECK(LOAD(runs) == 0);
}

/* A mask form with an answer, and its void twin where it has one. */
struct form {
	int (*answers)(bool wait);
	void (*is_void)(bool wait);
	bool here; /* does the calling CPU run it too? */
};

static int run_many(bool wait)
{
	return smpcall_function_many(cpu_all_mask, mark, NULL, wait);
}
static void run_many_void(bool wait)
{
	smp_call_function_many(cpu_all_mask, mark, NULL, wait);
}
static int run_others(bool wait)
{
	return smp_call_function(mark, NULL, wait);
}
static int run_each(bool wait)
{
	return on_each_cpu(mark, NULL, wait);
}
static int run_mask(bool wait)
{
	return smpcall_on_each_cpu_mask(cpu_all_mask, mark, NULL, wait);
}
static void run_mask_void(bool wait)
{
	on_each_cpu_mask(cpu_all_mask, mark, NULL, wait);
}
static bool yes(int cpu, void *info)
{
	(void)cpu;
	return info == NULL;
}
static int run_cond(bool wait)
{
	return smpcall_on_each_cpu_cond(yes, mark, NULL, wait, GFP_KERNEL | __GFP_NOWARN);
}
static void run_cond_void(bool wait)
{
	on_each_cpu_cond(yes, mark, NULL, wait, GFP_ATOMIC);
}

static const struct form forms[] = {
	{ run_many, run_many_void, false }, { run_others, NULL, false },
	{ run_each, NULL, true },	    { run_mask, run_mask_void, true },
	{ run_cond, run_cond_void, true },
};

static void mask_forms_run_on_who_is_meant(void)
{
	struct cpumask meant;
	int form, wait;

	for (form = 0; form < COUNT(forms); form++) {
		cpumask_copy(&meant, cpu_online_mask);
		if (!forms[form].here)
			cpumask_clear_cpu(smp_processor_id(), &meant);
		for (wait = 0; wait < 2; wait++) {
			forget();
			CHECK(forms[form].answers(wait) == 0);
			CHECK(!wait || ran_on(&meant));
			WAIT_FOR(ran_on(&meant));
			if (forms[form].is_void == NULL)
				continue;
			forget();
			forms[form].is_void(wait);
			CHECK(!wait || ran_on(&meant));
			WAIT_FOR(ran_on(&meant));
		}
	}
}

static void mask_forms_keep_to_the_mask(void)
{
	struct cpumask odd;
	int cpu;

	cpumask_clear(&odd);
	for_each_online_cpu(cpu)
		if (cpu % 2 == 1)
			cpumask_set_cpu((unsigned int)cpu, &odd);
	forget();
	smp_call_function_many(&odd, mark, NULL, true);
	CHECK(ran_on(&odd));
	cpumask_set_cpu(0, &odd);
	forget();
	on_each_cpu_mask(&odd, mark, NULL, true);
	CHECK(ran_on(&odd));
	forget();
	on_each_cpu_mask(cpu_none_mask, mark, NULL, true);
	smp_call_function_many(cpu_none_mask, mark, NULL, false);
	CHECK(LOAD(runs) == 0);
}

/* What the predicate was asked. */
struct question {
	int asked[NR_CPUS];
	int ran_before;
};

static bool is_odd(int cpu, void *info)
{
	struct question *question = (struct question *)info;

	question->asked[cpu]++;
	question->ran_before += LOAD(runs);
	return cpu % 2 == 1;
}

static void the_predicate_is_asked_once_before_anything_runs(void)
{
	static struct question question;
	struct cpumask odd;
	int cpu;

	cpumask_clear(&odd);
	for (cpu = 0; cpu < NR_CPUS; cpu++) {
		question.asked[cpu] = 0;
		if (cpu % 2 == 1 && cpu_online(cpu))
			cpumask_set_cpu((unsigned int)cpu, &odd);
	}
	question.ran_before = 0;
	forget();
	on_each_cpu_cond(is_odd, mark, &question, true, GFP_KERNEL);
	CHECK(ran_on(&odd));
	CHECK(question.ran_before == 0);
	for (cpu = 0; cpu < NR_CPUS; cpu++)
		CHECK(question.asked[cpu] == (cpu_online(cpu) ? 1 : 0));
}

static void mask_forms_refuse_what_cannot_be(void)
{
	forget();
	CHECK(smpcall_function_many(NULL, mark, NULL, true) == -EINVAL);
	CHECK(smpcall_function_many(cpu_online_mask, NULL, NULL, true) == -EINVAL);
	CHECK(smp_call_function(NULL, NULL, 0) == -EINVAL);
	CHECK(on_each_cpu(NULL, NULL, 1) == -EINVAL);
	CHECK(smpcall_on_each_cpu_mask(NULL, mark, NULL, false) == -EINVAL);
	CHECK(smpcall_on_each_cpu_cond(NULL, mark, NULL, true, GFP_KERNEL) == -EINVAL);
	CHECK(smpcall_on_each_cpu_cond(yes, NULL, NULL, true, GFP_KERNEL) == -EINVAL);
	/* The void ones say so, and return. */
	smp_call_function_many(NULL, mark, NULL, true);
	on_each_cpu_mask(cpu_online_mask, NULL, NULL, true);
	on_each_cpu_cond(NULL, mark, NULL, true, GFP_KERNEL);
	CHECK(LOAD(runs) == 0);
}

static void a_kick_publishes_what_was_stored_before(void)
{
	int cpu, value = 7;

	plain = 6;
	kick_all_cpus_sync();
	CHECK(smpcall_kick_all_cpus_sync() == 0);
	for_each_online_cpu(cpu)
		CHECK(smp_call_function_single(cpu, write_plain, &value, 1) == 0);
	CHECK(plain == 7);
}

/* ---- Descriptors -------------------------------------------------------------------------- */

static void a_waited_descriptor_may_be_on_the_stack(void)
{
	struct call_single_data csd;
	int cpu;

	for_each_online_cpu(cpu) {
		/* As kernel code does: the rest is whatever was on the stack. */
		csd.func = mark;
		csd.info = NULL;
		csd.flags = 0;
		forget();
		__smp_call_function_single(cpu, &csd, 1);
		CHECK(LOAD(ran[cpu]) == 1);
		CHECK(smpcall_function_single_csd(cpu, &csd, 1) == 0);
		CHECK(LOAD(ran[cpu]) == 2 && csd.flags == 0);
	}
}

static void a_posted_descriptor_runs_once(void)
{
	static call_single_data_t csd = CSD_INIT(mark, NULL);
	int cpu;

	for_each_online_cpu(cpu) {
		forget();
		__smp_call_function_single(cpu, &csd, 0);
		WAIT_FOR(LOAD(ran[cpu]) == 1);
		WAIT_FOR(!(LOAD(csd.flags) & CSD_FLAG_LOCK));
		CHECK(smp_call_function_single_async(cpu, &csd) == 0);
		WAIT_FOR(LOAD(ran[cpu]) == 2);
		WAIT_FOR(!(LOAD(csd.flags) & CSD_FLAG_LOCK));
	}
}

static void a_queued_descriptor_is_busy(void)
{
	static struct harness_hold hold;
	static struct call_single_data csd;

	INIT_CSD(&csd, mark, NULL);
	forget();
	harness_hold(&hold, 1);
	CHECK(smp_call_function_single_async(1, &csd) == 0);
	CHECK((LOAD(csd.flags) & CSD_FLAG_LOCK) != 0);
	CHECK(smp_call_function_single_async(1, &csd) == -EBUSY);
	CHECK(smp_call_function_single_async(0, &csd) == -EBUSY);
	CHECK(smpcall_function_single_csd(1, &csd, 0) == -EBUSY);
	/* Here it runs inline and leaves the descriptor alone, as in the original. */
	__smp_call_function_single(0, &csd, 0);
	CHECK(LOAD(ran[0]) == 1);
	harness_let_go(&hold);
	WAIT_FOR(LOAD(ran[1]) == 1);
	CHECK(LOAD(runs) == 2);
}

struct timed {
	struct harness_hold hold;
	uint64_t until;
};

static void stay_a_while(void *info)
{
	struct timed *timed = (struct timed *)info;

	STORE(timed->hold.entered, 1);
	while (harness_now_ns() < timed->until)
		cpu_relax();
}

static void a_queued_descriptor_is_waited_for(void)
{
	static struct timed timed;
	static struct call_single_data csd;
	int wait;

	for (wait = 0; wait < 2; wait++) {
		INIT_CSD(&csd, mark, NULL);
		forget();
		timed.hold.entered = 0;
		timed.until = harness_now_ns() + 5000000;
		CHECK(smp_call_function_single(1, stay_a_while, &timed, 0) == 0);
		WAIT_FOR(LOAD(timed.hold.entered));
		CHECK(smp_call_function_single_async(1, &csd) == 0);
		/* Returns only when the first has left the descriptor. */
		__smp_call_function_single(1, &csd, wait);
		WAIT_FOR(LOAD(ran[1]) == 2);
		WAIT_FOR(!(LOAD(csd.flags) & CSD_FLAG_LOCK));
	}
}

struct again {
	struct call_single_data csd;
	int left;
	int refused;
};

static void queue_again(void *info)
{
	struct again *again = (struct again *)info;
	int other = smp_processor_id() == 1 ? 0 : 1;

	/* To its own CPU it would run at once, one inside the other. */
	if (ADD(again->left, -1) > 0 && smp_call_function_single_async(other, &again->csd) != 0)
		ADD(again->refused, 1);
}

static void a_function_queues_its_own_descriptor_again(void)
{
	static struct again again;

	INIT_CSD(&again.csd, queue_again, &again);
	again.left = 100;
	again.refused = 0;
	CHECK(smp_call_function_single_async(1, &again.csd) == 0);
	WAIT_FOR(LOAD(again.left) == 0);
	CHECK(LOAD(again.refused) == 0);
}

static void end_its_life(void *info)
{
	struct again *again = (struct again *)info;
	unsigned char *byte = (unsigned char *)&again->csd;
	unsigned int i;

	/* As free() would: whoever still used it would find this. */
	for (i = 0; i < sizeof(again->csd); i++)
		byte[i] = 0xa5;
	STORE(again->left, 0);
}

static void a_function_may_end_its_descriptors_life(void)
{
	static struct again again;
	int round;

	for (round = 0; round < 100; round++) {
		INIT_CSD(&again.csd, end_its_life, &again);
		STORE(again.left, 1);
		CHECK(smp_call_function_single_async(1, &again.csd) == 0);
		WAIT_FOR(LOAD(again.left) == 0);
	}
	CHECK(again.csd.flags == 0xa5a5a5a5u);
}

static void descriptors_are_refused_by_name(void)
{
	struct call_single_data csd = CSD_INIT(mark, NULL);
	struct call_single_data empty = CSD_INIT(NULL, NULL);

	forget();
	CHECK(smpcall_function_single_csd(nr_cpu_ids, &csd, 1) == -ENXIO);
	CHECK(smpcall_function_single_csd(-1, &csd, 0) == -ENXIO);
	CHECK(smp_call_function_single_async(NR_CPUS, &csd) == -ENXIO);
	CHECK(csd.flags == 0);
	CHECK(smpcall_function_single_csd(0, NULL, 1) == -EINVAL);
	CHECK(smp_call_function_single_async(0, NULL) == -EINVAL);
	CHECK(smp_call_function_single_async(0, &empty) == -EINVAL);
	/* The void one says so, and returns. */
	__smp_call_function_single(nr_cpu_ids, &csd, 1);
	__smp_call_function_single(0, NULL, 0);
	CHECK(LOAD(runs) == 0);
}

const struct harness_case harness_calls[] = {
	{ "c_single_runs_on_the_cpu_and_publishes_both_ways",
	  single_runs_on_the_cpu_and_publishes_both_ways, 1 },
	{ "c_single_without_wait_runs_soon", single_without_wait_runs_soon, 1 },
	{ "c_posts_to_one_cpu_keep_their_order", posts_to_one_cpu_keep_their_order, 2 },
	{ "c_single_refuses_what_cannot_be", single_refuses_what_cannot_be, 1 },
	{ "c_any_prefers_this_cpu", any_prefers_this_cpu, 1 },
	{ "c_any_stays_in_the_mask", any_stays_in_the_mask, 2 },
	{ "c_any_refuses_what_cannot_be", any_refuses_what_cannot_be, 1 },
	{ "c_mask_forms_run_on_who_is_meant", mask_forms_run_on_who_is_meant, 1 },
	{ "c_mask_forms_keep_to_the_mask", mask_forms_keep_to_the_mask, 1 },
	{ "c_the_predicate_is_asked_once_before_anything_runs",
	  the_predicate_is_asked_once_before_anything_runs, 1 },
	{ "c_mask_forms_refuse_what_cannot_be", mask_forms_refuse_what_cannot_be, 1 },
	{ "c_a_kick_publishes_what_was_stored_before", a_kick_publishes_what_was_stored_before, 1 },
	{ "c_a_waited_descriptor_may_be_on_the_stack", a_waited_descriptor_may_be_on_the_stack, 1 },
	{ "c_a_posted_descriptor_runs_once", a_posted_descriptor_runs_once, 1 },
	{ "c_a_queued_descriptor_is_busy", a_queued_descriptor_is_busy, 2 },
	{ "c_a_queued_descriptor_is_waited_for", a_queued_descriptor_is_waited_for, 2 },
	{ "c_a_function_queues_its_own_descriptor_again",
	  a_function_queues_its_own_descriptor_again, 2 },
	{ "c_a_function_may_end_its_descriptors_life", a_function_may_end_its_descriptors_life, 2 },
	{ "c_descriptors_are_refused_by_name", descriptors_are_refused_by_name, 1 },
};
const int harness_calls_count = COUNT(harness_calls);
