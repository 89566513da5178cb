"""What the tests of the operators share: their names, arguments to call them with, and plain spellings."""

import sys

import torch

import stonefx.ops  # noqa: F401  (registers the operators)

ROW_MAPS = ("expmap0", "logmap0")
HYPERBOLIC = (*ROW_MAPS, "mobius_add")
LOW_RANK = ("low_rank_linear", "pifa_linear")
NAMES = (*HYPERBOLIC, *LOW_RANK)
LIMIT = {"expmap0": "tanh_limit", "logmap0": "atanh_limit"}
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def module(name):
    """Where an operator is written."""
    (found,) = (full for full in sys.modules if full.startswith("stonefx.ops.") and full.endswith(f".{name}"))
    return sys.modules[found]


def declared(name):
    """The `Operator` of a name: its reference and the reference of its backward."""
    return module(name).OPERATOR


def overload(name):
    return getattr(torch.ops.stone, name).default


def points(*shape, dtype=torch.float64, seed=0, radius=0.8):
    """Rows inside the ball of curvature -1, at norms up to `radius`."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    lengths = torch.rand(*shape[:-1], 1, generator=generator, dtype=torch.float64) * radius + 1e-3
    return (x / x.norm(dim=-1, keepdim=True) * lengths).to(dtype)


def arguments(name, dtype=torch.float64, batch=(5,), dim=7, c=None):
    """Positional arguments of one call, without gradients."""
    if name == "low_rank_linear":
        shapes = ((*batch, dim), (3, dim), (6, 3), (6,))
        generator = torch.Generator().manual_seed(1)
        return tuple(torch.randn(*s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes)
    if name == "pifa_linear":
        x, pivot, _, bias = arguments("low_rank_linear", dtype, batch, dim)
        interpolation = torch.tensor([[0.5, -1.0, 0.25], [1.5, 0.0, -0.75], [-0.5, 1.0, 2.0]], dtype=dtype)
        return x, pivot, interpolation, torch.tensor([3, 0, 4, 1, 2, 5], dtype=torch.int32), bias
    if c is None:
        c = torch.linspace(0.3, 1.2, batch[0] if batch else 1, dtype=torch.float64).to(dtype)
        c = c.reshape(-1, *[1] * len(batch)) if batch else c[0]
    x = points(*batch, dim, dtype=dtype)
    return (x, points(*batch, dim, dtype=dtype, seed=2), c) if name == "mobius_add" else (x, c)


def has_gradient(args):
    """Positions of the arguments that are no integers."""
    return tuple(i for i, a in enumerate(args) if a.is_floating_point())


def requiring(args):
    return tuple(a.detach().clone().requires_grad_(a.is_floating_point()) for a in args)


def without_bias(name, args):
    """The operands of `name_backward` behind the gradient."""
    return tuple(args[: 4 if name == "pifa_linear" else 3])


def relative(got, expected):
    """Largest error of a row over its norm; for a single number, over its size."""
    got, expected = got.double(), expected.double()
    if expected.dim() == 0:
        return ((got - expected).abs() / expected.abs()).item()
    error = (got - expected).norm(dim=-1) / expected.norm(dim=-1).clamp_min(1e-300)
    return error.max().item() if error.numel() else 0.0


def spelled(name, guards):
    """The formula as a user writes it, for autograd to differentiate."""

    def guarded(x, c, prefix=""):
        n = x.norm(dim=-1, keepdim=True)
        if f"{prefix}square_offset" in guards:
            n = torch.sqrt((x * x).sum(-1, keepdim=True) + guards[f"{prefix}square_offset"])
        if f"{prefix}min_norm" in guards:
            n = n.clamp(min=guards[f"{prefix}min_norm"])
        if f"{prefix}norm_offset" in guards:
            n = n + guards[f"{prefix}norm_offset"]
        u = c.sqrt() * n
        return u.clamp(min=guards[f"{prefix}min_scaled"]) if f"{prefix}min_scaled" in guards else u

    def radial(x, c):
        u = guarded(x, c)
        argument = guarded(x, c, "argument_") if guards.get("separate") else u
        limited = argument.clamp(max=guards[LIMIT[name]]) if LIMIT[name] in guards else argument
        return (torch.tanh(limited) if name == "expmap0" else torch.atanh(limited)) / u * x

    def mobius(x, y, c):
        xy, xx, yy = (
            (x * y).sum(-1, keepdim=True),
            x.pow(2).sum(-1, keepdim=True),
            y.pow(2).sum(-1, keepdim=True),
        )
        d = 1 + 2 * c * xy + c**2 * xx * yy
        if "min_denominator" in guards:
            d = d.clamp(min=guards["min_denominator"])
        d = d + guards.get("denominator_offset", 0.0)
        z = ((1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y) / d
        radius = guards.get("max_radius", torch.inf)
        length = c.sqrt() * z.norm(dim=-1, keepdim=True)
        return torch.where(length > radius, z / length * radius, z) if radius < torch.inf else z

    return mobius if name == "mobius_add" else radial
