// The columns of an operator that puts rows in another order, on the CPU: checked, and planned for whole vectors.
#pragma once

#include <algorithm>
#include <memory>
#include <vector>

#include "kernels.h"
#include "pifa.h"

namespace stone {

class CpuOrder {
 public:
  // `index` is contiguous: entry `o` of the result is entry index[o] of [pivots, others].
  CpuOrder(const launch::Tensor& index, int64_t rank, const launch::Tensor& x)
      : index_(static_cast<const int32_t*>(index.const_data_ptr())),
        count_(index.size(0)),
        rank_(rank),
        element_(launch::element(x)),
        bytes_(static_cast<int64_t>(launch::element_size(x.scalar_type()))),
        kernel_(*kernels().take) {
    check();
  }

  // The products are written where their rows stay, and each row is put in order there.
  static constexpr bool kInResult = true;
  int64_t second() const { return rank_; }
  int64_t stride() const { return count_; }

  void join(const launch::Tensor& /*products*/, const launch::Tensor& result, const void* bias, int64_t rows) const {
    if (in_order_ && bias == nullptr) {
      return;
    }
    void* const y = result.mutable_data_ptr();
    TakeArguments arguments = arguments_of(y, count_, y, count_, index_, count_, rows);
    arguments.bias = bias;
    // Up to a vector is read beyond a row.
    const int64_t row_bytes = (count_ * bytes_ / kernel_.vector_bytes + 2) * kernel_.vector_bytes;
    const Aligned steps(rows < kFewestPlanned ? 0 : kernel_.plan_bytes(element_, count_), kernel_.vector_bytes);
    if (rows >= kFewestPlanned && kernel_.plan(arguments, rank_, steps.at)) {
      arguments.plan = steps.at;
    }
    over_rows(arguments, [&](int64_t begin, int64_t end) {
      const Aligned row(row_bytes, kernel_.vector_bytes);
      kernel_.rows(arguments, begin, end, row.at);
    });
  }

  // The entries of rows of the result that came from the others, and, added to what `target` holds, from the pivots.
  void take_others(const void* rows_of_result, void* target, int64_t rows) {
    take(arguments_of(rows_of_result, count_, target, count_ - rank_, inverse() + rank_, count_ - rank_, rows));
  }
  void add_pivots(const void* rows_of_result, void* target, int64_t rows) {
    TakeArguments arguments = arguments_of(rows_of_result, count_, target, rank_, inverse(), rank_, rows);
    arguments.adds = true;
    take(arguments);
  }

 private:
  static constexpr int64_t kFewestPlanned = 4;

  struct Aligned {
    std::unique_ptr<char[]> memory;
    void* at;

    Aligned(int64_t bytes, int64_t alignment) : memory(new char[static_cast<size_t>(bytes + alignment)]) {
      size_t space = static_cast<size_t>(bytes + alignment);
      at = memory.get();
      std::align(static_cast<size_t>(alignment), static_cast<size_t>(bytes), at, space);
    }
  };

  // One look at an index of two ascending runs, a second one at others.
  void check() {
    int64_t pivots = 0, others = rank_;
    bool ascending = true;
    for (int64_t o = 0; o < count_; ++o) {
      const bool pivot = index_[o] < rank_;
      ascending &= index_[o] == (pivot ? pivots : others);
      pivots += pivot ? 1 : 0;
      others += pivot ? 0 : 1;
      in_order_ &= index_[o] == o;
    }
    if (ascending && pivots == rank_) {
      return;
    }
    std::vector<bool> seen(static_cast<size_t>(count_));
    for (int64_t o = 0; o < count_; ++o) {
      const int64_t at = index_[o];
      if (at < 0 || at >= count_ || seen[static_cast<size_t>(at)]) {
        launch::refuse_index(count_, o, at);
      }
      seen[static_cast<size_t>(at)] = true;
    }
  }

  const int32_t* inverse() {
    if (inverse_.empty()) {
      inverse_.resize(static_cast<size_t>(count_));
      for (int64_t o = 0; o < count_; ++o) {
        inverse_[static_cast<size_t>(index_[o])] = static_cast<int32_t>(o);
      }
    }
    return inverse_.data();
  }

  TakeArguments arguments_of(const void* source, int64_t source_stride, void* target, int64_t target_stride,
                             const int32_t* columns, int64_t count, int64_t rows) const {
    TakeArguments arguments{};
    arguments.element = element_;
    arguments.rows = rows;
    arguments.count = count;
    arguments.source_stride = source_stride;
    arguments.target_stride = target_stride;
    arguments.source = source;
    arguments.target = target;
    arguments.columns = columns;
    return arguments;
  }

  void take(const TakeArguments& arguments) const {
    over_rows(arguments, [&](int64_t begin, int64_t end) { kernel_.rows(arguments, begin, end, nullptr); });
  }

  template <class Work>
  static void over_rows(const TakeArguments& arguments, const Work& work) {
    // Fewer elements than this on a thread cost more to hand out than to work off.
    const int64_t grain = 32768 / std::max<int64_t>(arguments.count, 1) + 1;
    if (arguments.rows <= grain) {
      work(0, arguments.rows);
    } else {
      torch::stable::parallel_for(0, arguments.rows, grain, work);
    }
  }

  const int32_t* index_;
  int64_t count_;
  int64_t rank_;
  Element element_;
  int64_t bytes_;
  const TakeKernels& kernel_;
  bool in_order_ = true;
  std::vector<int32_t> inverse_;
};

}  // namespace stone
