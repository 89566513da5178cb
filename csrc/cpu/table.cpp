// Compiled once for each instruction set, with STONE_NAMESPACE naming it. It must include no header whose inline
// functions others could link to: see stone/macros.h.
#include "rows/mobius_rows.h"
#include "rows/radial_rows.h"
#include "stone/expmap0.h"
#include "stone/logmap0.h"

namespace STONE_NAMESPACE {

namespace {

template <class Map>
void radial(const RadialArguments& arguments, int64_t begin, int64_t end) {
  switch (arguments.element) {
    case Element::kFloat32:
      return radial_forward<Map, float>(arguments, begin, end);
    case Element::kFloat64:
      return radial_forward<Map, double>(arguments, begin, end);
    case Element::kBFloat16:
      return radial_forward<Map, BFloat16>(arguments, begin, end);
    case Element::kFloat16:
      return radial_forward<Map, Half>(arguments, begin, end);
  }
}

template <class Map>
void radial_gradients(const RadialArguments& arguments, int64_t begin, int64_t end) {
  switch (arguments.element) {
    case Element::kFloat32:
      return radial_backward<Map, float>(arguments, begin, end);
    case Element::kFloat64:
      return radial_backward<Map, double>(arguments, begin, end);
    case Element::kBFloat16:
      return radial_backward<Map, BFloat16>(arguments, begin, end);
    case Element::kFloat16:
      return radial_backward<Map, Half>(arguments, begin, end);
  }
}

void mobius(const MobiusArguments& arguments, int64_t begin, int64_t end) {
  switch (arguments.element) {
    case Element::kFloat32:
      return mobius_forward<float>(arguments, begin, end);
    case Element::kFloat64:
      return mobius_forward<double>(arguments, begin, end);
    case Element::kBFloat16:
      return mobius_forward<BFloat16>(arguments, begin, end);
    case Element::kFloat16:
      return mobius_forward<Half>(arguments, begin, end);
  }
}

void mobius_gradients(const MobiusArguments& arguments, int64_t begin, int64_t end) {
  switch (arguments.element) {
    case Element::kFloat32:
      return mobius_backward<float>(arguments, begin, end);
    case Element::kFloat64:
      return mobius_backward<double>(arguments, begin, end);
    case Element::kBFloat16:
      return mobius_backward<BFloat16>(arguments, begin, end);
    case Element::kFloat16:
      return mobius_backward<Half>(arguments, begin, end);
  }
}

}  // namespace

extern const RowKernels* const kRowKernels;

extern const Kernels kKernels = {
    radial<Expmap0>,           radial_gradients<Expmap0>, radial<Logmap0>,
    radial_gradients<Logmap0>, mobius,                    mobius_gradients,
    &kButterfly,
    &kLinearEpilogue,
    &kTake,
    kRowKernels,
};

}  // namespace STONE_NAMESPACE
