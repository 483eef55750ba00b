"""What two models say: distances of their next-token distributions, from logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repsim.measures.base import SCALING, similarity_measure
from repsim.measures.features import Features

SURVEY = "Klabunde, Schumacher, Strohmaier, Lemmerich 2023, arXiv:2305.06329"


def _log_probabilities(x: Features) -> Tensor:
    return torch.log_softmax(x.x.double(), dim=1)


def _bits(log_p: Tensor, log_q: Tensor) -> float:
    """Mean over rows of the divergence of q from p, in bits."""
    rows = (log_p.exp() * (log_p - log_q)).nansum(dim=1)
    return max(0.0, float(rows.mean()) / math.log(2))


@similarity_measure(
    name="output_kl",
    label="Output KL",
    rung=None,
    direction="distance",
    range=(0.0, None),
    invariances=(),
    min_samples=1,
    definition="Mean over rows of KL(p_X || p_Y) in bits, p the softmax of a row of logits.",
    reference=SURVEY,
    estimator="a mean over rows: unbiased for the texts that rows are drawn from.",
    symmetric=False,
    needs_equal_width=True,
    undefined_on_constant=False,
    reads="logits",
)
def output_kl(x: Features, y: Features) -> float:
    """Divergence of Y's next-token distributions from X's."""
    return _bits(_log_probabilities(x), _log_probabilities(y))


@similarity_measure(
    name="output_jsd",
    label="Output JSD",
    rung=None,
    direction="distance",
    range=(0.0, 1.0),
    invariances=(),
    min_samples=1,
    definition="Mean over rows of the Jensen-Shannon divergence in bits, (KL(p || m) + KL(q || "
    "m)) / 2 with m = (p + q) / 2, p and q the softmax of the rows of logits.",
    reference="Lin 1991, IEEE Transactions on Information Theory 37; " + SURVEY,
    estimator="a mean over rows: unbiased for the texts that rows are drawn from.",
    needs_equal_width=True,
    undefined_on_constant=False,
    reads="logits",
)
def output_jsd(x: Features, y: Features) -> float:
    """Divergence of both next-token distributions from their mean."""
    log_p, log_q = _log_probabilities(x), _log_probabilities(y)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return min(1.0, (_bits(log_p, log_m) + _bits(log_q, log_m)) / 2)


@similarity_measure(
    name="output_disagreement",
    label="Disagreement",
    rung=None,
    direction="distance",
    range=(0.0, 1.0),
    invariances=(SCALING,),
    min_samples=1,
    definition="Share of rows whose largest logit is another one on the two sides; of equal logits "
    "the first.",
    reference=SURVEY,
    estimator="a mean over rows: unbiased for the texts that rows are drawn from.",
    needs_equal_width=True,
    undefined_on_constant=False,
    reads="logits",
)
def output_disagreement(x: Features, y: Features) -> float:
    """How often the two would say another token."""
    return float((x.x.argmax(dim=1) != y.x.argmax(dim=1)).double().mean())
