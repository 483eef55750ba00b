"""GGUF files: config, tokenizer and weights of a model as llama.cpp keeps it.

Names and orders are mapped by the tables of `transformers`, blocks unpacked by the `gguf` package,
one tensor at a time. The table of tensors is kept in the view: a file's metadata takes seconds to
parse.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.errors import IncompatibleModelsError, InputError, expected
from repsim.core.files import read_json, write_json
from repsim.models.arch import spec_for
from repsim.models.consistency import shortest
from repsim.models.headers import TensorHeader

if TYPE_CHECKING:
    import torch

SUFFIX = ".gguf"
#: Types that hold plain numbers; everything else is unpacked to float32.
_PLAIN = {"F32": "F32", "F16": "F16", "BF16": "BF16"}
#: Numbers that are unpacked at once.
_AT_ONCE = 1 << 20
#: How to make a GGUF file of a merge: the tool of those who define the format.
TO_GGUF = "python llama.cpp/convert_hf_to_gguf.py {folder} --outfile {file} --outtype bf16"
#: Name of a part of a file that was split: which part, of how many.
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_SPLIT = "join its parts first: llama-gguf-split --merge FIRSTPART joined.gguf"


@dataclasses.dataclass(frozen=True)
class Block:
    """Where one tensor of a GGUF file lies, in which of its parts, and how it is packed."""

    name: str
    type: str
    shape: tuple[int, ...]
    start: int
    size: int
    part: int = 0


def find_gguf(path: Path) -> list[Path]:
    """The GGUF file that a path means, in its parts: itself, or the only one in a folder."""
    if path.is_file():
        return parts_of(path) if path.suffix == SUFFIX else []
    found = sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else []
    if not found or any(path.glob("*.safetensors")):
        return []
    return parts_of(only_one(found, f"'{path}'", str(found[0])))


def stem_of(file: Path) -> str:
    """Name of a model file, without the number of a part."""
    found = PART.fullmatch(file.name)
    return found["stem"] if found else file.stem


def only_one(files: Sequence[Path], where: str, named: str) -> Path:
    """The one GGUF file, or the first part of the one that was split."""
    kinds = {PART.sub(r"\g<stem>-\g<count>", file.as_posix()) for file in files}
    if len(kinds) > 1:
        names = ", ".join(file.name for file in files[:4])
        raise InputError(f"{where} holds {len(kinds)} GGUF files: {names}",
                         hint=f"name one of them: {named}")  # fmt: skip
    return min(files)


def parts_of(file: Path) -> list[Path]:
    """All parts of a file that was split, by the name of one; a file that is whole, alone."""
    if (found := PART.fullmatch(file.name)) is None:
        return [file]
    stem, count = found["stem"], int(found["count"])
    parts = [file.with_name(f"{stem}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise InputError(
            f"'{file}' is a part of a GGUF file that was split; beside it {missing[0]} is missing",
            hint=f"copy all {count} parts into one folder",
        )
    return parts


def write_gguf_view(files: Sequence[Path], folder: Path) -> dict[str, Any]:
    """Write config and tokenizer of a GGUF file to a folder; give the document of its view."""
    _need_gguf()
    file = files[0]
    architecture, blocks = _read_table(files)
    try:
        return _write(file, folder, architecture, blocks)
    except (InputError, IncompatibleModelsError):
        raise
    except Exception as error:
        if known := expected(error):
            raise known from error
        reason = f"{type(error).__name__}: {str(error).strip()[:200]}"
        raise IncompatibleModelsError(
            f"transformers does not read '{file}': {reason}",
            hint="convert it with the tool of its makers, or take the original model",
        ) from error


def _need_gguf() -> None:
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise IncompatibleModelsError(
            "a GGUF file needs the package gguf, which is not installed",
            hint="install the extra 'gguf': pip install gguf",
        ) from None


def _read_table(files: Sequence[Path]) -> tuple[str, list[Block]]:
    """The files' name of their family, and the table of tensors, with shapes in torch's order."""
    from gguf import GGUFReader

    architecture, found = "", []
    for part, file in enumerate(files):
        with file.open("rb") as handle:
            if handle.read(4) != b"GGUF":
                raise InputError(f"'{file}' is not a GGUF file", hint="copy or download it again")
        try:
            reader = GGUFReader(file)
            own = [
                Block(t.name, t.tensor_type.name, tuple(int(n) for n in reversed(t.shape)),
                      int(t.data_offset), int(t.n_bytes), part)
                for t in reader.tensors
            ]  # fmt: skip
            if not part:
                architecture = str(reader.fields["general.architecture"].contents())
            stated = reader.fields.get("split.count")
        except Exception as error:
            if known := expected(error):
                raise known from error
            raise InputError(
                f"'{file}' is truncated or is not a GGUF file: {type(error).__name__}: {error}",
                hint="copy or download it again",
            ) from error
        count = 1 if stated is None else max(1, int(stated.contents()))
        if count != len(files):
            raise InputError(
                f"'{file}' is one of {count} parts of a GGUF file, by its name of {len(files)}",
                hint="give the parts their names again, STEM-00001-of-0000N.gguf",
            )
        if max((b.start + b.size for b in own), default=0) > file.stat().st_size:
            raise InputError(f"'{file}' is truncated", hint="copy or download it again")
        found += own
    if not found:
        raise InputError(f"'{files[0]}' is truncated", hint="copy or download it again")
    return architecture, found


def _write(
    file: Path, folder: Path, architecture: str, blocks: Sequence[Block]
) -> dict[str, Any]:  # fmt: skip
    import torch
    import transformers
    from transformers import AutoConfig, AutoTokenizer
    from transformers import modeling_gguf_pytorch_utils as tables

    parsed = _short(tables.load_gguf_checkpoint(str(file))["config"])
    if any(block.part for block in blocks):
        # transformers looks for some tensors to fill in the config, and only in the first part.
        if architecture == "stablelm":
            raise InputError(f"'{file}' is a part of a GGUF file that was split", hint=_SPLIT)
        heads = {"output.weight"} & {block.name for block in blocks}
        parsed["tie_word_embeddings"] = not heads or architecture in ("falcon", "bloom")
    config = AutoConfig.for_model(**{k: v for k, v in parsed.items() if k != "_model_name_or_path"})
    spec = spec_for(config.model_type, generic=True)
    loader = transformers.AutoModelForCausalLM if spec.decoder else transformers.AutoModel
    with torch.device("meta"):
        model = loader.from_config(config)
    # The file's own name of its family picks the processor, as in transformers.
    processor = tables.TENSOR_PROCESSORS.get(architecture, tables.TensorProcessor)(config=parsed)
    names = tables.get_gguf_hf_weights_map(model, processor)
    tensors = _mapped(file, model, names, blocks)
    config.architectures, config.dtype = [type(model).__name__], torch.float32
    document = config.to_dict()
    document.pop("_name_or_path", None)
    write_json(folder / "config.json", document)
    tokenizer = AutoTokenizer.from_pretrained(
        file.parent, gguf_file=file.name, local_files_only=True, trust_remote_code=False
    )
    tokenizer.save_pretrained(folder)
    _drop_tokens(folder, config.vocab_size)
    numbers = {k: v for k, v in parsed.items() if isinstance(v, int | float | str | bool | list)}
    return {
        "architecture": architecture, "config": numbers, "tensors": tensors,
        "names": {b.name: names[b.name] for b in blocks if b.name in names},
    }  # fmt: skip


def _drop_tokens(folder: Path, rows: int) -> None:
    """Take out tokens that have no row: a converter adds special ones that the file has not."""
    document = read_json(folder / "tokenizer.json")
    added = document.get("added_tokens") or []
    extra = {token["content"] for token in added if token["id"] >= rows}
    if not extra:
        return
    document["added_tokens"] = [token for token in added if token["id"] < rows]
    write_json(folder / "tokenizer.json", document)
    path = folder / "tokenizer_config.json"
    stated = read_json(path)
    kept = {k: v for k, v in stated.items() if not (isinstance(v, str) and v in extra)}
    kept.pop("added_tokens_decoder", None)
    write_json(path, kept)


def _short(value: Any) -> Any:
    """A config whose numbers are as they were before the file rounded them to float32."""
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    return shortest(value) if isinstance(value, float) else value


def _mapped(
    file: Path, model: Any, names: Mapping[str, str], blocks: Sequence[Block]
) -> dict[str, Any]:
    """Tensor of the model -> its shape, and the blocks that it is made of."""
    own = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    made: dict[str, list[Block]] = {}
    for block in blocks:
        if (target := names.get(block.name)) in own:
            made.setdefault(str(target), []).append(block)
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    tied.update(name for name, _ in model.named_buffers())
    if missing := sorted(own.keys() - made.keys() - tied):
        raise IncompatibleModelsError(
            f"'{file}' has no tensor for {len(missing)} weight(s) of {type(model).__name__}, first "
            f"{missing[0]}",
            hint="transformers has no table for this family, or the file is not complete",
        )
    for target, parts in made.items():
        if sum(math.prod(b.shape) for b in parts) != math.prod(own[target]):
            raise InputError(
                f"tensor '{parts[0].name}' of '{file}' has shape {parts[0].shape}, the model's "
                f"{target} has {own[target]}",
                hint="copy or download it again",
            )
    return {
        target: {"shape": own[target], "blocks": [dataclasses.astuple(b) for b in parts]}
        for target, parts in made.items()
    }


class GgufWeights:
    """The weights of a GGUF file under the names of `transformers`, unpacked when they are read."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.files = [Path(file) for file in document["files"]]
        self._names: Mapping[str, str] = document["names"]
        self._architecture = str(document["architecture"])
        self._config: Mapping[str, Any] = document["config"]
        self._blocks: dict[str, list[Block]] = {}
        self.headers: dict[str, TensorHeader] = {}
        for name, told in document["tensors"].items():
            blocks = [Block(n, kind, tuple(s), *place) for n, kind, s, *place in told["blocks"]]
            kinds = {block.type for block in blocks}
            self._blocks[name] = blocks
            dtype = _PLAIN.get(kinds.pop(), "F32") if len(kinds) == 1 else "F32"
            self.headers[name] = TensorHeader(dtype, tuple(told["shape"]))

    def read(self, tensor: str) -> torch.Tensor:
        """A tensor in the order of `transformers`, float32 where the file has it packed."""
        import numpy as np
        import torch
        from transformers import modeling_gguf_pytorch_utils as tables

        processor = tables.TENSOR_PROCESSORS.get(self._architecture, tables.TensorProcessor)(
            config=self._config
        )
        # What processors of several blocks, as of experts, put together.
        collected: dict[str, Any] = {"tensors": {}}
        alone = None
        for block in self._blocks[tensor]:
            result = processor.process(
                weights=self._unpacked(block), name=block.name,
                tensor_key_mapping=_stems(self._names), parsed_parameters=collected,
            )  # fmt: skip
            if result.name is not None:
                alone = torch.from_numpy(np.ascontiguousarray(result.weights))
        found = collected["tensors"].get(tensor, alone)
        header = self.headers[tensor]
        if found is None or found.numel() != math.prod(header.shape):
            raise InputError(f"tensor '{tensor}' of '{self.files[0]}' cannot be put together")
        kinds = {"F16": torch.float16, "BF16": torch.bfloat16}
        return found.reshape(header.shape).to(kinds.get(header.dtype, torch.float32)).contiguous()

    def _unpacked(self, block: Block) -> Any:
        """The numbers of a block, float32; some rows at a time, for unpacking takes room."""
        import numpy as np
        from gguf import GGMLQuantizationType, dequantize

        kind, rows = GGMLQuantizationType[block.type], math.prod(block.shape[:-1])
        stored = np.memmap(self.files[block.part], np.uint8, "r", block.start, (block.size,))
        data = stored.reshape(rows, -1)
        found = np.empty((rows, block.shape[-1]), np.float32)
        step = max(1, _AT_ONCE // found.shape[1])
        for start in range(0, rows, step):
            part = slice(start, start + step)
            found[part] = dequantize(data[part], kind).reshape(-1, found.shape[1])
        return found.reshape(block.shape)


def _stems(names: Mapping[str, str]) -> dict[str, str]:
    """The table as processors ask for it: also without the ending of a name."""
    cut = {name.rpartition(".")[0]: target for name, target in names.items()}
    return dict(itertools.chain(cut.items(), names.items()))
