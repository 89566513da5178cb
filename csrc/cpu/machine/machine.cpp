#include "machine/machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <thread>

#if defined(__linux__)
#include <sched.h>
#include <unistd.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace stone {

namespace {

constexpr int kRounds = 4;
constexpr int kLanes = 16;

// Independent sums, so that the loop waits for memory and not for the addition before.
uint64_t sum(const uint64_t* begin, const uint64_t* end) {
  uint64_t lanes[kLanes] = {};
  for (; end - begin >= kLanes; begin += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      lanes[lane] += begin[lane];
    }
  }
  uint64_t total = 0;
  for (const uint64_t lane : lanes) {
    total += lane;
  }
  return total;
}

}  // namespace

int usable_cores() {
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    return CPU_COUNT(&set);
  }
#endif
  return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

std::vector<size_t> cache_bytes() {
  std::vector<size_t> sizes;
#if defined(__linux__) && defined(_SC_LEVEL1_DCACHE_SIZE)
  for (const int name : {_SC_LEVEL1_DCACHE_SIZE, _SC_LEVEL2_CACHE_SIZE, _SC_LEVEL3_CACHE_SIZE}) {
    const long size = sysconf(name);
    if (size > 0) {
      sizes.push_back(static_cast<size_t>(size));
    }
  }
#elif defined(__APPLE__)
  for (const char* name : {"hw.perflevel0.l1dcachesize", "hw.perflevel0.l2cachesize"}) {
    uint64_t size = 0;
    size_t length = sizeof(size);
    if (sysctlbyname(name, &size, &length, nullptr, 0) == 0 && size > 0) {
      sizes.push_back(static_cast<size_t>(size));
    }
  }
#endif
  return sizes;
}

double read_bandwidth(size_t bytes, int threads) {
  const size_t words = bytes / sizeof(uint64_t);
  if (threads < 1 || words < static_cast<size_t>(threads) * kLanes) {
    throw std::invalid_argument("read_bandwidth expects at least one thread and 128 bytes for each");
  }
  // Written once, so that every page is there and is one of its own.
  const std::vector<uint64_t> buffer(words, 1);
  std::atomic<uint64_t> total{0};
  double best = std::numeric_limits<double>::infinity();
  for (int round = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> others;
    const auto part = [&](int index) {
      const uint64_t* begin = buffer.data() + words * index / threads;
      total += sum(begin, buffer.data() + words * (index + 1) / threads);
    };
    for (int index = 1; index < threads; ++index) {
      others.emplace_back(part, index);
    }
    part(0);
    for (std::thread& other : others) {
      other.join();
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    best = std::min(best, seconds.count());
  }
  if (total == 0) {
    throw std::runtime_error("read_bandwidth read nothing");
  }
  return static_cast<double>(bytes) / best;
}

}  // namespace stone
