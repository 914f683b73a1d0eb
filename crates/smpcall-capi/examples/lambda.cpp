// SPDX-License-Identifier: MIT OR Apache-2.0
// Calls with lambdas: a waited call may capture by reference, for the caller stays until it ran.
//
//     cargo build -p smpcall-capi --release
//     export PKG_CONFIG_PATH=crates/smpcall-capi/pkgconfig
//     c++ -std=c++17 crates/smpcall-capi/examples/lambda.cpp $(pkg-config --cflags --libs smpcall) -o lambda
//     ./lambda
#include <atomic>
#include <cstdio>
#include <map>
#include <string>
#include <system_error>
#include <type_traits>
#include <vector>

#include "smpcall.h"

// Runs a callable on a CPU, waits, and returns its result. It must not throw.
template <typename F> auto call(int cpu, F &&f) -> decltype(f())
{
	using Result = decltype(f());
	struct Job {
		std::remove_reference_t<F> *f;
		Result result;
	} job{ &f, Result{} };
	auto run = [](void *info) noexcept {
		auto *job = static_cast<Job *>(info);
		job->result = (*job->f)();
	};
	if (int code = smp_call_function_single(cpu, run, &job, 1); code != 0)
		throw std::system_error(-code, std::generic_category());
	return job.result;
}

// A store with a shard on each CPU, which only that CPU touches: no locks.
struct Store {
	std::vector<std::map<std::string, int>> shards;

	explicit Store(int cpus) : shards(static_cast<size_t>(cpus)) {}
	int cpu_of(const std::string &key) const
	{
		return static_cast<int>(std::hash<std::string>{}(key) % shards.size());
	}
	void put(const std::string &key, int value)
	{
		int cpu = cpu_of(key);
		call(cpu, [&] { return shards[static_cast<size_t>(cpu)][key] = value; });
	}
	int get(const std::string &key)
	{
		int cpu = cpu_of(key);
		return call(cpu, [&] { return shards[static_cast<size_t>(cpu)].at(key); });
	}
	size_t size()
	{
		struct Sum {
			Store *store;
			std::atomic<size_t> keys;
		} sum{ this, { 0 } };
		auto add = [](void *info) noexcept {
			auto *sum = static_cast<Sum *>(info);
			sum->keys += sum->store->shards[static_cast<size_t>(smp_processor_id())].size();
		};
		on_each_cpu(add, &sum, 1);
		return sum.keys;
	}
};

int main()
{
	if (smpcall_boot(3) != 0)
		return 1;
	bool refused = false;
	{
		Store store(nr_cpu_ids);
		for (int i = 0; i < 100; i++)
			store.put("key" + std::to_string(i), i);
		std::printf("%zu keys, key42 is %d\n", store.size(), store.get("key42"));
		try {
			call(NR_CPUS, [] { return 0; });
		} catch (const std::system_error &error) {
			refused = error.code().value() == ENXIO;
		}
		if (store.size() != 100 || store.get("key42") != 42)
			return 1;
	}
	return smpcall_shutdown() == 0 && refused ? 0 : 1;
}
