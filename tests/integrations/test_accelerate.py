"""`stonefx.accelerate`: what it rebinds, for how long, and what it says; of either library."""

from __future__ import annotations

import threading

import pytest
import torch

import stonefx
from stonefx.integrations import rebinding
from stonefx.integrations.geoopt import acceleration

geoopt = pytest.importorskip("geoopt", exc_type=ImportError)
pytest.importorskip("hypll", exc_type=ImportError)

from geoopt.manifolds.stereographic import math as ball_math  # noqa: E402


@pytest.fixture(autouse=True)
def nothing_left_on():
    yield
    assert not rebinding._ACTIVE
    torch._dynamo.reset()


def points(dtype=torch.float32):
    return torch.linspace(-0.3, 0.4, 12, dtype=dtype).view(3, 4), torch.linspace(
        0.2, -0.1, 12, dtype=dtype
    ).view(3, 4)


def calls(monkeypatch):
    """How often an operator answered, by name."""
    counted = {}
    original = rebinding.Slot.ask

    def ask(self, who, run):
        def counting(*args, **kwargs):
            result = run(*args, **kwargs)
            counted[run.__name__] = counted.get(run.__name__, 0) + (result is not NotImplemented)
            return result

        original(self, who, counting)

    monkeypatch.setattr(rebinding.Slot, "ask", ask)
    return counted


def test_it_is_a_context_an_object_and_a_table():
    with stonefx.accelerate("geoopt", ["dist", "PoincareBall.expmap"]) as changed:
        assert changed.active
        assert changed.functions == {"dist": "poincare_dist, poincare_cdist", "PoincareBall.expmap": "expmap"}
        assert "geoopt     PoincareBall.expmap  expmap" in str(changed)
    assert not changed.active
    changed.undo()  # again is nothing


def test_undo_restores_every_bit_and_the_newest_counts():
    x, y = points()
    k = torch.tensor(-1.0)
    before = ball_math.dist(x, y, k=k)
    exact = ball_math.dist(x.double(), y.double(), k=k.double())
    outer = stonefx.accelerate("geoopt")
    ours = ball_math.dist(x, y, k=k)
    assert (ours - exact).abs().max() < (before - exact).abs().max()
    with stonefx.accelerate("geoopt", "dist", bounds="stonefx"):
        assert torch.equal(ball_math.dist(x, y, k=k), ours)
        outer.undo()
        assert torch.equal(ball_math.dist(x, y, k=k), ours)
        assert torch.equal(ball_math.dist0(x, k=k), ball_math._dist0(x, k))
    assert torch.equal(ball_math.dist(x, y, k=k), before)


def test_what_took_hold_of_a_function_in_between_goes_back_too():
    ball, (x, y) = geoopt.PoincareBall(1.0), points()
    before = geoopt.Scaled(ball, 2.0).dist(x, y)
    with stonefx.accelerate("geoopt"):
        taken, scaled = ball_math.dist, geoopt.Scaled(ball, 2.0)
        assert not torch.equal(scaled.dist(x, y), before)
        torch.testing.assert_close(scaled.dist(x, y), before)
    assert torch.equal(taken(x, y, k=ball.k) * 2, before)
    assert torch.equal(scaled.dist(x, y), before)


def test_calls_that_no_operator_covers_are_the_librarys(monkeypatch):
    answered = calls(monkeypatch)
    x, y = points()
    ball = geoopt.PoincareBall(1.0)

    class Another(geoopt.PoincareBall):
        @property
        def c(self):
            return super().c * 2

    cases = {
        "positive": lambda: ball_math.dist(x, y, k=torch.tensor(1.0)),
        "flat": lambda: ball_math.dist(x, y, k=torch.tensor(0.0)),
        "nearly flat": lambda: ball_math.dist(x, y, k=torch.tensor(-1e-9)),
        "mixed": lambda: ball_math.dist(x, y, k=torch.tensor([[-1.0], [1.0], [0.0]]), keepdim=True),
        "another dimension": lambda: ball_math.dist(x, y, k=torch.tensor(-1.0), dim=0),
        "half": lambda: ball_math.dist(x.bfloat16(), y.bfloat16(), k=torch.tensor(-1.0)),
        "two dtypes": lambda: ball_math.dist(x, y.double(), k=torch.tensor(-1.0)),
        "broadcast coordinates": lambda: ball_math.dist(x, y[:, :1], k=torch.tensor(-1.0)),
        "vmap": lambda: torch.func.vmap(lambda a, b: ball.dist(a, b))(x, y),
        "forward mode": lambda: torch.func.jvp(lambda a: ball.dist(a, y), (x,), (y,))[1],
        "unknown subclass": lambda: Another(1.0).mobius_coadd(x, y, project=False),
        "flat ball": lambda: flat.dist(x, y),
    }
    flat = geoopt.PoincareBall(1.0)
    with torch.no_grad():
        flat.isp_c.fill_(-200.0)  # softplus gives 0
    before = {name: case() for name, case in cases.items()}
    names = [*acceleration.BALL, *(f"PoincareBall.{name}" for name in acceleration.METHODS)]
    with stonefx.accelerate("geoopt", names):
        for name, case in cases.items():
            answered.clear()
            result = case()
            assert not sum(answered.values()), name
            assert torch.equal(result, before[name]), name
        Another(1.0).dist(x, y)
        assert answered["dist"] == 1  # the function that geoopt's method calls with its own curvature
    with pytest.raises(TypeError, match="dist"), stonefx.accelerate("geoopt"):
        ball.dist(x)


def test_retraction_follows_the_class():
    x, y = points()
    exact = geoopt.PoincareBallExact(1.0)
    before = exact.retr(x, y), *exact.retr_transp(x, y, y)
    with stonefx.accelerate("geoopt"):
        for found, wanted in zip((exact.retr(x, y), *exact.retr_transp(x, y, y)), before, strict=True):
            torch.testing.assert_close(found, wanted)
        plain = geoopt.PoincareBall(1.0)
        torch.testing.assert_close(plain.retr(x, y), plain.projx(x + y))


def test_threads_switch_it_on_and_off_while_others_compute():
    ball, (x, y) = geoopt.PoincareBall(1.0), points()
    wanted, failures = ball.dist(x, y), []

    def switch():
        for _ in range(40):
            with stonefx.accelerate("geoopt", ["dist", "PoincareBall.dist"]):
                torch.testing.assert_close(ball.dist(x, y), wanted)

    def compute():
        for _ in range(200):
            torch.testing.assert_close(ball.dist(x, y), wanted)

    def caught(run):
        try:
            run()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=caught, args=(run,)) for run in (switch, switch, compute)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert torch.equal(ball.dist(x, y), wanted)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="library got 'geopt'; did you mean 'geoopt'\\?"):
        stonefx.accelerate("geopt")
    with pytest.raises(ValueError, match="functions got 'expmap1'; did you mean 'expmap'\\?"):
        stonefx.accelerate("geoopt", "expmap1")
    with pytest.raises(ValueError, match="bounds got 'mine'"):
        stonefx.accelerate("geoopt", bounds="mine")
    with pytest.raises(ValueError, match="bounds and lorentz are for geoopt"):
        stonefx.accelerate("hypll", lorentz=True)


@pytest.mark.parametrize("library", ["geoopt", "hypll"])
def test_another_version_is_left_alone(monkeypatch, library):
    module = __import__(f"stonefx.integrations.{library}.acceleration", fromlist=["VERSIONS"])
    monkeypatch.setattr(module, "VERSIONS", ("0.0.1",))
    with (
        pytest.warns(
            RuntimeWarning, match=f"of {library} are left alone: {library} .* is left alone: known is 0.0.1"
        ),
        stonefx.accelerate(library) as changed,
    ):
        assert not changed.functions
        assert "left alone" in str(changed)


def test_another_source_is_left_alone(monkeypatch):
    monkeypatch.setattr(acceleration, "BALL", acceleration.BALL | {"dist": ("poincare_dist", "another")})
    x, y = points()
    before = ball_math.dist(x, y, k=torch.tensor(-1.0))
    with pytest.warns(RuntimeWarning, match="1 function"), stonefx.accelerate("geoopt") as changed:
        assert changed.left == {"dist": "its source is not that of geoopt 0.5.1"}
        assert "expmap" in changed.functions
        assert torch.equal(ball_math.dist(x, y, k=torch.tensor(-1.0)), before)


@pytest.mark.filterwarnings("ignore::stonefx.StonefxWarning")
def test_reports_say_what_is_accelerated():
    class Distances(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.ball = geoopt.PoincareBall(1.0)

        def forward(self, x, y):
            return self.ball.dist(x, y)

    model, (x, y) = Distances(), points()
    with stonefx.accelerate("geoopt", ["PoincareBall.dist"]):
        compiled = torch.compile(model, backend="stone", fullgraph=True, options={"inner": "eager"})
        result = compiled(x, y)
        report = stonefx.last_report()
        assert "poincare_dist" in report.after
        assert "geoopt: accelerated, on stonefx's operators: PoincareBall.dist" in report.notes
    # What was compiled with the operators notices that they are off.
    torch.testing.assert_close(compiled(x, y), result)
    assert "poincare_dist" not in stonefx.last_report().before
