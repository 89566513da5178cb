// Apart from the other formulas, so that they compile side by side.
#include "formula.cuh"
#include "stone/formulas/poincare.h"

STONE_CUDA_FORMULA(Expmap)
STONE_CUDA_FORMULA(Logmap)
STONE_CUDA_FORMULA(PoincareGeodesic)
STONE_CUDA_FORMULA(PoincareTransport)
