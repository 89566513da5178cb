"""What the page is made of: graphs that are read again, formulas, drawings, sources, the tree of modules."""

import itertools

import pytest
from reports import site

from stonefx.passes.hyperbolic.formulas import FORMULAS
from stonefx.report.page.drawing import draw, nodes_after, nodes_before
from stonefx.report.page.formula import after_formula, before_formula
from stonefx.report.page.listed import Listing, read_listing
from stonefx.report.page.modules import module_tree
from stonefx.report.page.sides import side_by_side
from stonefx.report.page.sources import excerpt

CHAIN = """%x: f32[4, 8] = input
%linear: f32[4, 6] = aten.linear(%x, a.weight, a.bias)  # model.py:3
%linear_1: f32[4, 2] = aten.linear(%linear, b.weight)  # model.py:4
return %linear_1"""
MERGED = """%x: f32[4, 8] = input
a+b.weight: f32[2, 8] = fold(a.weight, b.weight)
a+b.bias: f32[2] = fold(a.bias, b.weight)
%linear_1: f32[4, 2] = aten.linear(%x, a+b.weight, a+b.bias)  # model.py:4
return %linear_1"""
SITE = site(
    nodes=("linear", "linear_1"), inputs=("x",), output="linear_1", replacement="linear_1", module_path=""
)


def test_lines_are_read_as_they_were_written():
    lines = read_listing(MERGED)
    assert [line.name for line in lines] == ["%x", "a+b.weight", "a+b.bias", "%linear_1", ""]
    assert [line.operator for line in lines[:4]] == ["input", "fold", "fold", "aten.linear"]
    assert lines[3].reads == ("%x", "a+b.weight", "a+b.bias")
    odd = read_listing("%y: i64[2] = aten.index.Tensor(%x, [None, %i], dim=(1, 2), f=0.weight)")[0]
    assert odd.arguments == ("%x", "[None, %i]", "dim=(1, 2)", "f=0.weight")
    assert {"%x", "%i", "0.weight"} <= set(odd.reads)


def test_graphs_of_one_text_are_kept_apart():
    nested = "%x = input\nbody:\n  %y = aten.neg(%z)\n  return %y\n%y = aten.abs(%x)\nreturn %y"
    graphs = {
        (line.graph, line.part): line.text.strip() for line in read_listing(nested) if line.name == "%y"
    }
    assert graphs == {(1, "body"): "%y = aten.neg(%z)", (0, ""): "%y = aten.abs(%x)"}
    headed = read_listing(f"encoder.0:\n{CHAIN}\nencoder.1:\n{CHAIN}")
    assert [line.part for line in headed if line.name == "%linear"] == ["encoder.0", "encoder.1"]
    bare = read_listing(f"{CHAIN}\n{CHAIN}")
    assert [line.graph for line in bare if line.name == "%linear"] == [0, 1]


def test_a_site_finds_its_own_graph():
    text = f"encoder.0:\n{CHAIN}\nencoder.1:\n{CHAIN.replace('a.weight', 'c.weight')}"
    values = Listing(text).values(site(nodes=("linear",), module_path="encoder.1.head"))
    assert "c.weight" in values["%linear"].reads
    two = f"{CHAIN}\n{CHAIN.replace('model.py:3', 'model.py:30').replace('a.weight', 'c.weight')}"
    values = Listing(two).values(site(nodes=("linear",), module_path="", source="/home/model.py:30"))
    assert "c.weight" in values["%linear"].reads


def formula(text, output="y", inside=None):
    values = {line.name: line for line in read_listing(text) if line.name}
    names = inside or [name for name in values if name.startswith("%") and name != "%x"]
    found = before_formula(site(output=output, nodes=(output,)), values, frozenset(names))
    return found and found.text


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("%y = aten.linear(%x, w, b)", "y = W₁ x₁ + b₁"),
        ("%y = aten.linear(%x, w)", "y = W₁ x₁"),
        ("%a = aten.linear(%x, w, b)\n%y = aten.linear(%a, v, c)", "y = W₂ (W₁ x₁ + b₁) + b₂"),
        ("%a = aten.linear(%x, w, b)\n%y = aten.linear(%a, w, b)", "y = W₁ (W₁ x₁ + b₁) + b₁"),
        ("%y = aten.addmm(b, %x, w)", "y = x₁ W₁ + b₁"),
        ("%y = aten.conv2d(%x, w, b, [1, 1])", "y = W₁ ∗ x₁ + b₁"),
        ("%a = aten.mul.Tensor(%x, 2.0)\n%y = aten.sub.Tensor(%x, %a)", "y = x₁ − x₁ ⊙ 2.0"),
        ("%a = aten.sub.Tensor(%x, b)\n%y = aten.sub.Tensor(%x, %a)", "y = x₁ − (x₁ − b₁)"),
        ("%a = aten.add.Tensor(%x, b)\n%y = aten.mul.Tensor(%a, s)", "y = (x₁ + b₁) ⊙ s₁"),
        ("%a = aten.relu(%x)\n%y = aten.linear(%a, w)", "y = W₁ relu(x₁)"),
        ("%a = aten.view(%x, [2, 4])\n%y = aten.linear(%a, w)", "y = W₁ x₁"),
        ("%y = stone.low_rank_linear(%x, a, b, c)", "y = W₂ (W₁ x₁) + b₁"),
        (
            "%a = aten.layer_norm(%x, [8], w, None, 1e-05, True)\n%y = aten.linear(%a, v)",
            "y = W₁ layer_norm(x₁, w₁)",
        ),
        # With a factor it is no plain sum.
        ("%y = aten.add.Tensor(%x, %x, alpha=2)", "y = add(x₁, x₁)"),
    ],
)
def test_formulas(lines, expected):
    assert formula(f"%x = input\n{lines}") == expected


def test_a_formula_of_the_table_is_that_of_the_table():
    found = before_formula(site(target="expmap0"), {}, frozenset())
    assert FORMULAS["expmap0"].text in found.text


def test_what_is_long_or_lost_has_no_formula():
    long = "%x = input\n%a0 = aten.linear(%x, w)\n" + "\n".join(
        f"%a{n} = aten.add.Tensor(%a{n - 1}, %a{n - 1})" for n in range(1, 40)
    )
    assert formula(long, "a39") is None
    assert formula("%x = input", "y", ["%y"]) is None


def test_before_and_after_of_a_chain():
    old, new = Listing(CHAIN).values(SITE), Listing(MERGED).values(SITE)
    inside, made = nodes_before(SITE, old), nodes_after(SITE, new, old)
    assert inside == ["%linear", "%linear_1"]
    assert made == ["a+b.weight", "a+b.bias", "%linear_1"]
    assert before_formula(SITE, old, frozenset(inside)).text == "y = W₂ (W₁ x₁ + b₁)"
    assert after_formula(SITE, new, frozenset(made)).letters[0] == ("x₁", "%x")
    drawn = [[box.title for box in draw(*each).boxes] for each in ((inside, old), (made, new))]
    assert drawn == [["linear", "input", "linear"], ["folded weight", "folded weight", "linear", "input"]]


def test_what_stands_between_nodes_of_a_site_belongs_to_it():
    lines = (
        "%x = input\n%a = aten.linear(%x, w)\n%r = aten.relu(%a)\n%s = aten.sum(%a)\n%b = aten.linear(%r, v)"
    )
    values = {line.name: line for line in read_listing(lines)}
    assert nodes_before(site(nodes=("a", "b"), output="b"), values) == ["%a", "%r", "%b"]


def random_lines(seed, count=20):
    import random

    chosen = random.Random(seed)
    lines = ["%v0 = input"]
    for number in range(1, count):
        reads = sorted({f"%v{chosen.randrange(number)}" for _ in range(chosen.randint(1, 3))})
        lines.append(f"%v{number}: f32[{number}] = aten.op({', '.join(reads)})")
    return {line.name: line for line in read_listing("\n".join(lines))}


@pytest.mark.parametrize("seed", range(8))
def test_boxes_of_a_drawing_stand_apart_and_below_what_they_read(seed):
    values = random_lines(seed)
    drawing = draw(list(values)[1:], values)
    for one, other in itertools.combinations(drawing.boxes, 2):
        apart = abs(one.x - other.x) >= (one.width + other.width) / 2 or abs(one.y - other.y) >= one.height
        assert apart, (one, other)
    for box in drawing.boxes:
        assert box.width / 2 <= box.x <= drawing.width - box.width / 2
        assert box.y - box.height / 2 >= 0 and box.y + box.height / 2 <= drawing.height
    height = {box.type: box.y for box in drawing.boxes}
    for line in list(values.values())[1:]:
        for read in line.reads:
            if values[read].type:
                assert height[values[read].type] < height[line.type]


def test_equal_nodes_under_other_names_are_one_drawing():
    other = CHAIN.replace("linear", "matmul").replace("aten.matmul", "aten.linear")
    values = [Listing(CHAIN).values(SITE), Listing(other).values(SITE)]
    assert draw(["%linear", "%linear_1"], values[0]) == draw(["%matmul", "%matmul_1"], values[1])


def test_long_regions_are_cut():
    values = random_lines(0, 60)
    drawing = draw(list(values)[1:], values)
    assert drawing.left_out == 59 - 24


def test_stretches_that_no_rewrite_changed_are_folded():
    middle = [f"%m{n} = aten.op(%m{n - 1})" for n in range(1, 30)]
    old = "\n".join(["%m0 = f(%x)", *middle, "%last = g(%m29)"])
    new = "\n".join(["%m0 = h(%x)", *middle, "%last = g(%m29, True)"])
    stretches = side_by_side(old, new, {0: (1,)}, {0: (1,)})
    kinds = [(len(each.pairs), each.folded, each.groups[0][0]) for each in stretches]
    assert kinds == [(1, False, "changed"), (2, False, "same"), (28, True, "same")]
    last = stretches[-1].pairs[-1]
    assert (last.left.text, last.right.text, last.kind) == (
        "%last = g(%m29)",
        "%last = g(%m29, True)",
        "spelled",
    )


def test_every_line_of_both_graphs_is_shown_once():
    shown = [
        pair for each in side_by_side(CHAIN, MERGED, {1: (1,), 2: (1,)}, {3: (1,)}) for pair in each.pairs
    ]
    assert [pair.left.text for pair in shown if pair.left] == CHAIN.splitlines()
    assert [pair.right.text for pair in shown if pair.right] == MERGED.splitlines()
    together = next(pair for pair in shown if pair.left and pair.left.text.startswith("%linear_1"))
    assert together.right.text.startswith("%linear_1") and together.kind == "changed"


def test_an_excerpt_has_the_line_and_those_around_it(tmp_path):
    path = tmp_path / "model.py"
    path.write_text("import torch\n\n\n    def forward(self, x):\n\ty = x + 1\n        return y\n\n")
    found = excerpt(f"{path}:5")
    assert found.line == 5 and found.lines[0] == (2, "")
    assert (4, "def forward(self, x):") in found.lines and (5, "    y = x + 1") in found.lines
    assert found.lines[-1][0] == 6, "empty lines at the end say nothing"
    for lost in ("", "model.py", f"{path}:99", f"{tmp_path}/none.py:1", f"{path}:x"):
        assert excerpt(lost) is None


def test_the_tree_of_modules_counts_sites_below():
    paths = ["encoder.0.head", "encoder.0.tail", "encoder.1.head", "", "a, b"]
    tree = module_tree([site(module_path=path, status="refused") for path in paths])
    assert tree.counts["refused"] == 5
    (encoder,) = tree.children.values()
    assert (encoder.name, encoder.counts["refused"]) == ("encoder", 3)
    assert [(child.name, child.path) for child in encoder.children.values()] == [
        ("0", "encoder.0"),
        ("1.head", "encoder.1.head"),
    ]
