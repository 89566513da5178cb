// The formulas of lorentz.h for rows far from the origin.
#pragma once

#include "stone/analytic.h"
#include "stone/far_rows.h"

namespace STONE_NAMESPACE {

struct FarDist {
  static STONE_FUNCTION bool held(const FarPair& p, const double* guard) {
    return (guard[0] > 1.0) & (p.half() < 0.5 * (guard[0] - 1.0));
  }
  static STONE_FUNCTION double distance(const FarPair& p, const double* guard) {
    return held(p, guard) ? 2.0 * asinh_of_square(0.5 * (guard[0] - 1.0)) : p.distance;
  }
  static STONE_FUNCTION FarValues values(const FarSums& q, const double* s, const double* guard) {
    const FarPair p(q, s[0]);
    return {{distance(p, guard) / p.f.root}, 0.0};
  }
  static STONE_FUNCTION FarGradients gradients(const FarSums& q, double grad, const double* s, const double* guard) {
    const FarPair p(q, s[0]);
    const FarForm none(p.f, 0.0, 0.0, 0.0);
    const double slope = held(p, guard) ? 0.0 : 2.0 * grad * p.inverse;
    return gradients_of_pair(p, none, q.second, 0.0, 0.0, slope, grad * distance(p, guard));
  }
};

// d / sinh(d) (y - cosh(d) x).
struct FarLogmap {
  static STONE_FUNCTION FarValues values(const FarSums& q, const double* s, const double* /*guard*/) {
    const FarPair p(q, s[0]);
    const double d = p.distance;
    if (!q.second) {
      return {{-d * p.slant_share * (p.f.time / p.f.length), p.over_sinh()},
              -d * p.slant_share * p.f.length / p.f.root};
    }
    return {{d * (p.slant_share * (p.time / p.f.length) - p.across_share), -p.over_tanh()},
            d * (p.slant_share * p.along - p.across_share * p.f.time) / p.f.root};
  }
  static STONE_FUNCTION FarGradients gradients(const FarSums& q, double grad, const double* s, const double*) {
    const FarPair p(q, s[0]);
    const FarForm g = form_of(p.f, q, 1, grad);
    const double near_along = g.of.ahead * p.n.ahead - g.of.behind * p.n.behind;
    // On (y - cosh(d) x) / sinh(d), and on x.
    const double cotangent = p.sinh == 0.0 ? 0.0 : p.cosh() / p.sinh;
    const double on_tangent =
        q.second ? p.slant_share * near_along - p.across_share * g.on_far - cotangent * g.across
                 : p.inverse * g.across - p.slant_share * p.f.time * g.at_far;
    const double on_x = q.second ? g.on(p.n) + g.across : g.on_far;
    const double slope = slope_times_sinh(p) * on_tangent - 2.0 * p.over_sinh() * on_x;
    const double of_x = -p.over_tanh(), of_y = p.over_sinh();
    return gradients_of_pair(p, g, q.second, q.second ? of_y : of_x, q.second ? of_x : of_y, slope,
                             p.distance * on_tangent);
  }
  // The derivative of d / sinh(d) for sinh(d / 2)^2, times sinh(d).
  static STONE_FUNCTION double slope_times_sinh(const FarPair& p) {
    const double half = p.half();
    if (half > 1.0) {
      return 2.0 * (1.0 - p.over_tanh()) * p.inverse;
    }
    const Dual<1> w{half, {1.0}};
    return (asinhc(w) / root(1.0 + w)).slope[0] * p.sinh;
  }
};

// (sinh((1 - t) d) x + sinh(t d) y) / sinh(d).
struct FarGeodesic {
  static STONE_FUNCTION FarValues values(const FarSums& q, const double* s, const double* /*guard*/) {
    const FarPair p(q, s[0]);
    const double squared = p.distance * p.distance;
    const double of_x = share_of_arc(1.0 - s[1], squared), of_y = share_of_arc(s[1], squared);
    const double of_far = q.second ? of_y : of_x, of_near = q.second ? of_x : of_y;
    return {{of_far + of_near * (p.along / p.f.length), of_near},
            longer(of_far * p.f.time + of_near * p.time, 1.0) / p.f.root};
  }
  static STONE_FUNCTION FarGradients gradients(const FarSums& q, double grad, const double* s, const double*) {
    const FarPair p(q, s[0]);
    const FarForm g = form_of(p.f, q, 1, grad);
    const Dual<2> t{s[1], {1.0, 0.0}}, squared{p.distance * p.distance, {0.0, 1.0}};
    const Dual<2> of_x = share_of_arc(1.0 - t, squared), of_y = share_of_arc(t, squared);
    const Dual<2> of_far = choose(q.second, of_y, of_x), of_near = choose(q.second, of_x, of_y);
    const double on_near = g.on(p.n) + g.across;
    // d^2 changes with sinh(d / 2)^2 by 4 d / sinh(d).
    const double slope = 4.0 * p.over_sinh() * (g.on_far * of_far.slope[1] + on_near * of_near.slope[1]);
    FarGradients r = gradients_of_pair(p, g, q.second, of_far.value, of_near.value, slope,
                                       g.on_far * of_far.value + on_near * of_near.value);
    r.scalar[1] = (g.on_far * of_far.slope[0] + on_near * of_near.slope[0]) / p.f.root;
    return r;
  }
};

// v + <y, v> / (1 + cosh(d)) (x + y), whose parts ahead, behind and along n_across are linear in the part of v along f
// and in <n_across, v_across>.
struct FarTransport {
  struct Linear {
    double of_along;
    double of_across;

    STONE_FUNCTION double on(double along, double across) const { return of_along * along + of_across * across; }
  };
  FarPair p;
  bool from_far;
  Linear ahead, behind, share;  // share: <y, v> / (1 + cosh(d))
  double along, across;         // of v

  STONE_FUNCTION FarTransport(const FarSums& q, double c) : p(q, c), from_far(!q.second) {
    const FarPoint& f = p.f;
    const double inverse = 1.0 / p.cosh_and_1, slant = p.slant * inverse;
    const double both_ahead = f.at.ahead + p.n.ahead, both_behind = f.at.behind + p.n.behind;
    along = c * q.along[1] / f.length;
    across = c * q.across[1];
    if (from_far) {
      ahead = {0.5 * (f.at.behind * both_ahead * (both_ahead * inverse) - f.at.ahead * (p.across * inverse)) / f.time,
               both_ahead * inverse};
      behind = {-(both_behind * inverse + p.n.behind * slant) / f.time, both_behind * inverse};
      share = {-slant / f.time, inverse};
    } else {
      ahead = {(p.n.ahead + slant * both_ahead) / p.time, (1.0 - f.time * (both_ahead * inverse)) / p.time};
      const double twice =
          p.n.behind + f.at.behind * (2.0 + 2.0 * p.across + f.at.behind * p.n.ahead);
      behind = {-0.5 * twice * inverse / p.time, f.at.behind * (f.length + p.along) * inverse / p.time};
      share = {slant / p.time, -f.time * inverse / p.time};
    }
  }
  STONE_FUNCTION InPlane result() const { return {ahead.on(along, across), behind.on(along, across)}; }

  static STONE_FUNCTION FarValues values(const FarSums& q, const double* s, const double* /*guard*/) {
    const FarTransport t(q, s[0]);
    const InPlane result = t.result();
    return {{result.along() / t.p.f.length, t.share.on(t.along, t.across), 1.0}, result.time() / t.p.f.root};
  }

  // Along f, and along what is across f of n, v and the gradient.
  struct Row {
    double along, of_n, of_v, of_gradient;
  };
  static STONE_FUNCTION FarGradients gradients(const FarSums& q, double grad, const double* s, const double*) {
    const FarTransport t(q, s[0]);
    const FarPair& p = t.p;
    const FarPoint& f = p.f;
    const FarForm g = form_of(f, q, 2, grad);
    const double k = t.share.on(t.along, t.across);
    const InPlane result = t.result();
    const double inverse = 1.0 / p.cosh_and_1;
    // On x + y, over 1 + cosh(d).
    const double on_both =
        g.of.ahead * ((f.at.ahead + p.n.ahead) * inverse) + g.of.behind * ((f.at.behind + p.n.behind) * inverse) +
        g.across * inverse;
    const double on_along = g.of.ahead * t.ahead.of_along + g.of.behind * t.behind.of_along + g.across * t.share.of_along;
    const double on_across =
        g.of.ahead * t.ahead.of_across + g.of.behind * t.behind.of_across + g.across * t.share.of_across;
    const Row of_v{on_along, on_across, 0.0, 1.0};
    // x moves the result as v does, times the share of x + y in it, and the time of v.
    Row of_x{k * on_along, k * on_across, 0.0, k};
    Row of_y{0.0, k * on_both, on_both, k};
    if (t.from_far) {
      const double of_time = (g.time - on_both * p.time) / f.time;
      of_x.along += of_time * (t.along / f.time) / f.time;
      of_x.of_v += of_time;
      of_y.along = k * (g.of.ahead * p.n.ahead - g.of.behind * p.n.behind) / p.time -
                   0.5 * on_both * (result.behind * p.n.ahead - result.ahead * p.n.behind) / p.time;
      of_y.of_n += (k * g.time - on_both * result.time()) / p.time;
    } else {
      // Times time_n, what the time of v has of the loss; that of v itself.
      const double of_time = on_across, v_time = (p.along * t.along + t.across) / p.time;
      of_x.along += of_time * (t.along * (1.0 + p.across) - p.along * t.across) / (p.time * p.time);
      of_x.of_v += of_time;
      of_x.of_n -= of_time * v_time / p.time;
      of_y.along = k * g.at_far -
                   0.5 * on_both * (result.behind * (f.at.ahead / f.time) - result.ahead * (f.at.behind / f.time));
    }
    FarGradients r{};
    const Row* rows[] = {&of_x, &of_y, &of_v};
    STONE_UNROLL
    for (int v = 0; v < 3; ++v) {
      r.of[v][0] = rows[v]->along * f.root / f.length;
      r.of[v][1] = rows[v]->of_n * f.root;
      r.of[v][2] = rows[v]->of_v * f.root;
      r.of[v][3] = rows[v]->of_gradient;
    }
    const Row& of_far = t.from_far ? of_x : of_y;
    const Row& of_near = t.from_far ? of_y : of_x;
    const double moved = f.length * of_far.along + p.along * of_near.along + p.across * of_near.of_n +
                         t.across * of_near.of_v + g.across * of_near.of_gradient;
    r.scalar[0] = 0.5 * moved / (f.root * f.root * f.root);
    return r;
  }
};

// cosh(u) x + sinh(u) / u v, f being x. With e what v moves x along f, and u^2 = e^2 + ||v_across||^2, it multiplies what
// is ahead by cosh(u) + sinh(u) / u e and what is behind by cosh(u) - sinh(u) / u e.
struct FarExpmap {
  FarPoint f;
  double along, across;  // e; the squared length of v across f
  Dual<1> sinhc, cosh;   // by u^2
  double squared;
  double ahead, behind;
  bool held;

  STONE_FUNCTION FarExpmap(const FarSums& q, double c, double limit) : f(q, c) {
    along = c * q.along[0] / f.length / f.time;
    across = c * q.across[0];
    squared = along * along + across;
    held = squared > limit * limit;
    const OddAndEven<Dual<1>> h = hyperbolic_pair(Dual<1>{squared, {1.0}}, limit);
    sinhc = h.odd;
    cosh = h.even;
    const double large = cosh.value + sinhc.value * (along > 0.0 ? along : -along);
    const double small = (1.0 + sinhc.value * sinhc.value * across) / large;
    ahead = along > 0.0 ? large : small;
    behind = along > 0.0 ? small : large;
  }
  STONE_FUNCTION InPlane result() const { return {f.at.ahead * ahead, f.at.behind * behind}; }

  static STONE_FUNCTION FarValues values(const FarSums& q, const double* s, const double* guard) {
    const FarExpmap e(q, s[0], guard[0]);
    const InPlane result = e.result();
    return {{result.along() / e.f.length, e.sinhc.value}, longer(result.time(), 1.0) / e.f.root};
  }

  // What multiplies the form ahead of the origin; behind it, that of the vector -v.
  struct Factors {
    double of_v;       // the derivative of e (times time_f)
    double of_square;  // that of u^2
    double of_x;       // cosh(u) - 2 e^2 of_square

    STONE_FUNCTION Factors(const FarExpmap& m, double e, double factor) {
      const double sinhc = m.sinhc.value;
      if (m.held || m.squared < 1.0) {
        of_square = m.cosh.slope[0] + e * m.sinhc.slope[0];
        of_v = sinhc + 2.0 * e * of_square;
        of_x = m.cosh.value - 2.0 * e * e * of_square;
        return;
      }
      const double inverse = 1.0 / m.squared, across = m.across * inverse * sinhc;
      of_square = 0.5 * (inverse * e * (factor - sinhc) + across);
      of_v = e * e * inverse * factor + across * (1.0 + e);
      of_x = factor * (1.0 - e * e * inverse * e) - across * e * (1.0 + e);
    }
  };
  static STONE_FUNCTION FarGradients gradients(const FarSums& q, double grad, const double* s, const double* guard) {
    const FarExpmap m(q, s[0], guard[0]);
    const FarPoint& f = m.f;
    const FarForm g = form_of(f, q, 1, grad);
    const double e = m.along, sinhc = m.sinhc.value;
    const Factors before(m, e, m.ahead), after(m, -e, m.behind);
    const double on_ahead = g.of.ahead * f.at.ahead, on_behind = g.of.behind * f.at.behind;
    const double turned = 2.0 * e * m.sinhc.slope[0] * g.across;
    const double of_square =
        on_ahead * before.of_square + on_behind * after.of_square + m.sinhc.slope[0] * g.across;
    const double v_along = (on_ahead * before.of_v - on_behind * after.of_v + turned) / f.time;
    const double of_time = sinhc * g.time - 2.0 * e * f.length * of_square;
    // cosh(u) at_far + e of_time / time_f^2, with length_f = time_f - f.behind.
    const double inverse = 1.0 / f.time;
    const double x_along =
        inverse * (on_ahead * before.of_x - on_behind * (m.cosh.value + 2.0 * e * e * after.of_square) +
                   inverse * (2.0 * e * e * (g.of.ahead * before.of_square +
                                             on_behind * f.at.behind * after.of_square) +
                              e * (sinhc * g.time - f.length * turned)));
    FarGradients r{};
    const double scale = f.root / f.length;
    r.of[0][0] = x_along * scale;
    r.of[0][1] = of_time * inverse * f.root;
    r.of[0][2] = m.cosh.value;
    r.of[1][0] = v_along * scale;
    r.of[1][1] = 2.0 * of_square * f.root;
    r.of[1][2] = sinhc;
    const double moved = f.length * x_along + e * f.time * v_along + 2.0 * of_square * m.across -
                         g.on(m.result());
    r.scalar[0] = 0.5 * moved / (f.root * f.root * f.root);
    return r;
  }
};

}  // namespace STONE_NAMESPACE
