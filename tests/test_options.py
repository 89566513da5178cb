"""Options: what is accepted, and what the errors say."""

from __future__ import annotations

from typing import Any

import pytest

from stonefx.options import Options
from stonefx.passes.pipeline import PIPELINE


def test_all_means_every_pass_in_order() -> None:
    assert Options().passes == tuple(PIPELINE)


def test_a_single_name_is_a_sequence_of_one() -> None:
    assert Options(passes="linear_chains", require="expmap0").passes == ("linear_chains",)
    assert Options(require="expmap0").require == ("expmap0",)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"iner": "eager"},
            TypeError,
            r"unknown option 'iner'; did you mean 'inner'\? Known options: dynamic,",
        ),
        ({"qqq": 1}, TypeError, r"unknown option 'qqq'\. Known options: dynamic,"),
        (
            {"inner": "inductr"},
            ValueError,
            r"'inner' got 'inductr'; did you mean 'inductor'\? Choices: eager",
        ),
        ({"passes": ("linear_chain",)}, ValueError, r"got 'linear_chain'; did you mean 'linear_chains'\?"),
        ({"passes": 3}, TypeError, r"'passes' must be a name or a sequence of names, got 3"),
        ({"require": ["expmap_0"]}, ValueError, r"'require' got 'expmap_0'; did you mean 'expmap0'\?"),
        ({"verify": "yes"}, TypeError, r"'verify' must be True or False, got 'yes'"),
        ({"on_error": "ignore"}, ValueError, r"'on_error' got 'ignore'\. Choices: raise, eager"),
    ],
)
def test_errors_say_what_was_expected(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Options.parse(options)
