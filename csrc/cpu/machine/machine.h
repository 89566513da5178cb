// Facts of the machine that a cost model needs, measured without torch.
#pragma once

#include <cstddef>
#include <vector>

namespace stone {

// Cores that this process may use, which a container can make fewer than the machine has.
int usable_cores();

// Bytes of the data caches of one core, level 1 first; empty where the system does not say.
std::vector<size_t> cache_bytes();

// Bytes a second at which so many threads together read a buffer from end to end, the best of a few rounds.
double read_bandwidth(size_t bytes, int threads);

}  // namespace stone
