"""The JSON of a report: what it says comes back, and the published schema holds."""

import copy
import json
import os

import jsonschema
import pytest
import torch
from reports import report, site
from torch import nn

import stonefx
from stonefx.passes.refusal import Refusal
from stonefx.report import Report, json_schema


def checked(text: str) -> dict:
    """The document of a report, which must be as the schema says."""
    document = json.loads(text)
    jsonschema.validate(document, json_schema(), cls=jsonschema.Draft202012Validator)
    return document


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_json_round_trip(tmp_path):
    sites = [
        site(
            guards={"tanh_limit": float("inf"), "min_norm": 1e-15},
            nodes=("linear", "linear_1"),
            inputs=("x",),
            output="linear_1",
            replacement="linear_1",
            seconds_before=2e-5,
            seconds_after=1e-5,
            bound=float("inf"),
        )
    ]
    path = tmp_path / "report.json"
    written = report(sites=sites, measured={"before": 2.0, "after": 1.0})
    text = written.to_json(path)
    document = checked(path.read_text())
    assert json.loads(text) == document
    assert document["schema"] == 3
    assert document["sites"][0]["guards"] == {"tanh_limit": "inf", "min_norm": 1e-15}
    assert document["sites"][0]["nodes"] == ["linear", "linear_1"]
    assert document["summary"]["parameters_before"] == 66
    assert document["notes"] == ["decoder: not captured"]
    assert not any(name.endswith(".tmp") for name in os.listdir(tmp_path))
    read = Report.from_json(text)
    assert read.sites[0].bound == float("inf") and read.sites[0].inputs == ("x",)
    assert read.measured == {"before": 2.0, "after": 1.0}
    assert read.to_json() == text and str(read) == str(written)


def test_a_refusal_keeps_its_code_figures_and_cure():
    why = Refusal("shared", value="relu", count=2, users="linear, linear_1")
    text = report(sites=[site(status="refused", reason=why), site(reason="two became one")]).to_json()
    assert checked(text)["sites"][0]["cure"] == why.cure
    refused, rewritten = Report.from_json(text).sites
    assert (refused.code, refused.figures["count"]) == ("shared", 2)
    assert refused.reason == why and "need it" in refused.reason.cure
    assert (rewritten.code, rewritten.figures) == ("", {})


@pytest.mark.parametrize("schema", [1, 2])
def test_reports_of_earlier_schemas_are_read(schema):
    old = json.loads(report(sites=[site(status="refused", reason=Refusal("kept", weight="w"))]).to_json())
    del old["measured"]
    for facts in old["sites"]:
        for name in ("cure", "inputs", "output", "replacement", "seconds_before", "seconds_after"):
            del facts[name]
        if schema == 1:
            del facts["code"], facts["figures"]
    read = Report.from_json(json.dumps(old | {"schema": schema})).sites[0]
    assert read.reason == "the weight 'w' is to be kept as it is"
    assert (read.code, read.seconds_before) == ("" if schema == 1 else "kept", None)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"schema": 4},
            "expected a report of schema 3 or an earlier one, as report.to_json.* writes it, got 4",
        ),
        ({}, "got None"),
        ([1], "got 'list'"),
        ({"schema": 3, "sites": []}, "summary, backend, notes, seconds, weights, before, after is missing"),
    ],
)
def test_what_is_no_report_is_refused(document, message):
    with pytest.raises(ValueError, match=message):
        Report.from_json(json.dumps(document))


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document.update(schema=2),
        lambda document: document.update(more=1),
        lambda document: document.pop("notes"),
        lambda document: document["sites"][0].update(status="maybe"),
        lambda document: document["sites"][0].update(params_before=-1),
        lambda document: document["sites"][0].update(bound="large"),
        lambda document: document["sites"][0].pop("cure"),
        lambda document: document["measured"].update(before=1.0),
        lambda document: document["weights"].update(head="tail"),
    ],
)
def test_the_schema_refuses_what_no_report_is(change):
    document = json.loads(report().to_json())
    wrong = copy.deepcopy(document)
    change(wrong)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, json_schema())


def test_reports_of_models_are_as_the_schema_says():
    model = nn.Sequential(
        nn.Linear(8, 64), nn.Linear(64, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 4)
    ).eval()
    x = torch.randn(4, 8)
    document = checked(stonefx.explain(model, x).to_json())
    assert {facts["status"] for facts in document["sites"]} == {"rewritten", "refused"}
    rewritten = document["sites"][0]
    assert (
        rewritten["seconds_after"] < rewritten["seconds_before"]
        and rewritten["inputs"]
        and rewritten["output"]
    )
    checked(stonefx.optimize(model, x).report.to_json())
    checked(stonefx.explain(lambda_model(), x).to_json())


def lambda_model() -> nn.Module:
    """A model with a branch on data, so that its report is merged from parts."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.part = nn.Sequential(nn.Linear(8, 64), nn.Linear(64, 8))

        def forward(self, x):
            return self.part(x) if x.sum() > 0 else x

    return Branches().eval()
