"""Where reports go besides their caller: the logger, the trace of torch; and that caches do not swallow them."""

import json
import logging
import subprocess
import sys

import jsonschema
import pytest
import torch
from reports import report
from torch import nn
from torch._dynamo.utils import counters

import stonefx
from stonefx.backend import collected_reports
from stonefx.report import json_schema, publish

SCRIPT = """
import torch, stonefx
from torch import nn
model = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8)).eval()
x = torch.ones(4, 8)
stonefx.explain(model, x)
with torch.no_grad():
    torch.compile(model, backend="stone", options={"inner": "eager"})(x)
"""


def chain() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8)).eval()


def test_the_logger_has_the_text_and_the_difference(caplog):
    with caplog.at_level(logging.DEBUG, logger="stonefx"):
        publish(report())
    text, difference = [record.getMessage() for record in caplog.records if record.name == "stonefx"]
    assert text == f"report\n{report().text()}" and "\x1b" not in text
    assert difference == f"difference of the graphs\n{report().diff()}"
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="stonefx"):
        publish(report())
    assert caplog.records == []


@pytest.mark.parametrize("door", ["explain", "optimize", "compile"])
def test_every_door_logs_its_report_once(door, caplog):
    torch._dynamo.reset()
    model, x = chain(), torch.ones(4, 8)
    with caplog.at_level(logging.INFO, logger="stonefx"), torch.no_grad():
        if door == "compile":
            torch.compile(model, backend="stone", options={"inner": "eager"})(x)
        else:
            getattr(stonefx, door)(model, x)
    (record,) = caplog.records
    assert record.name == "stonefx" and f"door {door}, inner eager" in record.getMessage()


def test_torch_trace_has_an_artifact(tmp_path):
    environment = {"TORCH_TRACE": str(tmp_path), "STONEFX_MACHINE": "default", "PATH": ""}
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True, capture_output=True)
    found = []
    for path in tmp_path.iterdir():
        lines = path.read_text().splitlines()
        for place, line in enumerate(lines):
            if '"stonefx_report"' in line:
                assert '"encoding": "json"' in line
                payload = []
                for following in lines[place + 1 :]:
                    if not following.startswith("\t"):
                        break
                    payload.append(following)
                found.append(json.loads("\n".join(payload)))
    assert [document["backend"]["door"] for document in found] == ["explain", "compile"]
    for document in found:
        jsonschema.validate(document, json_schema())


@pytest.mark.slow
def test_reports_are_made_though_inductor_finds_the_graph_in_its_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model, x = chain(), torch.ones(4, 8)
    reports = []
    for _ in range(2):
        torch._dynamo.reset()
        counters.clear()
        with collected_reports() as made, torch.no_grad():
            torch.compile(model, backend="stone")(x)
        reports += made
        hits = counters["inductor"]["fxgraph_cache_hit"] + counters["aot_autograd"]["autograd_cache_hit"]
    assert hits > 0, "the second compile was to find the first one's code"
    first, second = reports
    assert not second.compare(first) and second.before == first.before and second.after == first.after
    assert second.rewritten("linear_chain")
