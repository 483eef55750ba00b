"""Merging models that are in memory: modules in, a module out, and no file between."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from repsim.core.config import parse
from repsim.core.errors import UsageError, unknown_name
from repsim.core.model_ref import ModelRef
from repsim.merging.ancestry import check_lineage
from repsim.merging.base import MergeMethod
from repsim.merging.check import check_models, refuse_errors
from repsim.merging.in_memory import merge_state_dicts
from repsim.merging.methods import find_method
from repsim.merging.recipe import Learn, TokenWeights
from repsim.merging.tensors import token_tensors
from repsim.merging.token_weights import pool_states, shares_by
from repsim.merging.windows import learning_on
from repsim.models.in_memory import given_model, named_models, shared_twin
from repsim.models.inspect import ModelLike, inspect_model

if TYPE_CHECKING:
    import torch
    from torch import nn

ALIGNMENTS = ("none", "permutation", "orthogonal", "learned")


def merge_models(
    models: Sequence[ModelLike] | Mapping[str, ModelLike],
    method: str | MergeMethod = "linear",
    *,
    base: ModelLike | None = None,
    names: Sequence[str] | None = None,
    parameters: Mapping[str, Any] | None = None,
    align: Literal["none", "permutation", "orthogonal", "learned"] = "none",
    learn: Mapping[str, Any] | None = None,
    token_weights: Mapping[str, Any] | None = None,
    any_base: bool = False,
    seed: int = 0,
    device: str = "cpu",
    say: Callable[[str, str], None] | None = None,
) -> nn.Module:
    """Merge models in memory into a new one; the inputs are not changed.

    They are checked as those of `merge` are: configs, shapes, tokens where tokenizers are given,
    and whether the base shares their origin. Models too large to be in memory together are merged
    by `merge`, from their folders.

    Args:
        models: Modules of `transformers`, alone or as `(module, tokenizer)`, and folders or hub ids
            beside them; in a mapping, by name.
        method: Merge method, see `repsim methods`.
        base: Base of methods on differences.
        names: Names of the models, where they are no mapping.
        parameters: Values as in a recipe; for values of each model, a sequence.
        align: How the others are brought into the coordinates of the base, or of the first, before.
        learn: Text that "learned" learns on, as in a recipe: `{"corpus": "bible", "languages":
            ["eng_Latn", "deu_Latn"], "tokens": 300_000}`; the models need a tokenizer.
        token_weights: Text that weighs rows of tokens, as in a recipe: `{"corpus": "bible",
            "languages": {"mine": ["eng_Latn"], ...}}`; the models need a tokenizer.
        any_base: Whether a base may be of another origin than the models.
        seed: Of methods that draw.
        device: Where tensors are merged.
        say: Told what a reader should know, a label and a text.

    Returns:
        A module of the class, config, type and device of the base, or of the first model, in
        evaluation mode; `save_pretrained` writes it, `state_dict()` gives its tensors. Rotation,
        learned or not, unties heads and gives float32.

    Raises:
        IncompatibleModelsError: The models do not fit each other.
        InputError: NaN or infinity in a tensor, or a model that is not there.
        UsageError: A method, alignment or parameter that is not possible; no model is in memory.

    Example:
        >>> from repsim.testing.tiny_models import tiny_model
        >>> a, b = (tiny_model("llama", seed=seed) for seed in (0, 1))
        >>> merged = merge_models([a, b], parameters={"weight": [3, 1]})
        >>> expected = 0.75 * a.embed_tokens.weight + 0.25 * b.embed_tokens.weight
        >>> bool((merged.embed_tokens.weight - expected).abs().max() < 1e-6)
        True
    """
    chosen = find_method(method) if isinstance(method, str) else method
    if align not in ALIGNMENTS:
        raise unknown_name("alignment", align, ALIGNMENTS)
    if (align == "learned") != (learn is not None):
        raise UsageError(
            'align="learned" and `learn` go together: the one needs the text of the other',
            hint='learn={"corpus": "bible", "languages": ["eng_Latn", "deu_Latn"]}',
        )
    given = list(models.values()) if isinstance(models, Mapping) else list(models)
    chosen.check(len(given), has_base=base is not None)
    everything = [*given, *([base] if base is not None else [])]
    refs = named_models(models, names) + ([] if base is None else named_models({"base": base}))
    donor = len(everything) - 1 if base is not None else 0
    if given_model(everything[donor]) is None:
        raise UsageError(
            f"the {'base' if base is not None else 'first model'} is not in memory, and the result "
            "is of its class",
            hint="load it, or merge folders: repsim.merge(recipe, out)",
        )
    _check(chosen, refs, base is not None, aligned=align != "none", any_base=any_base, say=say)
    states = [_state(model, ref) for model, ref in zip(everything, refs, strict=True)]
    found = given_model(everything[donor])
    assert found is not None
    like: Any = found.model
    config = like.config
    parents = _Parents(given, refs[: len(given)], seed)
    shares = parents.shares(states[0], token_weights) if token_weights is not None else None
    if align != "none":
        from repsim.merging.align import align as aligned

        others = [state for place, state in enumerate(states) if place != donor]
        text = parents.text(learn, config) if learn is not None else {}
        if learn is not None and base is None:
            text["shares"] = shares
        result = aligned(states[donor], others, config, method=align, seed=seed, **text)
        first, *rest = result.states
        states = [*rest, first] if base is not None else [first, *rest]
        config = result.config
    if shares is not None:
        states[: len(given)] = pool_states(states[: len(given)], shares)
    merged = merge_state_dicts(
        states[: len(given)], chosen, base=states[-1] if base is not None else None,
        parameters=parameters, config=config, seed=seed, device=device,
    )  # fmt: skip
    return _module(like, config, merged, untied=align in ("orthogonal", "learned"))


@dataclasses.dataclass(frozen=True)
class _Parents:
    """What models in memory state of themselves, where text is read for their merge."""

    models: Sequence[ModelLike]
    refs: Sequence[ModelRef | str | Any]
    seed: int

    @property
    def tokenizer(self) -> Any:
        """The first that one of them has."""
        known = [given_model(model) for model in self.models]
        found = next((one.tokenizer for one in known if one and one.tokenizer), None)
        if found is None:
            raise UsageError(
                "text is read as a tokenizer cuts it, and no model has one",
                hint="give models as (module, tokenizer)",
            )
        return found

    @property
    def languages(self) -> dict[str, tuple[str, ...]]:
        """Model -> the languages that it states."""
        described = [inspect_model(ref, generic=True) for ref in self.refs]
        return {ref.name: ref.languages for ref in described}

    def shares(self, state: Mapping[str, torch.Tensor], how: Mapping[str, Any]) -> torch.Tensor:
        """Share of each model in each row of tokens, by counts in its text."""
        asked, names = parse(TokenWeights, how), token_tensors(state)
        if not names:
            raise UsageError("the models have no rows of tokens to weigh")
        rows = len(state[min(names)])
        return shares_by(asked, self.languages, self.tokenizer, rows, self.seed)

    def text(self, how: Mapping[str, Any], config: Any) -> dict[str, Any]:
        """What learned alignment reads, and how long."""
        asked = parse(Learn, how)
        stated = dict.fromkeys(code for codes in self.languages.values() for code in codes)
        codes = asked.languages or tuple(stated)
        if not codes:
            raise UsageError(
                "no model states its languages, so there is no text to learn on",
                hint='name them: learn={..., "languages": ["eng_Latn", "deu_Latn"]}',
            )
        windows, learning = learning_on(
            asked.corpus, codes, asked, self.tokenizer, config, self.seed
        )
        return {"windows": windows, "learning": learning}


def _check(
    method: MergeMethod, refs: Sequence[Any], has_base: bool, *, aligned: bool, any_base: bool,
    say: Callable[[str, str], None] | None,
) -> None:  # fmt: skip
    """Refuse models that do not fit each other, and tell what a reader should know."""
    findings = check_models(refs, aligned=aligned)
    refuse_errors(findings)
    weighed = has_base and (method.needs_base or method.takes_base)
    parents, root = (refs[:-1], refs[-1]) if has_base else (refs, None)
    told = check_lineage(parents, root if weighed else None, aligned=aligned)
    if not any_base:
        way_on = "; any_base=True merges all the same"
        refuse_errors([dataclasses.replace(f, hint=f.hint + way_on) for f in told])
    for finding in [*findings, *told]:
        if say and finding.level != "ok":
            say("note", finding.sentence)


def _state(model: Any, ref: ModelRef | str | Any) -> dict[str, torch.Tensor]:
    """The tensors of a module as it names them, or of a folder as loaded."""
    found = given_model(model)
    if found is None:
        from repsim.models.causal import load_causal_lm

        return dict(load_causal_lm(ref).model.state_dict())
    return {name: tensor.detach().cpu() for name, tensor in found.model.state_dict().items()}


def _module(like: Any, config: Any, state: dict[str, torch.Tensor], *, untied: bool) -> nn.Module:
    """A module of the class of another over new tensors."""
    if untied:
        from repsim.merging.align import build_model

        return build_model(config, state)
    made: Any = shared_twin(like)
    place = next(like.parameters()).device
    made.load_state_dict({n: t.to(place) for n, t in state.items()}, strict=True, assign=True)
    made.tie_weights()
    return made.eval()
