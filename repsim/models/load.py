"""Load a model, its tokenizer and its spec."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.errors import (
    IncompatibleModelsError,
    InputError,
    ResourceError,
    UsageError,
    expected,
)
from repsim.core.model_ref import ModelRef
from repsim.models.arch import ArchSpec, spec_for
from repsim.models.bounds import check_tokenizer, require_memory
from repsim.models.consistency import block_number
from repsim.models.formats import derived_weights, folder_headers, lazy_state
from repsim.models.identity import weight_versions
from repsim.models.in_memory import held_tokenizer, twin_of
from repsim.models.inspect import ModelLike, describe, locate, read_config

if TYPE_CHECKING:
    import torch
    from torch import nn

#: Parts that a checkpoint with another head may lack; extraction does not need what they give.
_OPTIONAL = ("pooler.",)
#: Causal masks that old checkpoints hold.
_BUFFER = re.compile(r"\.(attn|attention|self_attn)\.(masked_)?bias$")


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model in memory, ready for extraction.

    Attributes:
        ref: Identity and history.
        model: The base model without a head, in evaluation mode, gradients off.
        tokenizer: Its tokenizer, with a padding token.
        spec: Description of its family.
        versions: Place and version of its tensors when its weights were those of `ref`.
    """

    ref: ModelRef
    model: nn.Module
    tokenizer: Any
    spec: ArchSpec
    versions: tuple[tuple[int, int], ...] = ()


def load_model(
    name: ModelLike,
    *,
    label: str | None = None,
    device: str | torch.device = "cpu",
    device_map: str | Mapping[str, Any] | None = None,
    dtype: str | torch.dtype | None = None,
    generic: bool = False,
    revision: str | None = None,
    allow_network: bool = False,
) -> LoadedModel:
    """Load a model from a folder, a package or the hub, or take one that is in memory.

    Nothing pickled is read, code that comes with a model is never run, and nothing is
    downloaded unless `allow_network` says so.

    Args:
        name: As in `inspect_model`. Of a module in memory the weights are shared, not copied.
        label: Name in tables and plots; the folder's own name by default.
        device: Where the model runs.
        device_map: How `accelerate` spreads a model that fits no single device: "auto", or part ->
            device; `device` is then not used.
        dtype: Type of the weights; by default float32 on a CPU, as stored elsewhere, and as it is
            for a module.
        generic: Whether families without a spec are hooked by guesswork (`resid` only).
        revision: Revision on the hub.
        allow_network: Whether something that is not on this machine may be downloaded.

    Raises:
        InputError: Nothing is there, or files are missing, truncated, pickled or incomplete; a
            module came without its tokenizer.
        IncompatibleModelsError: The family has no spec, and `generic` is off.
        ResourceError: The device is not there.
        UsageError: `device` or `dtype` is not one.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> loaded = load_model(write_tiny_model("bert", tempfile.mkdtemp() + "/tiny"), label="a")
        >>> loaded.ref.name, loaded.spec.name, len(loaded.tokenizer("some text").input_ids) > 2
        ('a', 'bert', True)
    """
    where = choose_device(device)
    located = locate(name, label=label, revision=revision, allow_network=allow_network)
    config, spec = read_config(located.folder, generic=generic)
    ref = describe(located, config, spec)
    tokenizer = load_tokenizer(located.folder, config)
    model = load_weights(
        located.folder, config, spec.auto_class, dtype, device=where, device_map=device_map
    )
    return LoadedModel(ref, model, tokenizer, spec, weight_versions(model))


def load_tokenizer(folder: Path, config: Any) -> Any:
    """The `transformers` tokenizer of a folder, with a token to pad with."""
    tokenizer = held_tokenizer(folder) or _stored_tokenizer(folder)
    check_tokenizer(tokenizer, folder)
    rows = getattr(config, "vocab_size", math.inf)
    if tokenizer.pad_token is None or tokenizer.pad_token_id >= rows:
        # Decoders often have none, or one without an embedding. Padded positions are masked, so any
        # token will do.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.bos_token
    if tokenizer.pad_token is None:
        raise InputError(
            f"the tokenizer in '{folder}' has no token to pad with",
            hint="set pad_token in tokenizer_config.json",
        )
    return tokenizer


def _stored_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    with quiet_transformers():
        try:
            return AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except BaseException as error:  # panics of Rust are no Exception
            if isinstance(error, MemoryError | KeyboardInterrupt | SystemExit):
                raise
            raise InputError(
                f"the tokenizer in '{folder}' cannot be loaded: {_first_line(error)}",
                hint="its files are damaged or of another version: copy or download them again",
            ) from None


def load_weights(
    folder: Path,
    config: Any,
    auto_class: str,
    dtype: torch.dtype | str | None = None,
    *,
    device: torch.device | None = None,
    device_map: str | Mapping[str, Any] | None = None,
) -> nn.Module:
    """The model of a folder as a `transformers` class loads it, or shares its weights."""
    import torch
    import transformers

    device = device or torch.device("cpu")
    if (twin := twin_of(folder, auto_class)) is not None:
        if next(twin.parameters()).device.type != device.type:
            twin = twin.to(device)
        return twin if dtype is None else twin.to(_float_type(dtype))
    dtype = choose_dtype(dtype, device)

    loader = getattr(transformers, auto_class)
    bits = None if isinstance(dtype, str) else dtype.itemsize * 8
    require_memory(folder.name, folder_headers(folder).values(), bits)
    held: dict[str, Any] = {"pretrained_model_name_or_path": folder, "use_safetensors": True}
    if derived := derived_weights(folder):
        # Weights that no safetensors file holds are handed over one by one, to the class itself.
        held = {"pretrained_model_name_or_path": None, "state_dict": lazy_state(derived)}
    with quiet_transformers():
        try:
            if derived:
                with torch.device("meta"):
                    loader = type(loader.from_config(config))
            model, report = loader.from_pretrained(
                config=config,
                dtype=dtype,
                local_files_only=True,
                trust_remote_code=False,
                **held,
                **({} if device_map is None else {"device_map": device_map}),
                output_loading_info=True,
            )
        except ImportError as error:
            raise IncompatibleModelsError(
                f"the weights in '{folder}' need a package that is not here: {_first_line(error)}",
                hint="install it, or take the unquantised model",
            ) from None
        except Exception as error:
            if (known := expected(error)) and known.exit_code == ResourceError.exit_code:
                raise known from error
            raise InputError(
                f"the weights in '{folder}' cannot be loaded: {_first_line(error)}",
                hint="does config.json describe them, in a version that transformers knows?",
            ) from None
    missing = [key for key in sorted(report["missing_keys"]) if not key.startswith(_OPTIONAL)]
    mismatched = sorted(str(key) for key in report.get("mismatched_keys", ()))
    if missing or mismatched:
        bad = (missing or mismatched)[0]
        how = "lack" if missing else "do not fit config.json in"
        raise InputError(
            f"the weights in '{folder}' {how} {len(missing or mismatched)} tensor(s), first {bad}",
            hint="they would be filled with random numbers; is the folder complete?",
        )
    if ignored := [key for key in sorted(report["unexpected_keys"]) if _counts(key, config)]:
        raise InputError(
            f"config.json in '{folder}' leaves {len(ignored)} tensor(s) of its weights unused, "
            f"first {ignored[0]}",
            hint="the model would be read without them; mend config.json",
        )
    loaded: nn.Module = model.eval().requires_grad_(False)
    return loaded.to(device) if device_map is None else loaded


def _counts(tensor: str, config: Any) -> bool:
    """Whether a tensor that a config has no place for is a weight of a block, not a buffer."""
    spec = spec_for(config.model_type, generic=True)
    known = spec.blocks and block_number(tensor, spec) is not None
    return bool(known) and tensor.endswith((".weight", ".bias")) and not _BUFFER.search(tensor)


def choose_device(device: str | torch.device) -> torch.device:
    """The device that is meant, if it is there."""
    import torch

    try:
        where = torch.device(device)
    except RuntimeError:
        raise UsageError(f"'{device}' is not a device", hint="cpu, cuda, cuda:1, mps") from None
    if where.type not in ("cpu", "cuda", "mps", "xpu"):
        raise UsageError(f"device '{device}' holds no numbers", hint="cpu, cuda, cuda:1, mps")
    there = {
        "cpu": True,
        "cuda": (where.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
        "xpu": torch.xpu.is_available(),
    }
    if not there[where.type]:
        raise ResourceError(f"device '{device}' is not available here", hint="use device cpu")
    return where


def choose_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype | str:
    """The type of weights that is meant; for None float32 on a CPU, as stored elsewhere."""
    import torch

    if dtype is None:
        return torch.float32 if device.type == "cpu" else "auto"
    return _float_type(dtype)


def _float_type(dtype: str | torch.dtype) -> torch.dtype:
    import torch

    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise UsageError(
            f"'{dtype}' is not a type of weights", hint="float32, bfloat16, float16, float64"
        )
    return found


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    named = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
    return named + lines[0][:200] if lines else type(error).__name__


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep `transformers` from drawing bars and from reporting heads left out on purpose."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
