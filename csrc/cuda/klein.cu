#include "formula.cuh"
#include "stone/formulas/klein.h"

STONE_CUDA_FORMULA(KleinAdd)
STONE_CUDA_FORMULA(KleinDist)
STONE_CUDA_FORMULA(KleinGeodesic)
