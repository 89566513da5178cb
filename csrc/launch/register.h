// One table of operators for every device: each operator and its `_forward` twin share a kernel.
#pragma once

#include <torch/csrc/stable/library.h>

#include "formula.h"
#include "hyper_butterfly.h"
#include "linear_epilogue.h"
#include "low_rank.h"
#include "mobius.h"
#include "pifa.h"
#include "radial.h"

namespace stone::launch {

template <class Device>
void register_linear_layers(torch::stable::detail::StableLibrary& m) {
  m.impl("butterfly", TORCH_BOX((&butterfly<Device>)));
  m.impl("butterfly_forward", TORCH_BOX((&butterfly<Device>)));
  m.impl("butterfly_backward", TORCH_BOX((&butterfly_backward<Device>)));
  m.impl("hyper_butterfly", TORCH_BOX((&hyper_butterfly<Device>)));
  m.impl("hyper_butterfly_forward", TORCH_BOX((&hyper_butterfly<Device>)));
  m.impl("hyper_butterfly_backward", TORCH_BOX((&hyper_butterfly_backward<Device>)));
  m.impl("poincare_linear_epilogue", TORCH_BOX((&poincare_linear_epilogue<Device>)));
  m.impl("poincare_linear_epilogue_forward", TORCH_BOX((&poincare_linear_epilogue<Device>)));
  m.impl("poincare_linear_epilogue_backward", TORCH_BOX((&poincare_linear_epilogue_backward<Device>)));
  m.impl("add_time", TORCH_BOX((&add_time<Device>)));
  m.impl("add_time_forward", TORCH_BOX((&add_time<Device>)));
  m.impl("add_time_backward", TORCH_BOX((&add_time_backward<Device>)));
}

template <class Device>
void register_pifa(torch::stable::detail::StableLibrary& m) {
  m.impl("pifa_linear", TORCH_BOX((&pifa_linear<Device>)));
  m.impl("pifa_linear_forward", TORCH_BOX((&pifa_linear<Device>)));
  m.impl("pifa_linear_backward", TORCH_BOX((&pifa_linear_backward<Device>)));
}

template <class Device>
void register_operators(torch::stable::detail::StableLibrary& m) {
  m.impl("expmap0", TORCH_BOX((&radial<Device, kExpmap0, RadialMap::kExpmap0>)));
  m.impl("expmap0_forward", TORCH_BOX((&radial<Device, kExpmap0, RadialMap::kExpmap0>)));
  m.impl("expmap0_backward", TORCH_BOX((&radial_backward<Device, kExpmap0, RadialMap::kExpmap0>)));
  m.impl("logmap0", TORCH_BOX((&radial<Device, kLogmap0, RadialMap::kLogmap0>)));
  m.impl("logmap0_forward", TORCH_BOX((&radial<Device, kLogmap0, RadialMap::kLogmap0>)));
  m.impl("logmap0_backward", TORCH_BOX((&radial_backward<Device, kLogmap0, RadialMap::kLogmap0>)));
  m.impl("mobius_add", TORCH_BOX((&mobius_add<Device>)));
  m.impl("mobius_add_forward", TORCH_BOX((&mobius_add<Device>)));
  m.impl("mobius_add_backward", TORCH_BOX((&mobius_add_backward<Device>)));
  register_formulas<Device>(m, portable::RowFormulas{},
                            std::make_index_sequence<portable::RowFormulas::kCount>{});
  m.impl("low_rank_linear", TORCH_BOX(&low_rank_linear));
  m.impl("low_rank_linear_forward", TORCH_BOX(&low_rank_linear));
  m.impl("low_rank_linear_backward", TORCH_BOX(&low_rank_linear_backward));
}

}  // namespace stone::launch
