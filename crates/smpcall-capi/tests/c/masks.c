/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Sets of CPUs. */
#include "harness.h"

static struct cpumask a, b, c;

static void bits_come_and_go(void)
{
	cpumask_clear(&a);
	CHECK(cpumask_empty(&a) && !cpumask_full(&a) && cpumask_weight(&a) == 0);
	cpumask_set_cpu(0, &a);
	cpumask_set_cpu(63, &a);
	__cpumask_set_cpu(64, &a);
	__cpumask_set_cpu(NR_CPUS - 1, &a);
	CHECK(cpumask_weight(&a) == 4);
	CHECK(cpumask_test_cpu(63, &a) && cpumask_test_cpu(64, &a) && !cpumask_test_cpu(65, &a));
	CHECK(cpumask_test_and_set_cpu(63, &a) && !cpumask_test_and_set_cpu(5, &a));
	CHECK(cpumask_test_and_clear_cpu(5, &a) && !cpumask_test_and_clear_cpu(5, &a));
	cpumask_clear_cpu(0, &a);
	__cpumask_clear_cpu(64, &a);
	CHECK(cpumask_weight(&a) == 2 && cpumask_first(&a) == 63);
	cpumask_setall(&a);
	CHECK(cpumask_full(&a) && cpumask_weight(&a) == NR_CPUS && cpumask_equal(&a, cpu_all_mask));
}

static void cpus_beyond_the_end_are_in_no_set(void)
{
	cpumask_clear(&a);
	cpumask_set_cpu(NR_CPUS, &a);
	__cpumask_set_cpu(UINT_MAX, &a);
	cpumask_clear_cpu(-1, &a);
	__cpumask_clear_cpu(NR_CPUS, &a);
	CHECK(!cpumask_test_and_set_cpu(NR_CPUS, &a) && !cpumask_test_and_clear_cpu(-1, &a));
	CHECK(cpumask_empty(&a));
	CHECK(!cpumask_test_cpu(-1, cpu_all_mask) && !cpumask_test_cpu(NR_CPUS, cpu_all_mask));
	CHECK(cpumask_empty(cpumask_of(NR_CPUS)) && cpumask_empty(cpumask_of(UINT_MAX)));
}

static void sets_combine(void)
{
	cpumask_clear(&a);
	cpumask_clear(&b);
	cpumask_set_cpu(1, &a);
	cpumask_set_cpu(70, &a);
	cpumask_set_cpu(70, &b);
	cpumask_set_cpu(200, &b);
	CHECK(cpumask_and(&c, &a, &b) && cpumask_weight(&c) == 1 && cpumask_first(&c) == 70);
	cpumask_or(&c, &a, &b);
	CHECK(cpumask_weight(&c) == 3 && cpumask_subset(&a, &c) && !cpumask_subset(&c, &a));
	cpumask_xor(&c, &a, &b);
	CHECK(cpumask_weight(&c) == 2 && !cpumask_test_cpu(70, &c));
	CHECK(cpumask_andnot(&c, &a, &b) && cpumask_equal(&c, cpumask_of(1)));
	CHECK(!cpumask_andnot(&c, &a, cpu_all_mask) && !cpumask_and(&c, &a, cpu_none_mask));
	CHECK(cpumask_intersects(&a, &b) && !cpumask_intersects(&a, cpumask_of(2)));
	cpumask_complement(&c, &a);
	CHECK(cpumask_weight(&c) == NR_CPUS - 2 && !cpumask_intersects(&a, &c));
	cpumask_copy(&c, &b);
	CHECK(cpumask_equal(&c, &b) && cpumask_size() == NR_CPUS / 8);
}

static void walking_visits_each_once(void)
{
	unsigned int i;
	int cpu, seen = 0;

	cpumask_clear(&a);
	for (i = 0; i < (unsigned int)nr_cpu_ids; i += 3)
		cpumask_set_cpu(i, &a);
	for_each_cpu(cpu, &a) {
		CHECK(cpu % 3 == 0);
		seen++;
	}
	CHECK(seen == (nr_cpu_ids + 2) / 3 && cpu >= nr_cpu_ids);
	for_each_cpu_not(i, &a) {
		CHECK(i % 3 != 0);
		seen++;
	}
	CHECK(seen == nr_cpu_ids);
	for_each_cpu_and(cpu, &a, cpu_online_mask) {
		CHECK(cpu % 3 == 0 && cpu_online(cpu));
		seen++;
	}
	CHECK(cpumask_and(&b, &a, cpu_online_mask) == (seen != nr_cpu_ids));
	CHECK(seen == nr_cpu_ids + (int)cpumask_weight(&b));
	for_each_cpu(cpu, cpu_none_mask)
		CHECK(!"nobody");
	CHECK(cpumask_next(0, cpumask_of(0)) >= (unsigned int)nr_cpu_ids);
	CHECK(cpumask_next(69, cpumask_of(70)) == 70 && cpumask_next(70, cpumask_of(70)) == NR_CPUS);
	CHECK(cpumask_next_zero(-1, cpumask_of(0)) == 1);
	CHECK(cpumask_first_and(cpumask_of(9), cpu_all_mask) == 9);
	CHECK(cpumask_any_and(cpumask_of(9), cpumask_of(8)) >= (unsigned int)nr_cpu_ids);
	CHECK(cpumask_any(cpumask_of(NR_CPUS - 1)) == NR_CPUS - 1);
	CHECK(cpumask_any_but(cpumask_of(4), 4) >= (unsigned int)nr_cpu_ids);
	CHECK(cpumask_any_but(cpu_all_mask, 0) == 1);
}

static void the_mask_of_one_cpu_is_that_cpu(void)
{
	unsigned int cpu;

	for (cpu = 0; cpu < NR_CPUS; cpu++) {
		CHECK(cpumask_weight(cpumask_of(cpu)) == 1);
		CHECK(cpumask_first(cpumask_of(cpu)) == cpu);
	}
}

static void live_masks_agree(void)
{
	int cpu;
	unsigned int online = 0;

	CHECK(cpumask_subset(cpu_online_mask, cpu_present_mask));
	CHECK(cpumask_subset(cpu_present_mask, cpu_possible_mask));
	for_each_online_cpu(cpu)
		online++;
	CHECK(online == num_online_cpus() && online == cpumask_weight(cpu_online_mask));
	CHECK(cpu_online(smp_processor_id()) && cpu_possible(0) && cpu_present(0));
	for_each_present_cpu(cpu)
		CHECK(cpu_possible(cpu));
	for_each_possible_cpu(cpu)
		CHECK(cpu < nr_cpu_ids);
	CHECK(cpumask_next(nr_cpu_ids - 1, cpu_possible_mask) >= (unsigned int)nr_cpu_ids);
}

static bool same_text(const char *left, const char *right)
{
	for (; *left == *right; left++, right++)
		if (*left == '\0')
			return true;
	return false;
}

static void masks_are_read_and_written_as_lists(void)
{
	char text[16];

	CHECK(cpulist_parse("0-3,8", &a) == 0);
	CHECK(cpumask_weight(&a) == 5 && cpumask_test_cpu(8, &a));
	CHECK(cpulist_scnprintf(text, sizeof(text), &a) == 5 && same_text(text, "0-3,8"));
	CHECK(cpulist_scnprintf(text, 4, &a) == 3 && same_text(text, "0-3"));
	CHECK(cpulist_scnprintf(text, sizeof(text), cpu_none_mask) == 0 && same_text(text, ""));
	CHECK(cpulist_scnprintf(text, 0, &a) == 0 && cpulist_scnprintf(NULL, 9, &a) == 0);
	CHECK(cpulist_parse("3-1", &a) == -EINVAL && cpulist_parse("x", &a) == -EINVAL);
	CHECK(cpulist_parse("1024", &a) == -EINVAL && cpulist_parse(NULL, &a) == -EINVAL);
	CHECK(cpulist_parse("1", NULL) == -EINVAL);
	CHECK(cpumask_weight(&a) == 5);
}

static void masks_that_are_allocated_need_nothing(void)
{
	cpumask_var_t mask;

	CHECK(zalloc_cpumask_var(&mask, GFP_KERNEL) && cpumask_empty(mask));
	cpumask_set_cpu(2, mask);
	CHECK(cpumask_bits(mask)[0] == 4);
	free_cpumask_var(mask);
	CHECK(alloc_cpumask_var(&mask, GFP_ATOMIC));
	free_cpumask_var(mask);
}

const struct harness_case harness_masks[] = {
	{ "c_bits_come_and_go", bits_come_and_go, 1 },
	{ "c_cpus_beyond_the_end_are_in_no_set", cpus_beyond_the_end_are_in_no_set, 1 },
	{ "c_sets_combine", sets_combine, 1 },
	{ "c_walking_visits_each_once", walking_visits_each_once, 1 },
	{ "c_the_mask_of_one_cpu_is_that_cpu", the_mask_of_one_cpu_is_that_cpu, 1 },
	{ "c_live_masks_agree", live_masks_agree, 1 },
	{ "c_masks_are_read_and_written_as_lists", masks_are_read_and_written_as_lists, 1 },
	{ "c_masks_that_are_allocated_need_nothing", masks_that_are_allocated_need_nothing, 1 },
};
const int harness_masks_count = COUNT(harness_masks);
