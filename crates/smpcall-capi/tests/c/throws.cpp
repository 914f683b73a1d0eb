// SPDX-License-Identifier: MIT OR Apache-2.0
// An exception that leaves a called function ends the process, by name: it cannot cross to the caller.
#include <cstdio>
#include <stdexcept>

#include "smpcall.h"

static void throws(void *)
{
	throw std::runtime_error("from a called function");
}

int main(int argc, char **)
{
	if (smpcall_boot(2) != 0)
		return 2;
	std::puts("calling");
	std::fflush(stdout);
	(void)smp_call_function_single(1, throws, nullptr, argc > 1 ? 0 : 1);
	// Posted: the process ends here, waiting for what will not come.
	(void)smp_call_function_single(1, throws, nullptr, 1);
	std::puts("survived");
	return 0;
}
