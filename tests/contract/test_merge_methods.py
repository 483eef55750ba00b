"""Every registered merge method keeps what it declares; the kit notices one that does not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest
import torch

from repsim.merging.arrays import Stream
from repsim.merging.base import MergeMethod
from repsim.merging.methods import METHODS
from repsim.testing.merge_checks import check_merge_method, merge_method_checks

ALL = [
    (METHODS[name], what, c) for name in METHODS for what, c in merge_method_checks(METHODS[name])
]


@pytest.mark.parametrize(
    ("method", "name", "check"), ALL, ids=[f"{m.name}-{name}" for m, name, _ in ALL]
)
def test_method_keeps_its_contract(
    method: MergeMethod, name: str, check: Callable[[], None]
) -> None:
    check()


def lying(honest: str, **fields: object) -> MergeMethod:
    return dataclasses.replace(METHODS[honest], **fields)  # type: ignore[arg-type]


def doing(honest: str, change: Callable[..., torch.Tensor]) -> MergeMethod:
    """A method that does something else with what the honest one gives."""

    def function(stream: Stream, **keywords: object) -> Iterator[torch.Tensor]:
        merged = stream.gathered(METHODS[honest].function(stream, **keywords))
        yield change(merged, [stream.whole(model) for model in range(stream.models)]).reshape(-1)

    return lying(honest, function=function)


def _by_parts(stream: Stream, *, context: object, **keywords: object) -> Iterator[torch.Tensor]:
    """Gives something else for every way of cutting a tensor."""
    for part in stream.parts():
        yield sum(part.tensors) / stream.models + len(part.tensors[0])


def plainly(change: Callable[..., torch.Tensor]) -> MergeMethod:
    """The mean as a plain function of torch, with something done to it."""

    def function(tensors: list[torch.Tensor], *, base: object, context: object) -> torch.Tensor:
        return change(torch.stack(tensors).mean(0))

    return lying("linear", function=function, parameters={}, elementwise=False, endpoints=False)


@pytest.mark.parametrize(
    ("liar", "complaint"),
    [
        (lying("slerp", symmetric=True), "order of models: declared, but off by"),
        (lying("linear", symmetric=False), "order of models: not declared, but off by"),
        (lying("task_arithmetic", idempotent=True), "copies of one model: declared, but"),
        (lying("karcher", idempotent=False), "copies of one model: not declared, but"),
        (lying("ties", endpoints=True), "endpoints: declared, but off by"),
        (lying("karcher", endpoints=True), "endpoints: declared, but no parameter"),
        (lying("slerp", endpoints=False), "endpoints: not declared, but"),
        (lying("sce", elementwise=True), "merged in pieces: declared, but"),
        (lying("linear", elementwise=False), "merged in pieces: not declared, but"),
        (lying("linear", takes_base=True), "base: declared to use a base, but"),
        (lying("nuslerp", takes_base=False), "base: not declared to use a base, but"),
        (lying("linear", needs_base=True), "base: declared to use a base, but"),
        (lying("dare_ties", random=False), "randomness: not declared random, but the seed matters"),
        (lying("ties", random=True), "randomness: declared random, but the seed does not"),
        (lying("linear", definition=" "), "description: 'definition' is empty"),
        (lying("linear", needs="fisher"), "statistics: statistics of some models only is not"),
        (doing("karcher", lambda m, t: m.flatten()[:1]), "number of models: method 'karcher'"),
        (plainly(lambda m: m.reshape(m.shape or (1,))), r"shapes: method 'linear' gives shape"),
        (lying("linear", function=_by_parts), "read in parts: in short parts of torch it is off"),
        (doing("linear", lambda m, t: m.to(torch.float32)), "precision: float64 is not kept"),
        (doing("karcher", lambda m, t: m + (m.dtype == torch.float32)), "precision: float32 is"),
        (doing("linear", lambda m, t: t[0].copy_(m)), "inputs untouched: an input is changed"),
        (doing("linear", lambda m, t: t[0]), "inputs untouched: .* shares its memory"),
        (doing("task_arithmetic", lambda m, t: m + 1), "copies of the base: .* change it"),
        (doing("linear", lambda m, t: m + torch.rand(())), "randomness: the same call gives"),
    ],
)  # fmt: skip
def test_the_kit_notices_a_wrong_declaration(liar: MergeMethod, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_merge_method(liar)


def test_the_kit_notices_a_method_that_takes_anything() -> None:
    class Careless(MergeMethod):
        def __call__(self, tensors, *, base=None, context=None, **parameters):  # type: ignore[no-untyped-def]
            return torch.stack([t.double() for t in tensors]).mean(0)

    honest = METHODS["linear"]
    fields = {f.name: getattr(honest, f.name) for f in dataclasses.fields(honest)}
    with pytest.raises(AssertionError, match="an unknown parameter is not refused") as failure:
        check_merge_method(Careless(**fields))
    for complaint in ("one model too few is not refused", "nan is not refused"):
        assert complaint in str(failure.value)


def test_the_kit_passes_an_honest_method_that_is_not_registered() -> None:
    check_merge_method(lying("linear", name="mine"))
