"""Metrics against their formulas, and bounds that cover as often as they say."""

import math

import pytest
import torch
from torch import nn

from stonefx.compress.data import Batch
from stonefx.compress.metric import METRICS, Metric, Score, flawless, lower_bound, main_result, samples_needed


def test_cosine_is_the_mean_over_unmasked_positions():
    y, reference = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    found = METRICS["cosine"](y, reference, mask)
    each = torch.nn.functional.cosine_similarity(y.double(), reference.double(), dim=-1)
    torch.testing.assert_close(found, torch.stack([each[0, :2].mean(), each[1, 0]]))


@pytest.mark.parametrize("shape", ((3, 5), (3, 7, 5), (3, 2, 4, 4)))
def test_equal_results_score_one(shape):
    y = torch.randn(shape)
    for metric in METRICS.values():
        torch.testing.assert_close(metric(y, y.clone(), None), torch.ones(3, dtype=torch.float64))


def test_relative_is_one_minus_the_relative_error():
    reference = torch.tensor([[3.0, 4.0]])
    found = METRICS["relative"](reference + torch.tensor([[0.0, 1.0]]), reference, None)
    torch.testing.assert_close(found, torch.tensor([0.8], dtype=torch.float64))


def test_masked_positions_change_nothing():
    reference = torch.randn(2, 3, 4)
    y = reference + 0.1 * torch.randn_like(reference)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    other = torch.where(mask[..., None], y, torch.full_like(y, 7.0))
    for metric in METRICS.values():
        torch.testing.assert_close(metric(y, reference, mask), metric(other, reference, mask))


def test_top1_of_images_looks_along_the_classes():
    reference = torch.randn(2, 5, 4, 4)
    y = reference.clone()
    y[0, :, 0, 0] = -y[0, :, 0, 0]
    found = METRICS["top1"](y, reference, None)
    assert found[1] == 1 and found[0] < 1


def test_main_result_takes_logits_then_the_first_floating_tensor():
    logits = torch.ones(2)
    assert main_result({"loss": torch.zeros(()), "logits": logits}) is logits
    assert main_result((torch.ones(1, dtype=torch.long), logits)) is logits
    with pytest.raises(TypeError, match=r"say which one counts with output="):
        main_result({"ids": torch.ones(1, dtype=torch.long)})


@pytest.mark.parametrize("hits, n", ((59, 59), (58, 60), (0, 10), (95, 100), (500, 500)))
def test_the_binomial_bound_is_the_exact_one(hits, n):
    samples = torch.zeros(n, dtype=torch.float64)
    samples[:hits] = 1
    found = lower_bound(Score(samples.mean().item(), samples), Score(1.0), 0.9, 0.95, 0)
    tail = sum(math.comb(n, k) * found**k * (1 - found) ** (n - k) for k in range(hits, n + 1))
    assert found == 0 if hits == 0 else tail == pytest.approx(0.05, rel=1e-6)


def test_samples_needed_without_an_exception():
    n = samples_needed(0.99, 0.95)
    for count, holds in ((n, True), (n - 1, False)):
        samples = torch.ones(count, dtype=torch.float64)
        assert (lower_bound(Score(1.0, samples), Score(1.0), 0.99, 0.95, 0) >= 0.99) is holds


def test_the_bootstrap_covers_about_as_often_as_it_says():
    # Skewed scores, as cosines near one are; 40 samples; the true mean is known.
    generator = torch.Generator().manual_seed(0)
    missed = 0
    for trial in range(300):
        samples = 1 - 0.05 * torch.empty(40, dtype=torch.float64).exponential_(1.0, generator=generator)
        bound = lower_bound(Score(samples.mean().item(), samples), Score(1.0), 0.9, 0.95, trial)
        missed += bound > 0.95
    # 5 % of 300 is 15; more than 30 has a chance below 1e-3.
    assert missed <= 30


def test_a_metric_of_the_user_is_compared_with_the_originals():
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    metric = Metric(lambda m: 3.0 if m is model else 2.0, model)
    batches = [Batch((torch.ones(1, 2),))]
    assert metric.original_score(batches).value == 3.0
    assert metric(other, batches).value == 2.0
    assert not metric.uses_splits


def test_a_metric_of_batches_is_given_them_with_their_labels():
    seen = []

    def accuracy(model, batches):
        seen.extend(batch.labels for batch in batches)
        return torch.tensor([1.0, 0.0])

    metric = Metric(accuracy, nn.Linear(2, 2))
    score = metric(nn.Linear(2, 2), [Batch((torch.ones(2, 2),), labels="these")])
    assert seen == ["these"] and score.value == 0.5 and len(score.samples) == 2
    assert metric.uses_splits


def test_paired_scores_bound_the_share_that_is_kept():
    original = torch.tensor([1.0] * 90 + [0.0] * 10, dtype=torch.float64)
    same = lower_bound(Score(0.9, original), Score(0.9, original), 0.95, 0.95, 0)
    assert same > 0.95
    worse = original.clone()
    worse[:30] = 0
    assert lower_bound(Score(0.6, worse), Score(0.9, original), 0.95, 0.95, 0) < 0.95


@pytest.mark.parametrize("metric, error", (("cosin", ValueError), (3, TypeError)))
def test_what_is_no_metric_is_refused(metric, error):
    with pytest.raises(error, match=r"metric: expected"):
        Metric(metric, nn.Linear(1, 1))


@pytest.mark.parametrize("right", (300, 280))
def test_no_score_of_right_and_wrong_is_above_the_flawless_one(right):
    samples = torch.tensor([1.0] * right + [0.0] * (300 - right), dtype=torch.float64)
    original = Score(samples.mean().item(), samples)
    best = flawless(original, original, 0.95)
    assert 0.98 < best < 0.995
    worse = samples.clone()
    worse[0] = 0
    assert lower_bound(Score(worse.mean().item(), worse), original, 0.99, 0.95, 0) < best
    assert flawless(Score(0.9, samples - 0.1), original, 0.95) == 1.0
    assert flawless(Score(1.0, samples), Score(1.0), 0.95) == pytest.approx(0.05 ** (1 / 300), abs=1e-6)
