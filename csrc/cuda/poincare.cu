#include "formula.cuh"
#include "stone/formulas/poincare.h"

STONE_CUDA_FORMULA(PoincareDist)
STONE_CUDA_FORMULA(PoincareDist0)
STONE_CUDA_FORMULA(MobiusScalarMul)
STONE_CUDA_FORMULA(MobiusMatvec)
STONE_CUDA_FORMULA(Project)
STONE_CUDA_FORMULA(ConformalFactor)
