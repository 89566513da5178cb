// Which instruction sets this build holds and which one this process uses.
#pragma once

#include <string>
#include <vector>

namespace stone {

// Weakest first: "baseline", and on x86-64 "avx2" and "avx512".
std::vector<std::string> compiled_instruction_sets();

// Those that this CPU has.
std::vector<std::string> usable_instruction_sets();

// The strongest usable one, or what STONEFX_CPU_ISA names; std::runtime_error where that is unknown or not usable.
std::string chosen_instruction_set();

}  // namespace stone
