// Apart from the other formulas, so that they compile side by side.
#include "formula.cuh"
#include "stone/formulas/lorentz.h"

STONE_CUDA_FORMULA(LorentzExpmap)
STONE_CUDA_FORMULA(LorentzLogmap)
STONE_CUDA_FORMULA(LorentzGeodesic)
STONE_CUDA_FORMULA(LorentzTransport)
