/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * What the C test programs share: cases, checks, bounded waits and the line protocol of
 * smpcall_torture::report. No C library is used, so it runs inside the QEMU kernel as well.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdbool.h>
#include <stdint.h>

#include "smpcall.h"

/* The host's side: a line of output without its end, and a clock that never goes back. */
void harness_say(const char *line);
uint64_t harness_now_ns(void);

/* One case: it runs in the ordinary context of CPU 0, if there are so many CPUs. */
struct harness_case {
	const char *name;
	void (*run)(void);
	unsigned int cpus;
};

/* Runs the cases, printing a line for each; returns how many failed. */
int harness_run(const struct harness_case *cases, int count);
/* Prints the tally and the closing line of all runs so far; returns the exit code. */
int harness_end(void);

/* The case that is running has failed. */
void harness_fail(const char *what, int line);
#define CHECK(condition)                                                                           \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			harness_fail(#condition, __LINE__);                                        \
			return;                                                                    \
		}                                                                                  \
	} while (0)

/* Long enough for a loaded computer; whoever waits longer waits for ever. */
#define HARNESS_PATIENCE_NS 60000000000ull
#define WAIT_FOR(condition)                                                                        \
	do {                                                                                       \
		uint64_t harness_start = harness_now_ns();                                         \
		while (!(condition)) {                                                             \
			if (harness_now_ns() - harness_start > HARNESS_PATIENCE_NS) {              \
				harness_fail("waited too long for " #condition, __LINE__);         \
				return;                                                            \
			}                                                                          \
			cpu_relax();                                                               \
		}                                                                                  \
	} while (0)

#define LOAD(word) __atomic_load_n(&(word), __ATOMIC_ACQUIRE)
#define STORE(word, value) __atomic_store_n(&(word), (value), __ATOMIC_RELEASE)
#define ADD(word, n) __atomic_add_fetch(&(word), (n), __ATOMIC_ACQ_REL)

/* Keeps a CPU inside a called function, where it takes no calls, until it is let go. */
struct harness_hold {
	int entered;
	int let_go;
	int left;
};
void harness_hold(struct harness_hold *hold, int cpu);
void harness_let_go(struct harness_hold *hold);

/* The cases, by file. */
extern const struct harness_case harness_calls[];
extern const int harness_calls_count;
extern const struct harness_case harness_contexts[];
extern const int harness_contexts_count;
extern const struct harness_case harness_masks[];
extern const int harness_masks_count;
extern const struct harness_case harness_callers[];
extern const int harness_callers_count;
/* Runs all of them and ends the report; returns the exit code. */
int harness_all(void);

#define COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

#endif /* HARNESS_H */
