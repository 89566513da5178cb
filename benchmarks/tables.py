"""The tables of `benchmarks/README.md` and of the README, from the files in `results/`.

`python -m stonefx.benchmarks.tables` writes both, with `--check` it compares them. No figure is written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import click
from tabulate import tabulate

from stonefx.benchmarks.results import seconds_text
from stonefx.benchmarks.suites.low_rank import shares
from stonefx.files import write_atomically

Document = dict[str, Any]
ROOT = Path(__file__).resolve().parent
RESULTS, PAGE, README = ROOT / "results", ROOT / "README.md", ROOT.parent / "README.md"
_BLOCK = re.compile(r"(?<=<!-- table: speed -->\n).*?(?=<!-- end of table -->)", re.DOTALL)
_NOISY = "\\*"


@dataclass(frozen=True)
class Section:
    """One table of the page.

    Args:
        title: of the section; pages of the documentation include it by `anchor`.
        files: in `results/`.
        command: that measures it again.
        text: what a reader must know.
        table: makes it from the documents.
        lent: it is measured on a machine that is not always at hand: until the file is there, the section says so.
    """

    title: str
    files: tuple[str, ...]
    command: str
    text: str
    table: Callable[[Sequence[Document]], str]
    lent: bool = False

    @property
    def anchor(self) -> str:
        """The name of the section in the page's text."""
        return re.sub(r"\W+", "_", self.title.lower()).strip("_")


def markdown(rows: Sequence[Sequence[str]], headers: Sequence[str], left: int = 1) -> str:
    """A table, whose first `left` columns are aligned left.

    >>> print(markdown([["a", "1.0x"]], ["case", "eager"]))
    | case   |   eager |
    |:-------|--------:|
    | a      |    1.0x |
    """
    aligned = ["left" if i < left else "right" for i in range(len(headers))]
    return tabulate(rows, headers=headers, tablefmt="pipe", disable_numparse=True, colalign=aligned)


def times(ratio: float) -> str:
    """How many times, in as many digits as mean something.

    >>> [times(ratio) for ratio in (0.449, 5.26, 16.86, 267.3)]
    ['0.45x', '5.3x', '17x', '267x']
    """
    return f"{ratio:.2f}x" if ratio < 2 else f"{ratio:.1f}x" if ratio < 10 else f"{ratio:.0f}x"


def _marked(case: Mapping[str, Any]) -> str:
    return str(case["case"]) + (f" {_NOISY}" if case["noisy"] else "")


def _speeds(documents: Sequence[Document]) -> str:
    """Each case with the time of its first arm, and how many times as fast the others are."""
    cases = [case for document in documents for suite in document["suites"].values() for case in suite]
    names = list(dict.fromkeys(arm["arm"] for case in cases for arm in case["arms"][1:]))
    rows = []
    for case in cases:
        speed = {arm["arm"]: times(arm["speedup"]) for arm in case["arms"]}
        rows.append(
            [_marked(case), seconds_text(case["arms"][0]["seconds"]), *(speed.get(n, "") for n in names)]
        )
    return markdown(rows, ["", cases[0]["arms"][0]["arm"], *names])


def _operators(documents: Sequence[Document]) -> str:
    """Each case with our time, and how many times as long the others take."""
    cases = [case for document in documents for case in document["suites"]["ops"]]
    kinds = ("geoopt", "HypLL", "reality_stone", "inductor")
    rows, means = [], []
    for case in cases:
        own = next(arm["seconds"] for arm in case["arms"] if arm["arm"] == "stonefx")
        ratios = case["facts"]["ratios"]
        by_kind = {kind: next((r for n, r in ratios.items() if n.startswith(kind)), None) for kind in kinds}
        others = [f"{n} {times(r)}" for n, r in ratios.items() if not n.startswith(kinds)]
        compared = ["" if ratio is None else times(ratio) for ratio in by_kind.values()]
        rows.append([_marked(case), seconds_text(own), *compared, ", ".join(others)])
        if by_kind["inductor"] is not None:
            means.append(by_kind["inductor"])
    table = markdown(rows, ["", "stonefx", *kinds, "others"])
    if not means:
        return table
    return f"{table}\n\nGeometric mean against inductor, over {len(means)} cases: {times(geometric_mean(means))}."


# Of the many cells of the suite, those of one rank are shown.
_SHOWN_RANK = "rank 256"


def _low_rank(documents: Sequence[Document]) -> str:
    """Times of the cells of one rank, and how often the model picked well in all cells."""
    cases = [case for document in documents for case in document["suites"]["low-rank"]]
    names = list(dict.fromkeys(arm["arm"] for case in cases for arm in case["arms"]))
    rows = []
    for case in cases:
        if case["case"].endswith(_SHOWN_RANK):
            seconds = {arm["arm"]: seconds_text(arm["seconds"]) for arm in case["arms"]}
            picks = "; ".join(case["facts"]["picks"])
            rows.append([_marked(case), *(seconds.get(name, "") for name in names), picks])
    found = shares(case["facts"] for case in cases)
    said = [f"{line[0].upper()}{line[1:]}, ranks that are not shown included." for line in found]
    return "\n\n".join([markdown(rows, ["", *names, "the model's picks"]), *said])


def _zoo(documents: Sequence[Document]) -> str:
    rows = []
    doors = ("optimize", "compile(stone)")
    cases = [case for document in documents for case in document["suites"]["zoo"]]
    for case in cases:
        arms = {arm["arm"]: arm for arm in case["arms"]}
        facts = [case["facts"][door] for door in doors]
        sites = facts[0]["sites"]
        rows.append(
            [
                _marked(case),
                seconds_text(arms["inductor"]["seconds"]),
                *(f"{fact['vs_inductor']:.2f}x" for fact in facts),
                f"{sites.get('rewritten', 0)} of {sum(sites.values())}",
                "yes" if all(fact["agrees"] for fact in facts) else "no",
            ]
        )
    means = [geometric_mean([case["facts"][door]["vs_inductor"] for case in cases]) for door in doors]
    rows.append([f"geometric mean of {len(cases)}", "", *(f"{mean:.2f}x" for mean in means), "", ""])
    headers = [
        "",
        "inductor",
        "optimize, over inductor",
        "compile(stone), over inductor",
        "rewritten",
        "within the bound",
    ]
    return markdown(rows, headers)


def _versions(documents: Sequence[Document]) -> str:
    """Each case by the older installation and by the newer one, and the geometric means of each suite."""
    older, newer = ({(s, c["case"]): c for s, cs in d["suites"].items() for c in cs} for d in documents)
    rows, by_suite = [], dict[str, list[list[float]]]()
    for (suite, name), case in newer.items():
        pair = [older[suite, name], case]
        speeds = [_over(each, arms, _BASELINES[suite]) for arms in _DOORS for each in pair]
        by_suite.setdefault(suite, []).append(speeds)
        noisy = any(each["noisy"] for each in pair)
        rows.append(
            [name + (f" {_NOISY}" if noisy else ""), _BASELINES[suite], *(f"{s:.2f}x" for s in speeds)]
        )
    for suite, lines in by_suite.items():
        means = [f"{geometric_mean(column):.3f}x" for column in zip(*lines, strict=True)]
        rows.append([f"geometric mean of {len(lines)}", _BASELINES[suite], *means])
    columns = [f"{door}, {when}" for door in ("optimize", "compile(stone)") for when in ("before", "now")]
    return markdown(rows, ["", "over", *columns], left=2)


_BASELINES = {"chain": "eager", "zoo": "inductor"}
_DOORS = (("optimize", "stonefx.optimize"), ("compile(stone)",))


def _over(case: Mapping[str, Any], names: Sequence[str], baseline: str) -> float:
    seconds = {arm["arm"]: arm["seconds"] for arm in case["arms"]}
    return float(seconds[baseline] / next(seconds[name] for name in names if name in seconds))


def _compression(documents: Sequence[Document]) -> str:
    parts = []
    for document in documents:
        own = document["rows"]
        kinds = list(dict.fromkeys(tuple(row["metrics"]) for row in own))
        for kind in kinds:
            rows = [row for row in own if tuple(row["metrics"]) == kind]
            seeds = len({row["seed"] for row in rows}) > 1
            body = [
                [row["arm"] + (f", seed {row['seed']}" if seeds else ""), row["asked"]]
                + ["" if row["ratio"] is None else f"{row['ratio']:.3g}"]
                + [_measured(row, name) for name in kind]
                for row in rows
            ]
            parts.append(markdown(body, ["", "asked", "bytes", *kind], left=2))
    return "\n\n".join(parts)


def _measured(row: Mapping[str, Any], name: str) -> str:
    value = f"{row['metrics'][name]:.4g}"
    if name not in row["intervals"]:
        return value
    low, high = row["intervals"][name]
    return f"{value} [{low:.3g}, {high:.3g}]"


def _growth(documents: Sequence[Document]) -> str:
    rows = [
        [
            case["case"],
            str(case["layers"]),
            f"{case['total']:.2f} s",
            f"{case['passes']:.2f} s",
            f"{case['parameters_before']:,}",
            f"{case['parameters_after']:,}",
        ]
        for document in documents
        for case in document["cases"]
    ]
    return markdown(rows, ["", "layers", "optimize", "of it passes", "parameters", "after"])


def _memory(documents: Sequence[Document]) -> str:
    rows = [
        [
            f"{case['mib']} MiB, {case['sites']} sites",
            case["mode"],
            f"{case['ratio']:.2f}",
            f"{case['seconds']:.1f} s",
        ]
        for document in documents
        for case in document["cases"]
    ]
    return markdown(rows, ["weights", "mode", "peak beyond the weights, over them", "optimize"], left=2)


_CPU = "cpu-2-cores-avx512.json"
_CARD = "h100.json"
_ON_CARD = "--device cuda --json FILE.json"
SECTIONS = (
    Section(
        "Linear chain", (f"chain-{_CPU}",), "stonefx bench chain --threads 2 --json FILE.json",
        "`nn.Linear` 128 -> 256 -> 128 -> 64 -> 32; how many times as fast as eager.", _speeds,
    ),
    Section(
        "Hyperbolic maps", (f"hyperbolic-{_CPU}",), "stonefx bench hyperbolic --threads 2 --json FILE.json",
        "`expmap0`, `mobius_add`, `logmap0` in plain torch; how many times as fast as eager.", _speeds,
    ),
    Section(
        "Regions of linear maps", (f"regions-{_CPU}",), "stonefx bench regions --threads 2 --json FILE.json",
        "Parts of models that are linear; how many times as fast as eager. "
        "`optimize(inductor)` is `stonefx.optimize(..., inner=\"inductor\")`.", _speeds,
    ),
    Section(
        "Models in the code of their papers", (f"papers-{_CPU}",), "stonefx bench papers --threads 2 --json FILE.json",
        "Hyperbolic models as their papers' code has them; how many times as fast as eager. `fast` is "
        "`options={\"numerics\": \"fast\"}`, which looks into custom functions in training.", _speeds,
    ),
    Section(
        "Architectures", (f"zoo-{_CPU}",), "stonefx bench zoo --threads 2 --json FILE.json --resume",
        "Models of transformers and diffusers with small random weights; how many times as fast as inductor. "
        "`optimize` is with `inner=\"inductor\"`.", _zoo,
    ),
    Section(
        "Operators of hyperbolic geometry", (f"ops-{_CPU}",), "stonefx bench ops --threads 2 --json FILE.json",
        "How many times the time of stonefx the others take. geoopt 0.5.1, HypLL 0.1.1 and reality_stone 0.3.0 in "
        "eager mode; inductor compiles the plain formula.", _operators,
    ),
    Section(
        "Distances of all pairs on AVX2", ("ops-cdist-cpu-2-cores-avx2.json",),
        "STONEFX_CPU_ISA=avx2 stonefx bench ops --threads 2 --json FILE.json",
        "As above, with an older instruction set.", _operators,
    ),
    Section(
        "Compression of MiniLM", ("compress-minilm.json",), "stonefx bench compress --case minilm --json FILE.json",
        "36 layers of all-MiniLM-L6-v2; `cosine` of the sentence vectors to those of the original on documents that "
        "chose nothing, with 95 % intervals. `bytes` is the share of the layers that is left.", _compression,
    ),
    Section(
        "Compression of MiniLM, one step at a time", ("compress-ablation.json",),
        "stonefx bench compress --case ablation --json FILE.json",
        "What each part of the method adds, from SVD-LLM's to ours.", _compression,
    ),
    Section(
        "Compression of SmolLM2-135M", ("compress-smollm.json",),
        "stonefx bench compress --case smollm --json FILE.json",
        "Perplexity on articles that chose nothing, over that of the original.", _compression,
    ),
    Section(
        "Compression of classifiers of digits", ("compress-digits.json",),
        "stonefx bench compress --case digits --json FILE.json", "", _compression,
    ),
    Section(
        "Compression of a pitch tracker", ("compress-pitch.json",),
        "stonefx bench compress --case pitch --json FILE.json", "", _compression,
    ),
    Section(
        "Compression of the linear chain", ("compress-chain.json",),
        "stonefx bench compress --case chain --json FILE.json", "", _compression,
    ),
    Section(
        "Speed of compressed models", ("compress-speed.json",),
        "stonefx bench compress --case speed --json FILE.json",
        "How many times as fast as dense, on one thread.", _compression,
    ),
    Section(
        "Floors that held", ("compress-floor.json",), "stonefx bench compress --case floor --json FILE.json",
        "Of many compressions to a floor, how many fall below it on 50,000 fresh points.", _compression,
    ),
    Section(
        "Time to optimize", ("growth.json",), "stonefx bench growth --json FILE.json", "On one thread.", _growth,
    ),
    Section(
        "Memory to optimize", ("memory.json",), "python -m stonefx.benchmarks.memory --json FILE.json",
        "What `stonefx.optimize` needs beyond the weights while it runs.", _memory,
    ),
    Section(
        "Linear chain on an H100", (f"chain-{_CARD}",), f"stonefx bench chain {_ON_CARD}",
        "`nn.Linear` 128 -> 256 -> 128 -> 64 -> 32; how many times as fast as eager.", _speeds, lent=True,
    ),
    Section(
        "Hyperbolic maps on an H100", (f"hyperbolic-{_CARD}",), f"stonefx bench hyperbolic {_ON_CARD}",
        "`expmap0`, `mobius_add`, `logmap0` in plain torch; how many times as fast as eager.", _speeds, lent=True,
    ),
    Section(
        "Operators of hyperbolic geometry on an H100", (f"ops-{_CARD}",), f"stonefx bench ops {_ON_CARD}",
        "How many times the time of stonefx the others take; inductor compiles the plain formula.", _operators,
        lent=True,
    ),
    Section(
        "Low rank on an H100", (f"low-rank-{_CARD}",), f"stonefx bench low-rank {_ON_CARD}",
        "A square weight against its two factors, as calls and in CUDA graphs, and what the cost model picks.",
        _low_rank, lent=True,
    ),
)  # fmt: skip

_HEAD = f"""# Benchmarks

<!-- --8<-- [start:all] -->
Every table here is made from a file in `benchmarks/results/` by `python -m stonefx.benchmarks.tables`, which also makes
the table of the README. Each section names the command that measures its file anew; `stonefx bench --help` lists them.

Two installations are compared by `python -m stonefx.benchmarks.versions`, case by case in turn; other engines stand
beside ours with `--peers`, after `pip install "stonefx[peers]"`. `--json` has the peak memory of each arm
as well, and what the machine reaches at most.

All arms of a case are timed in turn in one process, after a warm-up; times are medians. {_NOISY} marks cases in which
other programs took cores while they were measured. Times are those of a call.
"""


def page(results: Path = RESULTS) -> str:
    """The text of `benchmarks/README.md`."""
    sections = [_section(section, results) for section in SECTIONS]
    return "\n".join([_HEAD, *sections, "<!-- --8<-- [end:all] -->\n"])


def _section(section: Section, results: Path) -> str:
    if section.lent and not all((results / name).exists() for name in section.files):
        return "\n".join(
            [
                f"## {section.title}\n",
                f"<!-- --8<-- [start:{section.anchor}] -->",
                f"Not measured yet: `{section.command}`.",
                f"<!-- --8<-- [end:{section.anchor}] -->\n",
            ]
        )
    documents = [_read(results / name) for name in section.files]
    where = "; ".join(
        f"`results/{name}`, {_where(d)}" for name, d in zip(section.files, documents, strict=True)
    )
    parts = [
        f"## {section.title}\n",
        f"<!-- --8<-- [start:{section.anchor}] -->",
        *([f"{section.text}\n"] if section.text else []),
        f"{section.table(documents)}\n",
        f"From {where}. Again: `{section.command}`.",
        f"<!-- --8<-- [end:{section.anchor}] -->\n",
    ]
    return "\n".join(parts)


def _read(file: Path) -> Document:
    document: Document = json.loads(file.read_text(encoding="utf-8"))
    return document


def _where(document: Document) -> str:
    machine = document["machine"]
    if "gpu" in machine:
        facts = [machine["gpu"], *(f"driver {machine[name]}" for name in ("driver",) if name in machine)]
        facts.append(f"TF32 {'on' if machine['tf32_matmul'] else 'off'}")
    else:
        facts = [f"{machine['cpu']}", f"{machine['instruction_set']}", f"threads: {machine['threads']}"]
    return ", ".join(
        [*facts, f"torch {machine['torch']}", document["date"][:10], f"commit {machine['commit']}"]
    )


# A row of the README: what it says, the file, the case, and the arms of each column.
_PLAIN = {"inductor": "inductor", "compile": "compile(stone)", "optimize": "stonefx.optimize"}
_REGION = {"inductor": "inductor", "compile": "compile(stone)", "optimize": "optimize"}
_INDUCTOR = _REGION | {"optimize": "optimize(inductor)"}
HEADLINE: tuple[tuple[str, str, str, dict[str, str]], ...] = (
    ("the chain above, batch 1", f"chain-{_CPU}", "batch 1", _PLAIN | {"hand": "merged nn.Linear"}),
    ("batch 32", f"chain-{_CPU}", "batch 32", _PLAIN | {"hand": "merged nn.Linear"}),
    ("768 -> 3072 -> 768, 16 rows", f"regions-{_CPU}", "768 -> 3072 -> 768", _REGION | {"hand": "by hand"}),
    ("SegFormer-B0's decode head, over inductor", f"regions-{_CPU}", "SegFormer-B0 head",
     _INDUCTOR | {"hand": "by hand"}),
    ("LoRA, 768 wide, rank 8", f"regions-{_CPU}", "LoRA 768, rank 8", _REGION | {"hand": "by hand"}),
    ("three maps of the Poincaré ball, [4096, 64]", f"hyperbolic-{_CPU}", "[4096, 64] forward", _PLAIN),
    ("with gradients", f"hyperbolic-{_CPU}", "[4096, 64] forward+backward", _PLAIN),
)  # fmt: skip


def headline(results: Path = RESULTS) -> str:
    """The table of the README."""
    rows = []
    for text, file, name, arms in HEADLINE:
        cases = [case for suite in _read(results / file)["suites"].values() for case in suite]
        case = next(case for case in cases if case["case"] == name)
        speed = {arm["arm"]: times(arm["speedup"]) for arm in case["arms"]}
        found = [
            speed[arms[column]] if column in arms else ""
            for column in ("inductor", "compile", "optimize", "hand")
        ]
        found[2] = f"**{found[2]}**"
        rows.append([_marked({**case, "case": text}), seconds_text(case["arms"][0]["seconds"]), *found])
    headers = ["", "eager", "inductor", '`compile(backend="stone")`', "`stonefx.optimize`", "by hand"]
    return markdown(rows, headers)


def with_headline(text: str, results: Path = RESULTS) -> str:
    """The text of the README with the table as the results have it.

    Raises:
        ValueError: the text has no place for it.

    >>> with_headline("no table")
    Traceback (most recent call last):
    ...
    ValueError: expected the lines <!-- table: speed --> and <!-- end of table --> in the README
    """
    if not _BLOCK.search(text):
        raise ValueError("expected the lines <!-- table: speed --> and <!-- end of table --> in the README")
    table = headline(results)
    return _BLOCK.sub(lambda _: f"\n{table}\n\n", text)


@click.command()
@click.option(
    "--check", is_flag=True, help="Write nothing; exit code 1 where a file is not what it should be."
)
def main(check: bool) -> None:
    """Write benchmarks/README.md and the table of the README from benchmarks/results/."""
    wanted = {PAGE: page(), README: with_headline(README.read_text(encoding="utf-8"))}
    for file, text in wanted.items():
        if file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        if check:
            raise click.ClickException(
                f"{file} is not made from the results: python -m stonefx.benchmarks.tables"
            )
        write_atomically(file, text)
        click.echo(f"written: {file}")


if __name__ == "__main__":
    main()
