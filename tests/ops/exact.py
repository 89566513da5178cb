"""The textbook formulas in mpmath, on lists of numbers: what the operators are measured against."""

import mpmath as mp


def dot(x, y):
    return mp.fsum(a * b for a, b in zip(x, y, strict=True))


def combine(*terms):
    """Sum of (coefficient, row)."""
    return [mp.fsum(k * row[i] for k, row in terms) for i in range(len(terms[0][1]))]


def norm(x):
    return mp.sqrt(dot(x, x))


def scaled(x, factor):
    return [factor * e for e in x]


def mobius_add(x, y, c):
    d = 1 + 2 * c * dot(x, y) + c * c * dot(x, x) * dot(y, y)
    return combine(((1 + 2 * c * dot(x, y) + c * dot(y, y)) / d, x), ((1 - c * dot(x, x)) / d, y))


def along(x, function, c):
    """function(sqrt(c) ||x||) / (sqrt(c) ||x||) * x, and x at the origin."""
    u = mp.sqrt(c) * norm(x)
    return scaled(x, function(u) / u) if u else list(x)


def expmap(x, v, c):
    scale = 1 / (1 - c * dot(x, x))
    return mobius_add(x, along(v, lambda u: mp.tanh(scale * u), c), c)


def logmap(x, y, c):
    w = mobius_add(scaled(x, -1), y, c)
    return scaled(along(w, mp.atanh, c), 1 - c * dot(x, x))


def poincare_dist(x, y, c):
    return [2 / mp.sqrt(c) * mp.atanh(mp.sqrt(c) * norm(mobius_add(scaled(x, -1), y, c)))]


def poincare_dist0(x, c):
    return [2 / mp.sqrt(c) * mp.atanh(mp.sqrt(c) * norm(x))]


def mobius_scalar_mul(x, c, r):
    return along(x, lambda u: mp.tanh(r * mp.atanh(u)), c)


def conformal_factor(x, c):
    return [2 / (1 - c * dot(x, x))]


def poincare_geodesic(x, y, c, t):
    w = mobius_add(scaled(x, -1), y, c)
    return mobius_add(x, along(w, lambda u: mp.tanh(t * mp.atanh(u)), c), c)


def poincare_transport(x, y, v, c):
    """gyr[y, -x] v = -(y (-) x) (+) (y (+) (-x (+) v)) is linear in v: taken at a v of length 1e-60."""
    small = scaled(v, mp.mpf(10) ** -60)
    turned = mobius_add(
        scaled(mobius_add(y, scaled(x, -1), c), -1), mobius_add(y, mobius_add(scaled(x, -1), small, c), c), c
    )
    return scaled(turned, mp.mpf(10) ** 60 * (1 - c * dot(y, y)) / (1 - c * dot(x, x)))


def lifted(x, c):
    return [mp.sqrt(1 / c + dot(x, x)), *x]


def minkowski(x, y):
    return dot(x[1:], y[1:]) - x[0] * y[0]


def tangent(x, v):
    """The vector tangent at x with these space components."""
    return [dot(x[1:], v[1:]) / x[0], *v[1:]]


def lorentz_expmap0(v, c):
    u = mp.sqrt(c) * norm(v[1:])
    return [mp.cosh(u) / mp.sqrt(c), *along(v[1:], mp.sinh, c)]


def lorentz_logmap0(x, c):
    return [mp.mpf(0), *along(x[1:], mp.asinh, c)]


def lorentz_dist(x, y, c):
    return [mp.acosh(-c * minkowski(lifted(x[1:], c), lifted(y[1:], c))) / mp.sqrt(c)]


def lorentz_expmap(x, v, c):
    x = lifted(x[1:], c)
    v = tangent(x, v)
    u = mp.sqrt(c * minkowski(v, v))
    return combine((mp.cosh(u), x), (mp.sinh(u) / u, v)) if u else x


def lorentz_logmap(x, y, c):
    x, y = lifted(x[1:], c), lifted(y[1:], c)
    u = mp.acosh(-c * minkowski(x, y))
    return combine((u / mp.sinh(u), y), (-u / mp.tanh(u), x))


def lorentz_geodesic(x, y, c, t):
    x, y = lifted(x[1:], c), lifted(y[1:], c)
    u = mp.acosh(-c * minkowski(x, y))
    return combine((mp.sinh((1 - t) * u) / mp.sinh(u), x), (mp.sinh(t * u) / mp.sinh(u), y))


def lorentz_project(x, c):
    return lifted(x[1:], c)


def lorentz_transport(x, y, v, c):
    x, y = lifted(x[1:], c), lifted(y[1:], c)
    v = tangent(x, v)
    k = c * minkowski(y, v) / (1 - c * minkowski(x, y))
    return combine((1, v), (k, x), (k, y))


def klein_add(x, y, c):
    g = 1 / mp.sqrt(1 - c * dot(x, x))
    d = 1 + c * dot(x, y)
    return combine(((1 + c * g / (1 + g) * dot(x, y)) / d, x), (1 / (g * d), y))


def klein_dist(x, y, c):
    both = (1 - c * dot(x, x)) * (1 - c * dot(y, y))
    return [mp.acosh((1 - c * dot(x, y)) / mp.sqrt(both)) / mp.sqrt(c)]


def klein_geodesic(x, y, c, t):
    points = [klein_to_lorentz(p, c) for p in (x, y)]
    return lorentz_to_klein(lorentz_geodesic(*points, c, t), c)


def poincare_to_lorentz(x, c):
    alpha = 1 - c * dot(x, x)
    return [(2 - alpha) / (alpha * mp.sqrt(c)), *scaled(x, 2 / alpha)]


def poincare_to_klein(x, c):
    return scaled(x, 2 / (1 + c * dot(x, x)))


def lorentz_to_poincare(x, c):
    return scaled(x[1:], 1 / (1 + mp.sqrt(c) * lifted(x[1:], c)[0]))


def lorentz_to_klein(x, c):
    return scaled(x[1:], 1 / (mp.sqrt(c) * lifted(x[1:], c)[0]))


def klein_to_poincare(x, c):
    return scaled(x, 1 / (1 + mp.sqrt(1 - c * dot(x, x))))


def klein_to_lorentz(x, c):
    width = mp.sqrt(1 - c * dot(x, x))
    return [1 / (width * mp.sqrt(c)), *scaled(x, 1 / width)]


def sphere_expmap(x, v, c):
    x = scaled(x, 1 / (mp.sqrt(c) * norm(x)))
    v = combine((1, v), (-c * dot(x, v), x))
    u = mp.sqrt(c) * norm(v)
    return combine((mp.cos(u), x), (mp.sin(u) / u, v)) if u else x


def sphere_dist(x, y, c):
    return [2 / mp.sqrt(c) * mp.atan2(norm(combine((1, x), (-1, y))), norm(combine((1, x), (1, y))))]


def sphere_project(x, c):
    return scaled(x, 1 / (mp.sqrt(c) * norm(x)))


def sphere_logmap(x, y, c):
    u = mp.sqrt(c) * sphere_dist(x, y, c)[0]
    return combine((u / mp.sin(u), y), (-u / mp.tan(u), x))


def sphere_geodesic(x, y, c, t):
    u = mp.sqrt(c) * sphere_dist(x, y, c)[0]
    return combine((mp.sin((1 - t) * u) / mp.sin(u), x), (mp.sin(t * u) / mp.sin(u), y))
