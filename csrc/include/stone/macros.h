// What the row formulas need of the compiler. No header of torch is included from this folder.
#pragma once

#include <cstdint>
#include <cstring>

// One source is compiled for several instruction sets: each has its namespace, so that the linker cannot take an
// inline function compiled for one set into code that must run on another. Plain data lives in `stone` itself.
#ifndef STONE_NAMESPACE
#define STONE_NAMESPACE stone::portable
#endif

// Loops over the few numbers of a formula are written out, so that each stays in a register.
#if defined(__CUDACC__)
#define STONE_FUNCTION __host__ __device__ __forceinline__
#define STONE_UNROLL _Pragma("unroll")
#else
#define STONE_FUNCTION inline __attribute__((always_inline))
#define STONE_UNROLL _Pragma("GCC unroll 8")
#endif
