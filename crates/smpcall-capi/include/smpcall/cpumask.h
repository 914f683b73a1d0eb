/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * Sets of CPUs, with the names and results of Linux 3.9's <linux/cpumask.h>.
 *
 * Bit i of word w is CPU 64 w + i. cpumask_set_cpu() and the others that change one bit are
 * atomic, as there; all else is plain memory, and so are the __ forms. DIVERGES: a CPU
 * beyond NR_CPUS is in no set and cannot be added, where the original writes past the end.
 */
#ifndef SMPCALL_CPUMASK_H
#define SMPCALL_CPUMASK_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#if ULONG_MAX != 0xffffffffffffffffu
#error "smpcall supports processors with a 64-bit long"
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* How many CPUs a mask can name: what the library was built for. */
#define NR_CPUS 1024
#define nr_cpumask_bits ((unsigned int)NR_CPUS)

struct cpumask {
	unsigned long bits[NR_CPUS / 64];
};
typedef struct cpumask cpumask_t;
/* An array of one, so that it is passed by reference and needs no allocation. */
typedef struct cpumask cpumask_var_t[1];

/* The CPUs that may ever exist, that exist, and that take calls: live, to be read only. */
extern const struct cpumask *const cpu_possible_mask;
extern const struct cpumask *const cpu_present_mask;
extern const struct cpumask *const cpu_online_mask;
/* All CPUs and none. */
extern const struct cpumask *const cpu_all_mask;
extern const struct cpumask *const cpu_none_mask;
extern int nr_cpu_ids;

/* The mask of one CPU, in constant memory; empty beyond NR_CPUS. */
const struct cpumask *cpumask_of(unsigned int cpu);

#define cpumask_bits(maskp) ((maskp)->bits)
#define CPU_MASK_WORDS ((unsigned int)(NR_CPUS / 64))

static inline unsigned long smpcall_word(const struct cpumask *m, unsigned int w)
{
	return __atomic_load_n(&m->bits[w], __ATOMIC_ACQUIRE);
}

/* The lowest bit of a word that is not 0. No builtin: some targets call a library for it. */
static inline unsigned int smpcall_lowest(unsigned long word)
{
	unsigned int n = 0, step = 32;

	for (; step != 0; step /= 2) {
		if ((word & ((1ul << step) - 1)) == 0) {
			word >>= step;
			n += step;
		}
	}
	return n;
}

/* ---- One CPU ------------------------------------------------------------------------------ */

static inline void cpumask_set_cpu(unsigned int cpu, struct cpumask *dstp)
{
	if (cpu < nr_cpumask_bits)
		(void)__atomic_fetch_or(&dstp->bits[cpu / 64], 1ul << (cpu % 64), __ATOMIC_RELAXED);
}

static inline void cpumask_clear_cpu(int cpu, struct cpumask *dstp)
{
	unsigned int c = (unsigned int)cpu;

	if (c < nr_cpumask_bits)
		(void)__atomic_fetch_and(&dstp->bits[c / 64], ~(1ul << (c % 64)), __ATOMIC_RELAXED);
}

static inline void __cpumask_set_cpu(unsigned int cpu, struct cpumask *dstp)
{
	if (cpu < nr_cpumask_bits)
		dstp->bits[cpu / 64] |= 1ul << (cpu % 64);
}

static inline void __cpumask_clear_cpu(int cpu, struct cpumask *dstp)
{
	unsigned int c = (unsigned int)cpu;

	if (c < nr_cpumask_bits)
		dstp->bits[c / 64] &= ~(1ul << (c % 64));
}

static inline int cpumask_test_cpu(int cpu, const struct cpumask *m)
{
	unsigned int c = (unsigned int)cpu;

	return c < nr_cpumask_bits && (smpcall_word(m, c / 64) >> (c % 64) & 1) != 0;
}

/* These order memory on both sides, as the original's do. */
static inline int cpumask_test_and_set_cpu(int cpu, struct cpumask *m)
{
	unsigned int c = (unsigned int)cpu;
	unsigned long bit = 1ul << (c % 64);

	return c < nr_cpumask_bits &&
	       (__atomic_fetch_or(&m->bits[c / 64], bit, __ATOMIC_SEQ_CST) & bit) != 0;
}

static inline int cpumask_test_and_clear_cpu(int cpu, struct cpumask *m)
{
	unsigned int c = (unsigned int)cpu;
	unsigned long bit = 1ul << (c % 64);

	return c < nr_cpumask_bits &&
	       (__atomic_fetch_and(&m->bits[c / 64], ~bit, __ATOMIC_SEQ_CST) & bit) != 0;
}

/* ---- Whole sets --------------------------------------------------------------------------- */

static inline void cpumask_clear(struct cpumask *dstp)
{
	unsigned int w;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		dstp->bits[w] = 0;
}

static inline void cpumask_setall(struct cpumask *dstp)
{
	unsigned int w;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		dstp->bits[w] = ~0ul;
}

static inline void cpumask_copy(struct cpumask *dstp, const struct cpumask *srcp)
{
	unsigned int w;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		dstp->bits[w] = smpcall_word(srcp, w);
}

static inline bool cpumask_empty(const struct cpumask *srcp)
{
	unsigned int w;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		if (smpcall_word(srcp, w) != 0)
			return false;
	return true;
}

static inline bool cpumask_full(const struct cpumask *srcp)
{
	unsigned int w;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		if (smpcall_word(srcp, w) != ~0ul)
			return false;
	return true;
}

static inline unsigned int cpumask_weight(const struct cpumask *srcp)
{
	unsigned int w, n = 0;
	unsigned long word;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		for (word = smpcall_word(srcp, w); word != 0; word &= word - 1)
			n++;
	return n;
}

/* True if the result is not empty. */
static inline int cpumask_and(struct cpumask *dstp, const struct cpumask *a, const struct cpumask *b)
{
	unsigned int w;
	unsigned long any = 0;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		any |= dstp->bits[w] = smpcall_word(a, w) & smpcall_word(b, w);
	return any != 0;
}

static inline void cpumask_or(struct cpumask *dstp, const struct cpumask *a, const struct cpumask *b)
{
	unsigned int w;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		dstp->bits[w] = smpcall_word(a, w) | smpcall_word(b, w);
}

static inline void cpumask_xor(struct cpumask *dstp, const struct cpumask *a, const struct cpumask *b)
{
	unsigned int w;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		dstp->bits[w] = smpcall_word(a, w) ^ smpcall_word(b, w);
}

/* True if the result is not empty. */
static inline int cpumask_andnot(struct cpumask *dstp, const struct cpumask *a,
				 const struct cpumask *b)
{
	unsigned int w;
	unsigned long any = 0;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		any |= dstp->bits[w] = smpcall_word(a, w) & ~smpcall_word(b, w);
	return any != 0;
}

static inline void cpumask_complement(struct cpumask *dstp, const struct cpumask *srcp)
{
	unsigned int w;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		dstp->bits[w] = ~smpcall_word(srcp, w);
}

static inline bool cpumask_equal(const struct cpumask *a, const struct cpumask *b)
{
	unsigned int w;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		if (smpcall_word(a, w) != smpcall_word(b, w))
			return false;
	return true;
}

static inline bool cpumask_intersects(const struct cpumask *a, const struct cpumask *b)
{
	unsigned int w;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		if ((smpcall_word(a, w) & smpcall_word(b, w)) != 0)
			return true;
	return false;
}

/* Is every CPU of a in b? */
static inline int cpumask_subset(const struct cpumask *a, const struct cpumask *b)
{
	unsigned int w;

	for (w = 0; w < CPU_MASK_WORDS; w++)
		if ((smpcall_word(a, w) & ~smpcall_word(b, w)) != 0)
			return 0;
	return 1;
}

static inline size_t cpumask_size(void)
{
	return sizeof(struct cpumask);
}

/* ---- Walking: NR_CPUS or more, so at least nr_cpu_ids, when there is none ------------------ */

/* The first CPU after n (-1 to begin with) in a and, if b is not null, in b too. */
static inline unsigned int smpcall_next(int n, const struct cpumask *a, const struct cpumask *b,
					unsigned long flip)
{
	unsigned int from = (unsigned int)n + 1, w;
	unsigned long word, rest;

	for (w = from / 64; w < CPU_MASK_WORDS; w++) {
		word = smpcall_word(a, w) ^ flip;
		if (b != NULL)
			word &= smpcall_word(b, w);
		rest = w == from / 64 ? ~0ul << (from % 64) : ~0ul;
		if ((word & rest) != 0)
			return 64 * w + smpcall_lowest(word & rest);
	}
	return nr_cpumask_bits;
}

static inline unsigned int cpumask_next(int n, const struct cpumask *srcp)
{
	return smpcall_next(n, srcp, NULL, 0);
}

static inline unsigned int cpumask_first(const struct cpumask *srcp)
{
	return cpumask_next(-1, srcp);
}

static inline unsigned int cpumask_next_zero(int n, const struct cpumask *srcp)
{
	return smpcall_next(n, srcp, NULL, ~0ul);
}

static inline unsigned int cpumask_next_and(int n, const struct cpumask *a, const struct cpumask *b)
{
	return smpcall_next(n, a, b, 0);
}

static inline unsigned int cpumask_any_but(const struct cpumask *mask, unsigned int cpu)
{
	unsigned int i = cpumask_first(mask);

	return i == cpu ? cpumask_next((int)i, mask) : i;
}

#define cpumask_first_and(a, b) cpumask_next_and(-1, (a), (b))
#define cpumask_any(srcp) cpumask_first(srcp)
#define cpumask_any_and(a, b) cpumask_first_and((a), (b))

#define smpcall_for_each(cpu, next)                                                                \
	for ((cpu) = -1; (cpu) = (next), (unsigned int)(cpu) < (unsigned int)nr_cpu_ids;)

#define for_each_cpu(cpu, mask) smpcall_for_each(cpu, cpumask_next((int)(cpu), (mask)))
#define for_each_cpu_not(cpu, mask) smpcall_for_each(cpu, cpumask_next_zero((int)(cpu), (mask)))
#define for_each_cpu_and(cpu, a, b) smpcall_for_each(cpu, cpumask_next_and((int)(cpu), (a), (b)))
#define for_each_possible_cpu(cpu) for_each_cpu((cpu), cpu_possible_mask)
#define for_each_present_cpu(cpu) for_each_cpu((cpu), cpu_present_mask)
#define for_each_online_cpu(cpu) for_each_cpu((cpu), cpu_online_mask)

#define num_possible_cpus() cpumask_weight(cpu_possible_mask)
#define num_present_cpus() cpumask_weight(cpu_present_mask)
#define cpu_possible(cpu) cpumask_test_cpu((int)(cpu), cpu_possible_mask)
#define cpu_present(cpu) cpumask_test_cpu((int)(cpu), cpu_present_mask)
#define cpu_online(cpu) cpumask_test_cpu((int)(cpu), cpu_online_mask)

/* ---- Masks that the original allocates ----------------------------------------------------- */

static inline bool alloc_cpumask_var(cpumask_var_t *mask, unsigned int gfp_flags)
{
	(void)mask, (void)gfp_flags;
	return true;
}

static inline bool zalloc_cpumask_var(cpumask_var_t *mask, unsigned int gfp_flags)
{
	(void)gfp_flags;
	cpumask_clear(*mask);
	return true;
}

static inline void free_cpumask_var(cpumask_var_t mask)
{
	(void)mask;
}

/* ---- Text: the list form, 0-3,8 ------------------------------------------------------------ */

/* Writes at most len bytes with the final NUL; returns how many letters that are. */
int cpulist_scnprintf(char *buf, int len, const struct cpumask *srcp);

/* -EINVAL for what is not a list of CPUs below NR_CPUS; the mask is then as it was. */
int cpulist_parse(const char *buf, struct cpumask *dstp);

#ifdef __cplusplus
}
#endif

#endif /* SMPCALL_CPUMASK_H */
