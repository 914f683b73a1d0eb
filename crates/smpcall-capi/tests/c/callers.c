/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Code in the manner of the kernel's callers of smp.c: it is written for <linux/smp.h> and
 * <linux/cpumask.h>, and this one include stands in for them. What follows the include is what the
 * code takes from elsewhere in the kernel, in a line each; the rest is as it would be there.
 */
#include "smpcall.h"

#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))
#define READ_ONCE(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define WRITE_ONCE(x, v) __atomic_store_n(&(x), (v), __ATOMIC_RELEASE)
typedef uint64_t u64;

/* ---- A counter of each CPU that only its CPU may read, as perf has them --------------------- */

struct event {
	int oncpu;
	u64 count;
	bool enabled;
};

struct event_function_call {
	struct event *event;
	int (*func)(struct event *event);
	int ret;
};

static DEFINE_PER_CPU(u64, hw_counter);

static int __event_read(struct event *event)
{
	if (event->oncpu != smp_processor_id())
		return -EBUSY;
	if (event->enabled)
		event->count += ++per_cpu(hw_counter, event->oncpu);
	return 0;
}

static void remote_function(void *data)
{
	struct event_function_call *efc = (struct event_function_call *)data;

	efc->ret = efc->func(efc->event);
}

static int cpu_function_call(struct event *event, int (*func)(struct event *))
{
	struct event_function_call data;

	data.event = event;
	data.func = func;
	data.ret = -ENXIO; /* default: the CPU is not there */
	smp_call_function_single(event->oncpu, remote_function, &data, 1);
	return data.ret;
}

/* ---- Address spaces that are loaded on some CPUs, as the flushing of a TLB sees them --------- */

struct mm {
	cpumask_t cpu_vm_mask;
	u64 generation;
};

struct flush_info {
	struct mm *mm;
	unsigned long start, end;
	int flushed;
};

static DEFINE_PER_CPU(u64, loaded_generation);

static void flush_tlb_func(void *info)
{
	struct flush_info *f = (struct flush_info *)info;
	int cpu = smp_processor_id();

	if (!cpumask_test_cpu(cpu, &f->mm->cpu_vm_mask))
		return;
	per_cpu(loaded_generation, cpu) = READ_ONCE(f->mm->generation);
	__atomic_add_fetch(&f->flushed, 1, __ATOMIC_RELAXED);
}

static int flush_tlb_mm_range(struct mm *mm, unsigned long start, unsigned long end)
{
	struct flush_info info = { mm, start, end, 0 };
	int cpu;

	WRITE_ONCE(mm->generation, mm->generation + 1);
	cpu = get_cpu();
	if (cpumask_test_cpu(cpu, &mm->cpu_vm_mask))
		flush_tlb_func(&info);
	if (cpumask_any_but(&mm->cpu_vm_mask, (unsigned int)cpu) < (unsigned int)nr_cpu_ids)
		smp_call_function_many(&mm->cpu_vm_mask, flush_tlb_func, &info, true);
	put_cpu();
	return info.flushed;
}

/* ---- Caches of each CPU that are drained where there is something, as a slab allocator does --- */

struct kmem_cache {
	int cached[NR_CPUS];
	int drained;
};

static void flush_cpu_slab(void *d)
{
	struct kmem_cache *s = (struct kmem_cache *)d;
	int cpu = smp_processor_id();

	__atomic_add_fetch(&s->drained, s->cached[cpu], __ATOMIC_RELAXED);
	s->cached[cpu] = 0;
}

static bool has_cpu_slab(int cpu, void *info)
{
	struct kmem_cache *s = (struct kmem_cache *)info;

	return s->cached[cpu] != 0;
}

static void flush_all(struct kmem_cache *s)
{
	on_each_cpu_cond(has_cpu_slab, flush_cpu_slab, s, 1, GFP_ATOMIC);
}

/* ---- Requests that complete on the CPU that submitted them, as the block layer's ------------- */

struct request {
	int cpu;
	int completed_on;
	struct call_single_data csd;
	u64 sector;
};

static void trigger_softirq(void *data)
{
	struct request *rq = (struct request *)data;

	WRITE_ONCE(rq->completed_on, smp_processor_id());
}

static int raise_blk_irq(int cpu, struct request *rq)
{
	if (cpu_online(cpu)) {
		struct call_single_data *data = &rq->csd;

		data->func = trigger_softirq;
		data->info = rq;
		data->flags = 0;

		__smp_call_function_single(cpu, data, 0);
		return 0;
	}
	return 1;
}

/* ---- A driver that visits each CPU in turn, and a watchdog that has its record by its csd ----- */

struct watchdog {
	unsigned long touched;
	call_single_data_t csd;
};

static DEFINE_PER_CPU(struct watchdog, watchdogs);

static void touch_watchdog(void *info)
{
	call_single_data_t *csd = (call_single_data_t *)info;
	struct watchdog *dog = container_of(csd, struct watchdog, csd);

	WRITE_ONCE(dog->touched, dog->touched + 1);
}

static int touch_all_watchdogs(void)
{
	int cpu, err = 0;

	for_each_online_cpu(cpu) {
		struct watchdog *dog = &per_cpu(watchdogs, cpu);

		INIT_CSD(&dog->csd, touch_watchdog, &dog->csd);
		if (smp_call_function_single_async(cpu, &dog->csd))
			err = -EBUSY;
	}
	return err;
}

/* ---- The checks ---------------------------------------------------------------------------- */

#include "harness.h"

static void perf_reads_a_counter_where_it_is(void)
{
	struct event event = { 0, 0, true };
	int cpu;

	for_each_online_cpu(cpu) {
		event.oncpu = cpu;
		event.count = 0;
		CHECK(cpu_function_call(&event, __event_read) == 0);
		CHECK(event.count == per_cpu(hw_counter, cpu) && event.count > 0);
	}
	event.oncpu = nr_cpu_ids;
	CHECK(cpu_function_call(&event, __event_read) == -ENXIO);
}

static void a_tlb_flush_reaches_who_has_the_mm(void)
{
	static struct mm mm;
	int cpu, expected = 0;

	cpumask_clear(&mm.cpu_vm_mask);
	for_each_online_cpu(cpu)
		if (cpu % 2 == 0) {
			cpumask_set_cpu((unsigned int)cpu, &mm.cpu_vm_mask);
			expected++;
		}
	CHECK(flush_tlb_mm_range(&mm, 0x1000, 0x2000) == expected);
	for_each_cpu(cpu, &mm.cpu_vm_mask)
		CHECK(per_cpu(loaded_generation, cpu) == mm.generation);
}

static void slabs_are_drained_where_they_are_full(void)
{
	static struct kmem_cache s;
	int cpu, expected = 0;

	for_each_possible_cpu(cpu)
		s.cached[cpu] = 0;
	for_each_online_cpu(cpu)
		if (cpu % 2 == 1) {
			s.cached[cpu] = cpu;
			expected += cpu;
		}
	s.drained = 0;
	flush_all(&s);
	CHECK(s.drained == expected);
	for_each_online_cpu(cpu)
		CHECK(s.cached[cpu] == 0);
}

static void requests_complete_where_they_were_submitted(void)
{
	static struct request requests[64];
	int i, cpu = -1;

	for (i = 0; i < COUNT(requests); i++) {
		cpu = (int)cpumask_next(cpu, cpu_online_mask);
		if (cpu >= nr_cpu_ids)
			cpu = (int)cpumask_first(cpu_online_mask);
		requests[i].cpu = cpu;
		requests[i].completed_on = -1;
		CHECK(raise_blk_irq(cpu, &requests[i]) == 0);
	}
	for (i = 0; i < COUNT(requests); i++)
		WAIT_FOR(READ_ONCE(requests[i].completed_on) == requests[i].cpu);
	CHECK(raise_blk_irq(nr_cpu_ids, &requests[0]) == 1);
}

static void watchdogs_are_found_by_their_descriptors(void)
{
	unsigned long before = per_cpu(watchdogs, 0).touched;
	int cpu;

	CHECK(touch_all_watchdogs() == 0);
	for_each_online_cpu(cpu)
		WAIT_FOR(READ_ONCE(per_cpu(watchdogs, cpu).touched) == before + 1);
}

const struct harness_case harness_callers[] = {
	{ "c_perf_reads_a_counter_where_it_is", perf_reads_a_counter_where_it_is, 1 },
	{ "c_a_tlb_flush_reaches_who_has_the_mm", a_tlb_flush_reaches_who_has_the_mm, 1 },
	{ "c_slabs_are_drained_where_they_are_full", slabs_are_drained_where_they_are_full, 1 },
	{ "c_requests_complete_where_they_were_submitted",
	  requests_complete_where_they_were_submitted, 1 },
	{ "c_watchdogs_are_found_by_their_descriptors", watchdogs_are_found_by_their_descriptors,
	  1 },
};
const int harness_callers_count = COUNT(harness_callers);
