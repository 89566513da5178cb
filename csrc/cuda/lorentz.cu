#include "formula.cuh"
#include "stone/formulas/lorentz.h"

STONE_CUDA_FORMULA(LorentzInner)
STONE_CUDA_FORMULA(LorentzExpmap0)
STONE_CUDA_FORMULA(LorentzLogmap0)
STONE_CUDA_FORMULA(LorentzDist)
STONE_CUDA_FORMULA(LorentzProject)
STONE_CUDA_FORMULA(LorentzRescale)
