import json

import numpy
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from stonefx.__main__ import main
from stonefx.benchmarks.compress import cases, intervals, packages, peers, rows, run, texts, work
from stonefx.benchmarks.compress.cases import digits, fcpe, floor, minilm, pitch, smollm, speed
from stonefx.compress.data import Batch
from stonefx.compress.linear import LinearView
from stonefx.compress.options import Option
from stonefx.compress.statistics import Statistics


def view(rows_, columns, seed=0, path="layer"):
    torch.manual_seed(seed)
    return LinearView(path, nn.Linear(columns, rows_), 1, rows_, columns)


def statistics(columns, seed=0):
    x = torch.randn(200, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x = x * torch.logspace(0, 2, columns, dtype=torch.float64)
    return Statistics((x.T @ x / 200)[None], None, 200)


def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6)).eval().requires_grad_(False)


def shared(**settings):
    parts = torch.randn(60, 12, generator=torch.Generator().manual_seed(1)).split(10)
    return work.Shared(tiny(), list(parts[:4]), [parts[4]], [parts[5]], **settings)


# Rows -----------------------------------------------------------------------------------------------------------


def test_rows_come_back_from_their_file(tmp_path):
    row = rows.Row(
        case="a",
        arm="b",
        asked="0.5",
        ratio=0.4,
        metrics={"cosine": 0.9},
        intervals={"cosine": (0.8, 1.0)},
        seed=3,
    )
    path = tmp_path / "rows.json"
    path.write_text(run.as_text([row]))
    assert rows.earlier(path) == [row]
    assert json.loads(path.read_text())["versions"]["torch"]


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('{"schema": 1, "suites": {}}')
    with pytest.raises(rows.UnusableFile, match="holds no rows of schema 1; choose another file"):
        rows.earlier(path)
    assert rows.earlier(tmp_path / "none.json") == []


def test_the_table_shows_intervals_and_seeds():
    two = [
        rows.Row(case="a", arm="b", metrics={"cosine": 0.5}, intervals={"cosine": (0.25, 0.75)}, seed=seed)
        for seed in (0, 1)
    ]
    text = rows.table(two)
    assert "0.5 [0.25, 0.75]" in text and "seed" in text


def made_up(wanted):
    for arm in ("one", "two"):
        if wanted(arm, "0.5"):
            yield rows.Row(case="made up", arm=arm, asked="0.5", ratio=0.5, metrics={"cosine": 1.0})


def test_a_run_goes_on_after_the_rows_it_has(monkeypatch):
    monkeypatch.setattr(run, "CASES", {"made up": made_up})
    new = []
    first = rows.Row(case="made up", arm="one", asked="0.5")
    every = run.run(done=[first], on_row=new.append)
    assert [row.arm for row in new] == ["two"] and [row.arm for row in every] == ["one", "two"]


def test_an_unknown_case_is_named():
    with pytest.raises(run.UnknownCase, match="no case 'nope'; it has chain, digits"):
        run.run(["nope"])


def test_the_command_writes_and_draws(monkeypatch, tmp_path):
    monkeypatch.setattr(run, "CASES", {"made up": made_up})
    path, picture = tmp_path / "rows.json", tmp_path / "rows.png"
    arguments = ["bench", "compress", "--case", "made up", "--json", str(path), "--plot", str(picture)]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and "cosine" in done.output
    assert picture.stat().st_size > 0 and len(rows.earlier(path)) == 2
    again = CliRunner().invoke(main, [*arguments[:6], "--resume"], catch_exceptions=False)
    assert again.exit_code == 0 and len(rows.earlier(path)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compress", "--case", "nope"], "--case: suite 'compress' has no case 'nope'"),
        (["compress", "chain"], "compress runs by itself"),
        (["compress", "--resume"], "--resume goes on in a file: name it with --json"),
        (["compress", "--json", "/nowhere/a.json"], "--json: there is no folder"),
        (["compress", "--cold"], "--compare, --cold and --peers are for other suites than compress"),
        (
            ["nope"],
            "choose from chain, hyperbolic, integrations, low-rank, ops, papers, regions, zoo, compress, growth",
        ),
    ],
)
def test_what_the_command_refuses(arguments, message):
    done = CliRunner().invoke(main, ["bench", *arguments])
    assert done.exit_code == 2 and message in done.output


def test_a_missing_package_is_named_with_its_command():
    with pytest.raises(packages.MissingPackage, match="run: pip install --no-deps some-thing"):
        packages.folder("no_such_package_at_all", "some-thing")


# Recipes of others ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 11), (11, 7)])
def test_each_recipe_is_the_best_map_in_its_metric(shape):
    layer, found = view(*shape), statistics(shape[1])
    weight = layer.matrix()[0]
    roots = {
        peers.plain: torch.eye(shape[1], dtype=torch.float64),
        peers.whitened: torch.linalg.cholesky(found.inputs[0]),
        peers.scaled: torch.diag(found.inputs[0].diagonal() ** 0.25),
    }
    for recipe, root in roots.items():
        a, b = recipe(layer, found).factors(3)
        error = ((weight - a[0] @ b[0]) @ root).norm()
        best = torch.linalg.svdvals(weight @ root)[3:].norm()
        assert error.item() == pytest.approx(best.item(), rel=1e-6)


def test_the_same_share_everywhere_is_at_most_that_share():
    views = {"a": view(40, 60, 0, "a"), "b": view(60, 40, 1, "b")}
    dense = {k: Option("dense", None, 0.0, 4 * (v.rows * v.columns + v.rows)) for k, v in views.items()}
    spectra = {k: peers.plain(v, None) for k, v in views.items()}
    plan = peers.uniform(views, spectra, dense, 0.5)
    after = work.stored(work.modules_of(plan)) - 4 * sum(v.rows for v in views.values())
    assert 0.4 < after / (4 * 2 * 2400) <= 0.5


def test_the_layer_that_matters_keeps_more_by_sensitivity():
    views = {"calm": view(40, 40), "touchy": view(40, 40, 1)}
    falls = {(p, s): (1 - s) * (0.1 if p == "calm" else 1.0) for p in views for s in peers.ASVD_SHARES}
    ranks = peers.by_sensitivity(views, falls, 0.6)
    assert ranks["calm"] < ranks.get("touchy", 40)
    assert sum(80 * ranks.get(p, 20) for p in views) <= 0.6 * 3200


def test_zero_sum_keeps_the_predicted_change_near_zero():
    views = {k: view(20, 20, s) for s, k in enumerate("ab")}
    spectra = {k: peers.plain(v, None) for k, v in views.items()}
    # Each component of a changes the loss by 1 when it is dropped, each of b by -1/2.
    gradients = {}
    for k, change in {"a": 1.0, "b": -0.5}.items():
        p, q = spectra[k].components()
        gradients[k] = -change * p[0] @ torch.diag(1 / q[0].square().sum(0)) @ q[0].T
    ranks = peers.zero_sum(views, spectra, gradients, 0.7)
    dropped = {k: 20 - rank for k, rank in ranks.items()}
    assert abs(dropped["a"] - dropped["b"] / 2) <= 1
    assert sum(min(40 * rank, 400) for rank in ranks.values()) <= 0.7 * 800


@pytest.mark.parametrize("gates", [1, 2])
def test_units_that_say_nothing_go_without_loss(gates):
    torch.manual_seed(0)
    up, down = [nn.Linear(5, 8) for _ in range(gates)], nn.Linear(8, 4)
    with torch.no_grad():
        for layer in up:
            layer.weight[::2], layer.bias[::2] = 0, -1
    x = torch.randn(300, 5)

    def middle(layers):
        hidden = torch.relu(layers[0](x))
        return hidden * layers[1](x) if gates == 2 else hidden

    with torch.no_grad():
        hidden = middle(up).double()
        *made, read = peers.narrow(up, down, hidden.T @ hidden / 300, 0.5)
        assert torch.allclose(read(middle(made)), down(middle(up)), atol=1e-3)
    assert made[0].out_features == 4


@pytest.mark.parametrize("per", ["tensor", "channel"])
def test_eight_bits_are_half_a_step_away(per):
    torch.manual_seed(0)
    layer = nn.Linear(16, 8)
    small = peers.Int8Linear(layer, per, False)
    step = small.scale.expand(8, 1)
    assert ((small.weight * small.scale - layer.weight).abs() <= step / 2 + 1e-7).all()
    x = torch.randn(4, 16)
    rounded = peers.Int8Linear(layer, per, True)
    bound = step.T / 2 * x.abs().sum(1, keepdim=True) + x.abs().amax(1, keepdim=True) / 254 * (
        layer.weight.abs() + step
    ).sum(1)
    assert ((rounded(x) - layer(x)).abs() <= bound * 1.01 + 1e-5).all()
    assert work.stored({"a": small}) < 4 * 16 * 8


def test_pairs_become_8_bits_too():
    layer = view(30, 40)
    pair = layer.forms()["pair"].build(*peers.plain(layer, None).factors(5))
    small = peers.quantised({"a": pair, "b": layer.layer}, "channel", False)
    assert work.stored({"a": small["a"]}) < 0.5 * work.stored({"a": pair})
    x = torch.randn(3, 40)
    assert torch.allclose(small["a"](x), pair(x), atol=0.05)


# Statistics that arms share -------------------------------------------------------------------------------------


@pytest.mark.parametrize("forms", [("pair",), ("pair", "pifa")])
@pytest.mark.parametrize("sampled", [True, False])
def test_arms_hold_their_ratio_and_leave_the_model_as_it_was(forms, sampled):
    shared_work = shared()
    x = torch.ones(2, 12)
    before = shared_work.search.model(x)
    plan = shared_work.planned(0.6, forms, sampled)[1]
    modules = work.whole(work.modules_of(plan), shared_work.search.model, list(shared_work.dense))
    assert work.stored(modules) <= 0.6 * shared_work.bytes
    assert {o.form for o in plan.chosen.values()} <= {"dense", *forms}
    with shared_work.with_modules(modules) as model:
        assert not torch.equal(model(x), before)
    assert torch.equal(shared_work.search.model(x), before)


def test_kept_statistics_give_the_same_plan(tmp_path):
    first, second = shared(keep=tmp_path / "kept.pt"), shared(keep=tmp_path / "kept.pt")
    expected = first.planned(0.5, ("pair", "pifa"))[1]
    assert (tmp_path / "kept.pt").stat().st_size > 0
    plan = second.planned(0.5, ("pair", "pifa"))[1]
    assert plan == expected and "measure" in second.seconds
    assert torch.equal(first.statistics["0"].inputs, second.statistics["0"].inputs)


def test_a_search_that_goes_on_chooses_what_a_new_one_chooses():
    prepared = shared()
    again = prepared.search.again(max_ratio=0.5, forms=("pair",))
    small, stats = again.run()
    new = shared(max_ratio=0.5).search.again(forms=("pair",)).run()
    x = torch.ones(2, 12)
    assert stats.ranks == new[1].ranks and torch.allclose(small(x), new[0](x))
    assert stats.compression_ratio <= 0.5


# What cases are made of -----------------------------------------------------------------------------------------


def test_pairs_of_one_document_do_not_count():
    generator = numpy.random.default_rng(0)
    first, second = (m + m.T for m in generator.normal(size=(2, 6, 6)))
    above = numpy.triu_indices(6, 1)
    expected = numpy.corrcoef(first[above], second[above])[0, 1]
    assert intervals.pearson(first, second, numpy.arange(6)) == pytest.approx(expected)
    drawn = numpy.array([0, 0, 1, 2, 3])
    kept = [(0, 1), (0, 2), (0, 3), (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    values = [[m[i, j] for i, j in kept] for m in (first, second)]
    assert intervals.pearson(first, second, drawn) == pytest.approx(numpy.corrcoef(values)[0, 1])


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("a {{b {{c}} d}} e", "a  e"),
        ("{| class=x\n|-\n| a\n|}b", "b"),
        ("[[File:a.jpg|thumb|of [[b]]]]c", "c"),
        ("[[a|b]] [[c]] [http://d e]", "b c e"),
        ("== a ==\n* b", "a\nb"),
        ("a<ref name=x/>b<ref>c</ref>d", "abd"),
    ],
)
def test_markup_goes(markup, text):
    assert texts.plain_text(markup) == text


def test_perplexity_weighs_pieces_by_their_tokens():
    values = numpy.array([[2.0, 1], [0.0, 3]])
    assert smollm.perplexity(values) == pytest.approx(numpy.exp(0.5))


def test_accuracy_is_one_number_a_sample():
    x, labels = floor.drawn(64, 0)
    model = nn.Linear(floor.WIDTH, floor.CLASSES)
    from stonefx.compress.data import read

    batches = read(digits.labelled(x, labels), model)
    found = work.accuracy(model, batches)
    assert torch.equal(found, (model(x).argmax(-1) == labels).double())


def test_the_pitch_tracker_takes_frames_of_tones():
    x, bins = pitch.tones(3, 0)
    assert pitch.Crepe().eval()(x).shape == (3, pitch.BINS)
    assert x.mean(1).abs().max() < 1e-5 and bool(((bins >= 60) & (bins <= 260)).all())
    # The strongest period of a tone is that of its pitch.
    spectrum = torch.fft.rfft(x * torch.hann_window(x.shape[1]), 1 << 16).abs()
    peak = spectrum.argmax(1) * pitch.RATE / (1 << 16)
    hertz = 10 * 2 ** ((1997.3794084376191 + 20 * bins) / 1200)
    harmonic = peak / hertz
    assert ((harmonic - harmonic.round()).abs() < 0.2).all() and (harmonic.round() >= 1).all()


def test_a_voice_is_in_tune_within_half_a_semitone():
    lowest, highest = (1200 * numpy.log2(hertz / 10) for hertz in (32.7, 1975.5))
    cents = torch.linspace(lowest + 300, highest - 300, 40)[None]
    table = torch.linspace(lowest, highest, 360)
    strengths = torch.exp(-(table - cents[..., None]).square() / 1250)
    for off, share in ((0.0, 1.0), (40.0, 1.0), (60.0, 0.0)):
        labels = 10 * 2 ** ((cents + off) / 1200)
        batch = Batch((strengths,), {}, 1, labels=labels)
        assert fcpe.in_tune(nn.Identity(), [batch]).tolist() == [share]


def test_fewer_units_and_low_rank_are_timed_beside_the_layer_they_replace():
    dense = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 64), nn.Linear(64, 64)).eval()
    small = nn.Sequential(
        nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 64), nn.Sequential(nn.Linear(64, 4), nn.Linear(4, 64))
    ).eval()
    found = list(speed._layers(dense, small, ["0", "2", "3"], (1, 5)))
    assert len(found) == 3 and all(ratio > 0 for ratio in found)


def test_speed_has_a_row_for_layers_and_one_for_each_runner(monkeypatch):
    assert list(speed.speed_rows(lambda *arm: False)) == []
    monkeypatch.setattr(speed, "RUNNERS", {"eager": (speed.eager, speed.eager)})
    monkeypatch.setattr(speed, "MODEL_SECONDS", 0.01)
    own, x = shared(), torch.ones(2, 12)
    kinds = {"all": lambda model, change: lambda: change(model, {})(x)}
    found = list(speed._model("tiny", lambda *arm: True, lambda: own.model, lambda: own, kinds, [(2, 1)]))
    assert [row.arm for row in found] == ["tiny, layers", "tiny, whole model, eager"]
    assert found[1].metrics["all"] > 0 and found[0].ratio is not None


def test_what_compress_makes_holds_its_ratio_with_int8():
    pytest.importorskip("torchao")
    shared_work = shared()
    modules, stats = shared_work.compressed(forms=("pair", "width", "int8"), max_ratio=0.4)
    assert stats.reached
    assert work.stored(modules) == pytest.approx(stats.compression_ratio * shared_work.bytes)
    assert work.stored(modules) <= 0.4 * shared_work.bytes


class Scored:
    """What a case's own test set says of a model."""

    def __init__(self):
        self.batches = [torch.randn(1, 12, generator=torch.Generator().manual_seed(i)) for i in range(12)]

    def score(self, model):
        with torch.no_grad():
            y = torch.cat([model(x) for x in self.batches])
            expected = torch.cat([tiny()(x) for x in self.batches])
        cosines = nn.functional.cosine_similarity(y, expected).numpy()
        return {"cosine": float(cosines.mean())}, {"cosine": (0.0, 1.0)}, cosines


@pytest.mark.parametrize("ratio", [0.9, 0.8, 0.5])
def test_each_step_of_the_ladder_runs_and_says_what_it_gains(ratio, monkeypatch):
    pytest.importorskip("torchao")
    monkeypatch.setattr(minilm, "shared", lambda: (shared(), Scored()))
    monkeypatch.setattr(minilm, "RATIOS", (ratio,))
    found = list(minilm.ablation_rows(lambda *arm: True))
    assert [row.arm[0] for row in found] == list("12345678") and {row.asked for row in found} == {
        f"{ratio:g}"
    }
    assert found[6].arm == "7 refinement" and found[7].arm == "8 int8"
    assert all(row.metrics["cosine"] <= 1 + 1e-6 for row in found)
    # The same share everywhere is one of the weights, and biases come on top.
    assert all(0 < row.ratio <= ratio + (0.1 if row.arm[0] in "12" else 1e-9) for row in found)
    assert all("gain" in row.intervals for row in found[1:])


def test_the_recipes_of_others_run_on_a_classifier(monkeypatch):
    monkeypatch.setattr(digits, "perceptron", lambda: nn.Sequential(nn.Flatten(), tiny()))
    x, labels = torch.randn(60, 1, 3, 4), torch.randint(0, 6, (60,))
    model = digits.perceptron()
    parts = [digits.labelled(x[i : i + 20], labels[i : i + 20], 10) for i in (0, 20, 40)]
    found = work.Shared(model, *parts, metric=work.accuracy, probe="logits")
    ratios = {}
    for arm, ratio, modules in digits.peers_of(found):
        made = work.whole(modules(), found.search.model, list(found.dense))
        ratios[arm, ratio] = work.stored(made) / found.bytes
    assert {arm for arm, _ in ratios} == set(digits.PEERS)
    # Layers as small as these store no rank below one.
    assert all(got <= ratio + 0.2 for (_, ratio), got in ratios.items())


def test_every_case_has_a_function():
    assert set(cases.CASES) >= {"chain", "digits", "minilm", "smollm", "floor", "ablation", "pitch", "fcpe"}
