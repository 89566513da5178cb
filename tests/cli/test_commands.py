"""The command line: what it prints, what it writes, and what it says about wrong arguments."""

import json
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

import stonefx
from stonefx import demo as demo_module
from stonefx.__main__ import main
from stonefx.benchmarks import Arm, Case, run, suites
from stonefx.cli.bench import NAMES
from stonefx.cli.inputs import parse_input
from stonefx.cli.models import find_model

MODELS = """
import torch
from torch import nn

def chain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 4)).eval()

def lookup():
    return nn.Sequential(nn.Embedding(10, 8), nn.Linear(8, 16), nn.Linear(16, 4)).eval()

def scripted():
    return torch.jit.script(chain())

def without_values():
    return chain().to("meta")

model = nn.Identity()
number = 3

def needs(argument):
    return nn.Identity()

def gives_text():
    return "model"

def gives_list():
    return [model]

def with_tuple():
    return chain(), (torch.randn(4, 8),)

class Named(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = chain()

    def forward(self, *, values):
        return self.layers(values)

def with_keywords():
    return Named().eval(), {"values": torch.randn(4, 8)}
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder with a user's module in it, as the current folder."""
    (tmp_path / "user_models.py").write_text(MODELS)
    (tmp_path / "broken_models.py").write_text("import a_package_nobody_has")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry != str(tmp_path)])
    yield tmp_path
    for name in ("user_models", "broken_models"):
        sys.modules.pop(name, None)


def invoke(*arguments):
    return CliRunner().invoke(main, arguments)


def message(result):
    """The text of an error, on one line, after checking that it was no traceback."""
    assert result.exit_code != 0
    assert isinstance(result.exception, SystemExit), result.exception
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_help_names_every_command():
    result = invoke("--help")
    assert result.exit_code == 0
    for name in ("demo", "explain", "optimize", "compress", "bench", "doctor"):
        assert f"  {name} " in result.output


def test_the_console_script_is_the_module():
    done = subprocess.run([sys.executable, "-m", "stonefx", "--version"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("stonefx, version ")


def test_explain_prints_the_report(models):
    result = invoke("explain", "user_models:chain", "--input", "4x8")
    assert result.exit_code == 0, result.output
    assert "linear_chain" in result.output
    assert "rewritten" in result.output


def test_explain_as_json(models):
    result = invoke("explain", "user_models:chain", "--input", "4x8", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [site["target"] for site in document["sites"]] == ["linear_chain"]


def test_explain_with_diff_and_integer_input(models):
    result = invoke("explain", "user_models:lookup", "--input", "4x3:int64", "--diff")
    assert result.exit_code == 0, result.output
    assert "--- before" in result.output
    assert "aten.embedding" in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["user_models:chain"], "give at least one --input, such as --input 8x128"),
        (
            ["user_models:chain", "--input", "8x"],
            "expected sizes such as 8x128, 2x16:int64 or mask=2x16:bool, got '8x'",
        ),
        (["user_models:chain", "--input", "8:float7"], "torch has no dtype 'float7'"),
        (
            ["user_models", "--input", "8"],
            "a folder or id of transformers that is on this disk, or a file that stonefx.save wrote; got 'user_models'",
        ),
        (["no_such_module:f", "--input", "8"], "there is no module 'no_such_module'"),
        (["broken_models:f", "--input", "8"], "broken_models was found but does not import"),
        (["user_models:nothing", "--input", "8"], "user_models has no 'nothing'"),
        (["user_models:number", "--input", "8"], "is of type int, expected a function"),
        (["user_models:needs", "--input", "8"], "cannot be called without arguments"),
        (["user_models:gives_text", "--input", "8"], "gave a str, expected an nn.Module"),
        (
            ["user_models:gives_list"],
            "gave a list, expected an nn.Module, or a pair of one and its example inputs",
        ),
    ],
)
def test_explain_names_what_is_wrong(models, arguments, text):
    assert text in message(invoke("explain", *arguments))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["user_models:chain", "--input", "4x7"], "shapes cannot be multiplied (4x7 and 8x16)"),
        (["user_models:lookup", "--input", "4x3"], "Expected tensor for argument #1 'indices'"),
        (
            ["user_models:chain", "--input", "4x8", "--input", "4x8"],
            "takes 2 positional arguments but 3 were given",
        ),
        (["user_models:scripted", "--input", "4x8"], "scripted or traced from"),
        (["user_models:without_values", "--input", "4x8"], "to_empty"),
    ],
)
def test_explain_says_on_one_line_what_the_model_cannot_do(models, arguments, text):
    result = invoke("explain", *arguments)
    assert text in message(result)
    assert result.exit_code == 2
    assert len(result.output.strip().splitlines()) == 1


def test_a_module_is_taken_as_it_is(models):
    found = find_model("user_models:model")
    assert isinstance(found.model, torch.nn.Identity) and found.examples is None


@pytest.mark.parametrize("factory", ["with_tuple", "with_keywords"])
def test_a_factory_may_give_the_inputs_too(models, factory):
    result = invoke("explain", f"user_models:{factory}")
    assert result.exit_code == 0, result.output
    assert "1 rewritten, 0 refused" in result.output


def test_inputs_of_every_kind():
    generator = torch.Generator().manual_seed(0)
    assert parse_input("8x128", generator).dtype == torch.float32
    assert set(parse_input("64:int64", generator).tolist()) == {0, 1}
    assert parse_input("3:bool").all()
    assert parse_input("2x2:bfloat16").dtype == torch.bfloat16


@pytest.fixture
def tiny_suites(monkeypatch):
    """Suites that take no time, under the real names."""
    truth = torch.ones(2, dtype=torch.float64)

    def cases(device):
        for batch in (1, 8):
            arms = [Arm(name=name, call=lambda: torch.ones(2)) for name in ("eager", "stone")]
            yield Case(name=f"batch {batch}", arms=arms, truth=[truth])

    for module in (suites, run):
        monkeypatch.setattr(module, "SUITES", {"chain": cases, "hyperbolic": cases})


def test_bench_prints_a_table_and_writes_json(tiny_suites, tmp_path):
    path = tmp_path / "out.json"
    result = invoke("bench", "chain", "--seconds", "0.01", "--json", str(path))
    assert result.exit_code == 0, result.output
    assert "batch 8" in result.output
    assert "hyperbolic" not in result.output
    document = json.loads(path.read_text())
    assert [case["case"] for case in document["suites"]["chain"]] == ["batch 1", "batch 8"]
    assert document["machine"]["torch"] == torch.__version__
    assert os.listdir(tmp_path) == ["out.json"]


def test_bench_compares_and_draws(tiny_suites, tmp_path):
    pytest.importorskip("matplotlib")
    old, picture = tmp_path / "old.json", tmp_path / "chain.png"
    first = invoke(
        "bench", "chain", "--seconds", "0.01", "--json", str(old), "--plot", str(picture), "--cold"
    )
    assert first.exit_code == 0 and picture.stat().st_size > 0, first.output
    assert json.loads(old.read_text())["settings"]["cold"]
    document = json.loads(old.read_text())
    for case in document["suites"]["chain"]:
        # What was there is so much faster that no noise explains it, or so much slower.
        case["arms"][1] |= {"speedup": 1e6, "interval": [1e6, 1e6]}
    old.write_text(json.dumps(document))
    worse = invoke("bench", "chain", "--seconds", "0.01", "--compare", str(old))
    assert worse.exit_code == 1 and f"Error: 2 slower than in {old}" in worse.output
    for case in document["suites"]["chain"]:
        case["arms"][1] |= {"speedup": 1e-6, "interval": [1e-6, 1e-6]}
    old.write_text(json.dumps(document))
    better = invoke("bench", "chain", "--seconds", "0.01", "--compare", str(old))
    assert better.exit_code == 0 and "0 slower, 2 faster" in better.output


def test_bench_prints_json_alone(tiny_suites):
    result = invoke("bench", "chain", "--seconds", "0.01", "--json")
    assert result.exit_code == 0 and json.loads(result.stdout)["suites"]["chain"]


def test_bench_runs_every_suite_by_default(tiny_suites):
    result = invoke("bench", "--seconds", "0.01")
    assert result.exit_code == 0, result.output
    assert "\nchain\n" in result.output
    assert "\nhyperbolic\n" in result.output


def test_bench_sets_the_threads(tiny_suites):
    before = torch.get_num_threads()
    try:
        result = invoke("bench", "chain", "--seconds", "0.01", "--threads", "1")
        assert result.exit_code == 0, result.output
        assert torch.get_num_threads() == 1
        assert "threads 1" in result.output
    finally:
        torch.set_num_threads(before)


def test_interrupted_bench_leaves_nothing_behind(tiny_suites, tmp_path, monkeypatch):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_suite", interrupt)
    result = invoke("bench", "chain", "--json", str(tmp_path / "out.json"))
    assert result.exit_code == 130
    assert "Stopped." in result.output
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nosuch"], "there is no suite 'nosuch'; choose from chain, hyperbolic"),
        (["--device", "tpu"], "'tpu' is not one of 'cpu', 'cuda'"),
        (["--threads", "0"], "0 is not in the range x>=1"),
        (["--json", "missing_folder/out.json"], "missing_folder; create it first"),
    ],
)
def test_bench_names_what_is_wrong(arguments, text):
    assert text in message(invoke("bench", *arguments))


def test_bench_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "sees no CUDA device" in message(invoke("bench", "--device", "cuda"))


def test_doctor():
    text = invoke("doctor")
    assert text.exit_code == 0, text.output
    assert torch.__version__ in text.output
    facts = invoke("doctor", "--json")
    assert facts.exit_code == 0, facts.output
    assert json.loads(facts.stdout)


def test_demo_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    text = message(invoke("demo"))
    assert "the demo needs scikit-learn for its digits: pip install 'stonefx[demo]'" in text


def test_digits_of_the_demo_answer_as_before():
    torch.manual_seed(0)
    train_x, train_y, test_x, test_y = demo_module.load_digits()
    assert (len(train_x), len(test_x)) == (1347, 450)
    model = demo_module.train(train_x, train_y, epochs=8)
    fast = stonefx.optimize(model, (test_x,))
    assert {"linear_chain", "expmap0", "mobius_add", "logmap0"} <= {
        site.target for site in fast.report.sites if site.status == "rewritten"
    }
    with torch.no_grad():
        before = demo_module.accuracy(model, test_x, test_y)
        assert before > 0.9
        assert demo_module.accuracy(fast, test_x, test_y) == before


def test_demo_refuses_another_accuracy(monkeypatch):
    data = demo_module.load_digits()
    accuracies = iter((0.97, 0.96))
    monkeypatch.setattr(demo_module, "accuracy", lambda *arguments: next(accuracies))
    with pytest.raises(RuntimeError, match=r"has accuracy 0\.9600, expected 0\.9700"):
        demo_module.digits_demo(data, say=lambda text: None, epochs=1)


@pytest.mark.slow
def test_demo_prints_its_tables():
    done = subprocess.run([sys.executable, "-m", "stonefx", "demo"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for part in ("linear_chain", "expmap0", "(equal)", "stonefx.optimize", "76,256 -> 4,128 (5.41 %)"):
        assert part in done.stdout


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("stonefx ex", ["plain,explain"]),
        ("stonefx bench cha", ["plain,chain"]),
        ("stonefx explain --fail", ["plain,--fail-on"]),
        ("stonefx explain models", ["file,models"]),
        ("stonefx optimize --inner ind", ["plain,inductor"]),
    ],
)
def test_completion(words, offered):
    environment = {
        "_STONEFX_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    result = CliRunner().invoke(main, prog_name="stonefx", env=environment)
    assert result.exit_code == 0 and result.output.split() == offered


def test_completion_needs_no_torch():
    program = (
        "import sys\n"
        "from stonefx.__main__ import main\n"
        "try:\n    main(prog_name='stonefx')\n"
        "finally:\n    print({'torch', 'numpy'} & set(sys.modules), file=sys.stderr)"
    )
    for words in (
        "stonefx ex",
        "stonefx bench cha",
        "stonefx optimize --inner ind",
        "stonefx compress --min",
    ):
        environment = {
            "_STONEFX_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, env=os.environ | environment
        )
        assert done.stdout.startswith("plain,") and done.stderr.strip() == "set()", done.stderr


def test_completion_knows_the_suites():
    assert (*suites.SUITES, "compress", "growth") == NAMES


def test_the_demo_ends_with_the_path_of_a_page(monkeypatch, tmp_path):
    report = stonefx.explain(torch.nn.Linear(4, 4), torch.ones(1, 4))
    monkeypatch.setattr(demo_module, "run_demo", lambda say: ({"chain": {}}, report))
    shown = invoke("demo", "--html", str(tmp_path / "demo.html"))
    path = shown.output.strip().splitlines()[-1].rpartition(": ")[2]
    assert path == str(tmp_path / "demo.html") and "<html" in (tmp_path / "demo.html").read_text()
    without = invoke("demo", "--json")
    page = json.loads(without.stdout)["page"]
    assert os.path.getsize(page) and page in without.stderr
