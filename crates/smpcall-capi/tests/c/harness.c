/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* Runs cases and says what came of them. */
#include "harness.h"

static int passed, failed;
static const char *running;
static bool running_failed;

/* A line that is put together piece by piece, cut where its room ends. */
struct line {
	char text[256];
	unsigned int used;
};

static void put(struct line *line, const char *text)
{
	for (; *text != '\0' && line->used + 1 < sizeof(line->text); text++)
		line->text[line->used++] = *text;
	line->text[line->used] = '\0';
}

static void put_number(struct line *line, unsigned int number)
{
	char digits[12];
	unsigned int at = sizeof(digits) - 1;

	digits[at] = '\0';
	do {
		digits[--at] = (char)('0' + number % 10);
		number /= 10;
	} while (number != 0);
	put(line, &digits[at]);
}

void harness_fail(const char *what, int at)
{
	struct line line = { "", 0 };

	if (running_failed)
		return;
	running_failed = true;
	put(&line, "smpcall: case ");
	put(&line, running);
	put(&line, " FAILED: ");
	put(&line, what);
	put(&line, " (line ");
	put_number(&line, (unsigned int)at);
	put(&line, ")");
	harness_say(line.text);
}

static int run_case(void *info)
{
	((const struct harness_case *)info)->run();
	return 0;
}

int harness_run(const struct harness_case *cases, int count)
{
	int i, before = failed;

	for (i = 0; i < count; i++) {
		struct line begin = { "", 0 }, end = { "", 0 };

		if (num_online_cpus() < cases[i].cpus)
			continue;
		running = cases[i].name;
		running_failed = false;
		put(&begin, "smpcall: running ");
		put(&begin, running);
		harness_say(begin.text);
		if (smp_call_on_cpu(0, run_case, (void *)(uintptr_t)&cases[i], false) != 0)
			harness_fail("CPU 0 did not run it", __LINE__);
		if (running_failed) {
			failed++;
			continue;
		}
		passed++;
		put(&end, "smpcall: case ");
		put(&end, running);
		put(&end, " ok");
		harness_say(end.text);
	}
	return failed - before;
}

int harness_end(void)
{
	struct line tally = { "", 0 };

	put(&tally, "smpcall: ");
	put_number(&tally, (unsigned int)passed);
	put(&tally, " passed, ");
	put_number(&tally, (unsigned int)failed);
	put(&tally, " failed");
	harness_say(tally.text);
	harness_say(failed == 0 && passed > 0 ? "smpcall: end ok" : "smpcall: end failed");
	return failed == 0 && passed > 0 ? 0 : 1;
}

static void stay(void *info)
{
	struct harness_hold *hold = (struct harness_hold *)info;

	STORE(hold->entered, 1);
	while (!LOAD(hold->let_go))
		cpu_relax();
	STORE(hold->left, 1);
}

void harness_hold(struct harness_hold *hold, int cpu)
{
	hold->entered = hold->let_go = hold->left = 0;
	CHECK(smp_call_function_single(cpu, stay, hold, 0) == 0);
	WAIT_FOR(LOAD(hold->entered));
}

void harness_let_go(struct harness_hold *hold)
{
	STORE(hold->let_go, 1);
	WAIT_FOR(LOAD(hold->left));
}

int harness_all(void)
{
	harness_run(harness_masks, harness_masks_count);
	harness_run(harness_calls, harness_calls_count);
	harness_run(harness_contexts, harness_contexts_count);
	harness_run(harness_callers, harness_callers_count);
	return harness_end();
}
