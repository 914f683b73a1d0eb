/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* The conformance program on Linux: all cases, on as many CPUs as the argument says. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "harness.h"

void harness_say(const char *line)
{
	puts(line);
	fflush(stdout);
}

uint64_t harness_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int main(int argc, char **argv)
{
	int cpus = argc > 1 ? atoi(argv[1]) : 4, code;

	code = smpcall_boot(cpus);
	if (code != 0) {
		printf("smpcall: case boot FAILED: %d\n", code);
		return 1;
	}
	printf("smpcall: Brought up %u CPUs\n", num_online_cpus());
	code = harness_all();
	return smpcall_shutdown() != 0 ? 1 : code;
}
