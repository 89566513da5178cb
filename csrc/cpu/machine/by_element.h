// From the element type that is known at run time to code compiled for it.
#pragma once

#include "stone/macros.h"
#include "stone/types.h"

namespace STONE_NAMESPACE {

// Calls `work` with a zero of the element type.
template <class Work>
inline void by_element(Element element, const Work& work) {
  switch (element) {
    case Element::kFloat32:
      return work(float());
    case Element::kFloat64:
      return work(double());
    case Element::kBFloat16:
      return work(BFloat16());
    case Element::kFloat16:
      return work(Half());
  }
}

}  // namespace STONE_NAMESPACE
