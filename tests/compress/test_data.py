"""Reading the user's data: every shape that it comes in, splits without overlap, and errors that say what to do."""

import collections
import dataclasses
import itertools

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from stonefx.compress import compress, estimate
from stonefx.compress.data import Batch, mapped, read, split, tensors

MODEL = nn.Linear(3, 2)


class WithMask(nn.Module):
    def forward(self, input_ids, attention_mask=None, scale=1.0):
        return input_ids.float()


def test_a_tensor_is_cut_into_batches():
    batches = read(torch.arange(30.0).reshape(10, 3), MODEL, batch_size=4)
    assert [b.samples for b in batches] == [4, 4, 2]


def test_a_loader_of_pairs_keeps_the_labels_apart():
    loader = DataLoader(TensorDataset(torch.ones(6, 3), torch.arange(6)), batch_size=3)
    batches = read(loader, MODEL)
    assert [len(b.args) for b in batches] == [1, 1]
    assert batches[1].labels.tolist() == [3, 4, 5]


def test_a_callable_gives_the_data():
    assert len(read(lambda: [torch.ones(2, 3)], MODEL)) == 1


def test_mappings_are_keyword_arguments_and_what_forward_does_not_take_is_a_label():
    item = {
        "input_ids": torch.ones(2, 4),
        "attention_mask": torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]]),
        "topic": 3,
    }
    (batch,) = read([item], WithMask())
    assert set(batch.kwargs) == {"input_ids", "attention_mask"}
    assert batch.labels == {"topic": 3}
    assert batch.mask.tolist() == [[True, True, False, False], [True, True, True, False]]


def test_labels_of_transformers_are_not_passed():
    (batch,) = read([{"input_ids": torch.ones(1, 2), "labels": torch.ones(1, 2)}], WithMask())
    assert "labels" not in batch.kwargs and batch.labels is not None


def test_rows_of_a_dataset_are_padded_and_masked():
    rows = [{"input_ids": [5, 6, 7]}, {"input_ids": [8]}]
    (batch,) = read(rows, WithMask(), batch_size=2)
    assert batch.kwargs["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.mask.tolist() == [[True, True, True], [True, False, False]]


@pytest.mark.parametrize(
    "data, error, message",
    (
        ([], ValueError, "at least one batch"),
        (3, TypeError, "expected a DataLoader, a list of batches"),
        ({"x": torch.ones(1)}, TypeError, r"put one batch into a list: \[batch\]"),
        (["text"], TypeError, r"data\[0\]: expected a tensor, a tuple"),
        ([{"y": torch.ones(1, 3)}], TypeError, r"does not fit the model's forward"),
    ),
)
def test_what_does_not_fit_is_named(data, error, message):
    with pytest.raises(error, match=message):
        read(data, MODEL)


@pytest.mark.parametrize("count, size", ((1, 30), (4, 8), (25, 2)))
def test_splits_share_no_sample_and_lose_none(count, size):
    values = torch.arange(count * size * 3.0).reshape(count, size, 3)
    batches = [Batch((v,), {}, size) for v in values]
    parts = split(batches, seed=1)
    rows = [tuple(row.tolist()) for part in parts for batch in part for row in batch.args[0]]
    assert len(rows) == len(set(rows)) == count * size
    sizes = [sum(b.samples for b in part) for part in parts]
    assert sizes[0] >= 0.5 * count * size and min(sizes) > 0


def test_splits_repeat_for_a_seed_and_differ_between_seeds():
    batches = [Batch((torch.arange(90.0).reshape(30, 3),), {}, 30)]

    def chosen(seed):
        return [batch.args[0].tolist() for part in split(batches, seed) for batch in part]

    assert chosen(1) == chosen(1) != chosen(2)


def test_too_few_samples_are_an_error():
    with pytest.raises(
        ValueError, match=r"at least 3 samples, one each to calibrate, select and confirm, got 2"
    ):
        split([Batch((torch.ones(2, 3),), {}, 2)], seed=0)


class Rows(Dataset):
    def __len__(self):
        return 5

    def __getitem__(self, i):
        return torch.full((3,), float(i)), i


Named = collections.namedtuple("Named", "x scale")


@dataclasses.dataclass
class Held:
    x: torch.Tensor


class Nested(nn.Module):
    def forward(self, given):
        return given


@pytest.mark.parametrize(
    "data", [Rows(), TensorDataset(torch.ones(5, 3), torch.arange(5))], ids=["own", "tensors"]
)
def test_items_of_a_dataset_of_torch_are_samples(data):
    batches = read(data, MODEL, batch_size=2)
    assert [tuple(b.args[0].shape) for b in batches] == [(2, 3), (2, 3), (1, 3)]
    assert [b.labels.tolist() for b in batches] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    "item", [(Named(torch.arange(4), 2.0),), (Held(torch.arange(4)),), ({"x": [torch.arange(4)]},)], ids=str
)
def test_samples_are_taken_out_of_arguments_of_every_kind(item):
    (batch,) = read([item], Nested())
    (given,) = batch.take([1, 3]).args
    assert batch.samples == 4 and type(given) is type(item[0])
    assert next(tensors(given)).tolist() == [1, 3] and next(tensors(item)).tolist() == [0, 1, 2, 3]


def test_labels_that_are_no_tensor_are_dealt_out_with_their_samples():
    (batch,) = read([(torch.ones(3, 3), ["a", "b", "c"])], MODEL)
    assert batch.take([2, 0]).labels == ["c", "a"]


def test_batches_without_samples_and_generators():
    assert [b.samples for b in read((torch.ones(n, 3) for n in (2, 0, 1)), MODEL)] == [2, 1]
    used = iter([torch.ones(2, 3)])
    next(used)
    with pytest.raises(ValueError, match="an iterator gives its batches once: pass a list"):
        read(used, MODEL)


def test_data_without_an_end_is_refused(monkeypatch):
    monkeypatch.setattr(estimate, "available", lambda: 1000)
    with pytest.raises(ValueError, match=r"expected data that ends .* itertools\.islice"):
        read(itertools.repeat(torch.ones(4, 3)), MODEL)


def test_rows_are_no_batches():
    with pytest.raises(ValueError, match=r"first dimension counts samples, got \[3\].*torch\.stack"):
        compress(MODEL, [torch.randn(3) for _ in range(12)], progress=False)
    with pytest.raises(ValueError, match=r"the model cannot be called on a batch of it, and one of \[2, 4\]"):
        compress(MODEL, [*(torch.randn(2, 3) for _ in range(12)), torch.randn(2, 4)], progress=False)


def test_an_argument_of_transformers_own_classes_keeps_its_class():
    outputs = pytest.importorskip("transformers.modeling_outputs")
    given = {"encoder_outputs": outputs.BaseModelOutput(last_hidden_state=torch.ones(2, 3))}
    made = mapped(given, lambda tensor: tensor + 1)["encoder_outputs"]
    assert type(made) is outputs.BaseModelOutput and torch.equal(
        made.last_hidden_state, torch.full((2, 3), 2.0)
    )
    assert [tensor.shape for tensor in tensors(given)] == [(2, 3)]
