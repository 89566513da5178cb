// Sums over the entries of several rows at once: no row's additions wait for another's, and what stands in the lanes of
// all of them is added up together, which takes a third of the steps of one row after another.
#pragma once

#include "machine/wide.h"

namespace STONE_NAMESPACE {

// As many rows as leave a register for each of their sums, and some for what is read.
template <int sums>
constexpr int kRowsAtOnce = sums == 1 && kWide >= 8                        ? 8
                            : 4 * sums + 8 <= kRegisters && kWide >= 4 ? 4
                            : 2 * sums + 6 <= kRegisters               ? 2
                                                                       : 1;

// Where lane i of `interleaved` has its first number: of each pair of groups of `apart` lanes the first, that of a,
// then that of b, whose lanes are counted on from those of a.
template <int apart>
constexpr int first_of(int i) {
  const bool of_b = i / apart % 2 != 0;
  return (of_b ? kWide : 0) + i / (2 * apart) * (2 * apart) + i % apart;
}

template <int apart, int... I>
STONE_FUNCTION Wide interleaved_at(Wide a, Wide b, Indices<I...>) {
  return __builtin_shufflevector(a, b, first_of<apart>(I)...) +
         __builtin_shufflevector(a, b, (first_of<apart>(I) + apart)...);
}

// Neighbouring groups of `apart` lanes added, those of a and of b by turns.
template <int apart>
STONE_FUNCTION Wide interleaved(Wide a, Wide b) {
  return interleaved_at<apart>(a, b, typename Count<kWide>::type());
}

template <class V, int... I>
STONE_FUNCTION auto folded_at(V v, Indices<I...>) {
  return __builtin_shufflevector(v, v, I...) + __builtin_shufflevector(v, v, (I + static_cast<int>(sizeof...(I)))...);
}

// Halves added until `left` lanes are left.
template <int left, int lanes, class V>
STONE_FUNCTION auto folded(V v) {
  if constexpr (lanes == left) {
    return v;
  } else {
    return folded<left, lanes / 2>(folded_at(v, typename Count<lanes / 2>::type()));
  }
}

// The lanes of all rows in one vector: of each of its groups of `rows` lanes the sums are the totals.
template <int rows>
STONE_FUNCTION Wide gathered(const Wide* parts) {
  if constexpr (rows == 1) {
    return parts[0];
  } else {
    return interleaved<rows / 2>(gathered<rows / 2>(parts), gathered<rows / 2>(parts + rows / 2));
  }
}

template <int rows>
STONE_FUNCTION void write_totals(double* to, const Wide* parts) {
  if constexpr (rows == 1) {
    *to = sum_of(parts[0]);
  } else {
    const auto totals = folded<rows, kWide>(gathered<rows>(parts));
    memcpy(to, &totals, sizeof totals);
  }
}

template <int sums, bool far, class Add>
STONE_FUNCTION void sum_group(double* const* to, int first, int64_t dim, const Add& add) {
  constexpr int rows = kRowsAtOnce<sums>;
  Wide part[sums][rows] = {};
  for_wide<far>(dim, [&](const auto& read) __attribute__((always_inline)) {
    STONE_UNROLL
    for (int r = 0; r < rows; ++r) {
      Wide sum[sums];
      STONE_UNROLL
      for (int s = 0; s < sums; ++s) {
        sum[s] = part[s][r];
      }
      add(read, first + r, sum);
      STONE_UNROLL
      for (int s = 0; s < sums; ++s) {
        part[s][r] = sum[s];
      }
    }
  });
  STONE_UNROLL
  for (int s = 0; s < sums; ++s) {
    write_totals<rows>(to[s] + first, part[s]);
  }
}

// Sums over `dim` entries of each of `count` rows, into to[s][row]. `add(read, row, sum)` adds the terms of one vector
// of a row to sum[0], ..., sum[sums - 1]; with `far` it is to read what lies ahead too, while these rows are summed.
template <int sums, class Add>
STONE_FUNCTION void sum_rows(double* const* to, int count, int64_t dim, bool far, const Add& add) {
  for (int first = 0; first < count; first += kRowsAtOnce<sums>) {
    if (far) {
      sum_group<sums, true>(to, first, dim, add);
    } else {
      sum_group<sums, false>(to, first, dim, add);
    }
  }
}

// The rows of a block that are summed last may be fewer: the first stands in for those that are missing.
template <int sums, class P>
STONE_FUNCTION void fill_up(P* row, int count) {
  for (int r = count; r % kRowsAtOnce<sums> != 0; ++r) {
    row[r] = row[0];
  }
}

}  // namespace STONE_NAMESPACE
