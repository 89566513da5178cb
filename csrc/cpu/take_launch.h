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

  // Whether the products may be written where they stay.
  bool in_place() const { return in_place_; }

  // Rows whose products stay in the second-level cache until they are put in order.
  int64_t block(int64_t rows) const {
    constexpr int64_t cached_bytes = 1 << 20;
    // A product of fewer rows would spend its time on arranging the weight.
    constexpr int64_t fewest = 128;
    const int64_t fitting = std::max(cached_bytes / std::max<int64_t>(count_ * bytes_, 1), fewest);
    const int64_t blocks = (rows + fitting - 1) / fitting;
    return blocks > 1 ? (rows + blocks - 1) / blocks : rows;
  }

  // Where the others begin in a row of the products, and from which row to row.
  int64_t second() const { return rank_; }
  int64_t stride() const { return count_ + kernel_.vector_bytes / bytes_; }

  // Rows of products in the order of the result, with the bias added.
  void join(const launch::Tensor& products, int64_t stride, void* result, const void* bias, int64_t rows) {
    if (rows >= fewest_planned && !planned_ && !in_place_) {
      plan(products);
    }
    TakeArguments arguments = arguments_of(products.const_data_ptr(), stride, result, count_, index_, count_, rows);
    arguments.bias = bias;
    arguments.plan = in_place_ ? nullptr : plan_;
    run(arguments);
  }

  // The entries of rows of the result that came from the others, and, added to what `target` holds, from the pivots.
  void take_others(const void* rows_of_result, void* target, int64_t rows) {
    run(arguments_of(rows_of_result, count_, target, count_ - rank_, inverse() + rank_, count_ - rank_, rows));
  }
  void add_pivots(const void* rows_of_result, void* target, int64_t rows) {
    TakeArguments arguments = arguments_of(rows_of_result, count_, target, rank_, inverse(), rank_, rows);
    arguments.adds = true;
    run(arguments);
  }

 private:
  static constexpr int64_t fewest_planned = 4;

  // One look at an index of two ascending runs, a second one at others.
  void check() {
    int64_t pivots = 0, others = rank_;
    bool ascending = true;
    for (int64_t o = 0; o < count_; ++o) {
      const bool pivot = index_[o] < rank_;
      ascending &= index_[o] == (pivot ? pivots : others);
      pivots += pivot ? 1 : 0;
      others += pivot ? 0 : 1;
      in_place_ &= index_[o] == o;
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

  void plan(const launch::Tensor& products) {
    planned_ = true;
    const int64_t bytes = kernel_.plan_bytes(element_, count_);
    size_t space = static_cast<size_t>(bytes + kernel_.vector_bytes);
    memory_.reset(new char[space]);
    void* aligned = memory_.get();
    std::align(static_cast<size_t>(kernel_.vector_bytes), static_cast<size_t>(bytes), aligned, space);
    const TakeArguments arguments =
        arguments_of(products.const_data_ptr(), stride(), nullptr, count_, index_, count_, 0);
    plan_ = kernel_.plan(arguments, rank_, aligned) ? aligned : nullptr;
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

  void run(const TakeArguments& arguments) const {
    // Fewer elements than this on a thread cost more to hand out than to work off.
    const int64_t grain = 32768 / std::max<int64_t>(arguments.count, 1) + 1;
    if (arguments.rows <= grain) {
      kernel_.rows(arguments, 0, arguments.rows);
    } else {
      torch::stable::parallel_for(0, arguments.rows, grain, [&](int64_t begin, int64_t end) {
        kernel_.rows(arguments, begin, end);
      });
    }
  }

  const int32_t* index_;
  int64_t count_;
  int64_t rank_;
  Element element_;
  int64_t bytes_;
  const TakeKernels& kernel_;
  bool in_place_ = true;
  bool planned_ = false;
  const void* plan_ = nullptr;
  std::unique_ptr<char[]> memory_;
  std::vector<int32_t> inverse_;
};

}  // namespace stone
