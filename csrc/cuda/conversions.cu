#include "formula.cuh"
#include "stone/formulas/conversions.h"

STONE_CUDA_FORMULA(PoincareToLorentz)
STONE_CUDA_FORMULA(PoincareToKlein)
STONE_CUDA_FORMULA(LorentzToPoincare)
STONE_CUDA_FORMULA(LorentzToKlein)
STONE_CUDA_FORMULA(KleinToPoincare)
STONE_CUDA_FORMULA(KleinToLorentz)
