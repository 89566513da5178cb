#include "formula.cuh"
#include "stone/formulas/sphere.h"

STONE_CUDA_FORMULA(SphereExpmap)
STONE_CUDA_FORMULA(SphereLogmap)
STONE_CUDA_FORMULA(SphereDist)
STONE_CUDA_FORMULA(SphereGeodesic)
STONE_CUDA_FORMULA(SphereProject)
