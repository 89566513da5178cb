// Every row formula. An operator of rows is a formula in this list, and its declaration in stonefx/ops.
#pragma once

#include "stone/formulas/conversions.h"
#include "stone/formulas/klein.h"
#include "stone/formulas/lorentz.h"
#include "stone/formulas/poincare.h"
#include "stone/formulas/sphere.h"

namespace STONE_NAMESPACE {

template <class... Formulas>
struct FormulaList {
  static constexpr int kCount = sizeof...(Formulas);
};

using RowFormulas =
    FormulaList<Expmap, Logmap, PoincareDist, PoincareDist0, MobiusScalarMul, MobiusMatvec, Project, ConformalFactor,
                PoincareGeodesic, PoincareTransport, PoincareToLorentz, PoincareToKlein, LorentzInner, LorentzExpmap0,
                LorentzLogmap0, LorentzExpmap, LorentzLogmap, LorentzDist, LorentzProject, LorentzGeodesic,
                LorentzTransport, LorentzRescale, LorentzToPoincare, LorentzToKlein, KleinAdd, KleinDist, KleinGeodesic,
                KleinToPoincare, KleinToLorentz, SphereExpmap, SphereLogmap, SphereDist, SphereGeodesic,
                SphereProject>;

}  // namespace STONE_NAMESPACE
