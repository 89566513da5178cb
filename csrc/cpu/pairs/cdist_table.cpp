// Compiled once for each instruction set, as table.cpp is.
#include "pairs/cdist_backward.h"
#include "pairs/cdist_forward.h"
#include "pairs/cdist_kernels.h"

namespace STONE_NAMESPACE {

namespace {

// The images of points of the other models, and float64 points, need float64 for their pairs.
bool wide(const CdistArguments& a) { return a.element == Element::kFloat64 || a.model != Model::kPoincare; }

template <class T, class C>
void both_sides(const CdistArguments& a, void* scratch, int64_t begin, int64_t end) {
  const int64_t of_x = a.batch * tiles(a.rows);
  if (begin < of_x) {
    cdist_backward<T, C>(a, 0, scratch, begin, end < of_x ? end : of_x);
  }
  if (end > of_x) {
    cdist_backward<T, C>(a, 1, scratch, begin > of_x ? begin - of_x : 0, end - of_x);
  }
}

template <class T>
void forward_of(const CdistArguments& a, void* scratch, int64_t begin, int64_t end) {
  wide(a) ? cdist_forward<T, double>(a, scratch, begin, end) : cdist_forward<T, float>(a, scratch, begin, end);
}

template <class T>
void backward_of(const CdistArguments& a, void* scratch, int64_t begin, int64_t end) {
  wide(a) ? both_sides<T, double>(a, scratch, begin, end) : both_sides<T, float>(a, scratch, begin, end);
}

void forward(const CdistArguments& a, void* scratch, int64_t begin, int64_t end) {
  switch (a.element) {
    case Element::kFloat32:
      return forward_of<float>(a, scratch, begin, end);
    case Element::kFloat64:
      return cdist_forward<double, double>(a, scratch, begin, end);
    case Element::kBFloat16:
      return forward_of<BFloat16>(a, scratch, begin, end);
    case Element::kFloat16:
      return forward_of<Half>(a, scratch, begin, end);
  }
}

void backward(const CdistArguments& a, void* scratch, int64_t begin, int64_t end) {
  switch (a.element) {
    case Element::kFloat32:
      return backward_of<float>(a, scratch, begin, end);
    case Element::kFloat64:
      return both_sides<double, double>(a, scratch, begin, end);
    case Element::kBFloat16:
      return backward_of<BFloat16>(a, scratch, begin, end);
    case Element::kFloat16:
      return backward_of<Half>(a, scratch, begin, end);
  }
}

int64_t scratch_bytes(const CdistArguments& a) {
  const bool with_far = a.model == Model::kLorentz;
  return wide(a) ? CdistScratch<double>::bytes(a.dim, with_far) : CdistScratch<float>::bytes(a.dim, with_far);
}

int64_t tiles_of(int64_t extent) { return tiles(extent); }

}  // namespace

extern const CdistKernels kCdist = {forward, backward, scratch_bytes, tiles_of};

}  // namespace STONE_NAMESPACE
