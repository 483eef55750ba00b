"""Every format through every verb: a command and its result, and the same of the unpacked weights.

    OMP_NUM_THREADS=1 python tests/benchmarks/formats.py [--write]

A tiny model is written in each format (by the library of the format where one is needed; a format
whose library is not installed is left out and named). Each verb is called on it as a user would
call it, and again on a plain folder with the weights unpacked: the numbers that the two print must
be the same, or the cell says by how much they differ.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from repsim.cli.main import cli
from repsim.core.files import write_json, write_text
from repsim.core.provenance import versions
from repsim.merging.checkpoint import Checkpoint
from repsim.models.inspect import locate
from repsim.models.views import VIEW
from repsim.testing.tiny_models import tiny_tokenizer, write_tiny_model
from tests.planted.held_files import write_packed, write_tiny_gguf

README = Path(__file__).parent / "README.md"
SIZE = {"hidden_size": 64, "intermediate_size": 128}


def near(folder: Path, base: Path, seed: int) -> Path:
    """A fine-tuned copy of a model, as far as random updates are that."""
    shutil.copytree(base, folder)
    tensors = load_file(folder / "model.safetensors")
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        tensors[name] = tensor + 0.02 * torch.randn(tensor.shape, generator=draw)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def _loaded(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def _gguf(packed: str, per_part: int = 0) -> Callable[[Path, Path], str]:
    def write(base: Path, target: Path) -> str:
        model = _loaded(near(target.with_name("near"), base, 1))
        file = target.with_suffix(".gguf")
        return str(write_tiny_gguf(file, model, tiny_tokenizer(), packing=lambda *_: packed,
                                   per_part=per_part))  # fmt: skip

    return write


def _rounded(method: str) -> Callable[[Path, Path], str]:
    def write(base: Path, target: Path) -> str:
        write_packed(near(target.with_name("near"), base, 1), target, method)
        return str(target)

    return write


def _mxfp4(base: Path, target: Path) -> str:
    """As GPT-OSS stores its experts: a power of two for 32 numbers of the input, e2m1 for each."""
    near(target, base, 1)
    tensors = load_file(target / "model.safetensors")
    levels = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    for name in [n for n in tensors if n.endswith(("gate_up_proj", "down_proj"))]:
        groups = tensors.pop(name).transpose(1, 2).unflatten(2, (-1, 32))
        exponent = (groups.abs().amax(-1) / 6).log2().ceil()
        scaled = groups / exponent.exp2().unsqueeze(-1)
        codes = (scaled.abs().unsqueeze(-1) - levels).abs().argmin(-1) + 8 * (scaled < 0)
        codes = codes.to(torch.uint8)
        tensors[f"{name}_blocks"] = codes[..., ::2] | codes[..., 1::2] << 4
        tensors[f"{name}_scales"] = (exponent + 127).to(torch.uint8)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    settings = {"quant_method": "mxfp4"}
    write_json(target / "config.json", config | {"quantization_config": settings})
    return str(target)


def _adapter(named: bool) -> Callable[[Path, Path], str]:
    def write(base: Path, target: Path) -> str:
        import peft

        settings = peft.LoraConfig(target_modules=["q_proj", "down_proj"], r=4, lora_alpha=8)
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")
            torch.manual_seed(1)
            attached = peft.get_peft_model(_loaded(base), settings)
            with torch.no_grad():
                for parameter in attached.parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.05 * torch.randn_like(parameter))
            attached.save_pretrained(target)
        return str(target) if named else f"{base}+{target}"

    return write


def _with_tokenizer(base: Path, target: Path) -> str:
    for file in base.glob("tokenizer*"):
        shutil.copyfile(file, target / file.name)
    return str(target)


def _bitsandbytes(**settings: Any) -> Callable[[Path, Path], str]:
    def write(base: Path, target: Path) -> str:
        import bitsandbytes  # noqa: F401
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

        packed = AutoModelForCausalLM.from_pretrained(
            near(target.with_name("near"), base, 1), dtype=torch.float32,
            quantization_config=BitsAndBytesConfig(**settings),
        )  # fmt: skip
        packed.save_pretrained(target)
        return _with_tokenizer(base, target)

    return write


def _compressed(scheme: str) -> Callable[[Path, Path], str]:
    def write(base: Path, target: Path) -> str:
        from compressed_tensors.compressors import ModelCompressor
        from compressed_tensors.quantization import (
            QuantizationConfig,
            apply_quantization_config,
            preset_name_to_scheme,
        )
        from compressed_tensors.quantization.utils import calculate_qparams

        model = _loaded(near(target.with_name("near"), base, 1))
        chosen = preset_name_to_scheme(scheme, ["Linear"])
        chosen.input_activations = None
        if chosen.weights.group_size:
            chosen.weights.group_size = 32
        config = QuantizationConfig(config_groups={"all": chosen}, ignore=["lm_head"])
        apply_quantization_config(model, config)
        for module in model.modules():
            if hasattr(module, "weight_scale"):
                w = module.weight.data
                parts = w.unflatten(1, (-1, chosen.weights.group_size or w.shape[1]))
                scale, _ = calculate_qparams(parts.amin(-1), parts.amax(-1), chosen.weights)
                module.weight_scale.data = scale.reshape(module.weight_scale.shape)
        compressor = ModelCompressor.from_pretrained_model(model)
        compressor.compress_model(model)
        model.save_pretrained(target)
        compressor.update_config(target)
        return _with_tokenizer(base, target)

    return write


def _fp8(base: Path, target: Path) -> str:
    """As DeepSeek stores it: blocks of a matrix with one scale each."""
    near(target, base, 1)
    tensors, block = load_file(target / "model.safetensors"), 32
    for name in [n for n in tensors if "proj" in n]:
        w = tensors[name]
        tiles = w.unfold(0, block, block).unfold(1, block, block)
        scale = tiles.abs().amax((-1, -2)) / 448
        wide = scale.repeat_interleave(block, 0).repeat_interleave(block, 1)
        tensors[name] = (w / wide).to(torch.float8_e4m3fn)
        tensors[f"{name}_scale_inv"] = scale
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    config = json.loads((target / "config.json").read_text())
    settings = {"quant_method": "fp8", "weight_block_size": [block, block]}
    write_json(target / "config.json", config | {"quantization_config": settings})
    return str(target)


#: Format -> what writes a model in it beside its base, and gives what the user names.
FORMATS: dict[str, Callable[[Path, Path], str]] = {
    "safetensors": lambda base, target: str(near(target, base, 1)),
    "GGUF, F16": _gguf("F16"),
    "GGUF, Q4_1": _gguf("Q4_1"),
    "GGUF, Q8_0, split": _gguf("Q8_0", per_part=8),
    "LoRA adapter": _adapter(True),
    "base+adapter": _adapter(False),
    "FP8, blocks": _fp8,
    "bitsandbytes NF4": _bitsandbytes(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    "bitsandbytes int8": _bitsandbytes(load_in_8bit=True),
    "compressed-tensors W4A16": _compressed("W4A16"),
    "GPTQ, 4 bits": _rounded("gptq"),
    "AWQ, 4 bits": _rounded("awq"),
    "MXFP4 (GPT-OSS)": _mxfp4,
}
#: Formats of one family.
FAMILY = {"MXFP4 (GPT-OSS)": "gpt_oss"}

_TEXT = ("-l", "eng_Latn", "--max-bytes", "6000")
#: Verb -> its words. HELD is the model in its format, BASE its parent, OUT a folder.
VERBS: dict[str, tuple[str, ...]] = {
    "models --check": ("models", "--check", "HELD"),
    "check": ("check", "HELD", "BASE"),
    "lineage": ("lineage", "HELD", "BASE"),
    "compare": ("compare", "HELD", "BASE", "--corpus", "udhr", "-l", "eng_Latn", "-m", "cka",
                "--permutations", "0", "-o", "OUT"),
    "evaluate": ("evaluate", "HELD", *_TEXT, "--no-card"),
    "merge": ("merge", "HELD", "BASE", "OUT", "--no-forecast"),
    "merge, task vectors": ("merge", "HELD", "OTHER", "OUT", "--method", "ties", "--base", "BASE",
                            "--no-forecast"),
    "barrier": ("barrier", "HELD", "BASE", "--points", "3", *_TEXT),
    "predict": ("predict", "HELD", "OTHER", "--tier", "T1", "-l", "eng_Latn"),
    "finetune": ("finetune", "HELD", "-l", "eng_Latn", "--tokens", "320", "--context", "16",
                 "--evaluation-bytes", "400", "-o", "OUT"),
}  # fmt: skip


def run(words: tuple[str, ...], places: dict[str, str]) -> tuple[int, Any, Path]:
    """Exit code and JSON of one call, or what it said."""
    out = Path(tempfile.mkdtemp(dir=Path(places["BASE"]).parent)) / "out"
    named = [places.get(word, str(out) if word == "OUT" else word) for word in words]
    done = CliRunner().invoke(cli, [*named, "--json"])
    try:
        return done.exit_code, json.loads(done.stdout), out
    except ValueError:
        return done.exit_code, done.output + repr(done.exception), out


def numbers(found: Any) -> Iterator[float]:
    """The numbers in a JSON document, in order, but for times."""
    if isinstance(found, dict):
        for key, value in found.items():
            if not any(word in key for word in ("second", "bytes", "time", "megabyte", "gigabyte")):
                yield from numbers(value)
    elif isinstance(found, list):
        for value in found:
            yield from numbers(value)
    elif isinstance(found, int | float) and not isinstance(found, bool):
        yield float(found)


def unpacked(spec: str, folder: Path) -> Path:
    """The same weights as a plain folder."""
    view = locate(spec).folder
    weights = Checkpoint(view)
    shutil.copytree(view, folder, ignore=shutil.ignore_patterns(VIEW, "*.safetensors"))
    tensors = {name: weights.read(name).clone() for name in weights.headers}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def difference(words: tuple[str, ...], places: dict[str, str], plain: str) -> float | str:
    """Largest difference of what a verb gives for a format and for its unpacked weights.

    Of merges and fine-tuning the weights are compared, of the rest the numbers that are printed.
    """
    code, found, out = run(words, places)
    if code != 0:
        return f"exit code {code}: {str(found)[:300]}"
    plain_code, known, plain_out = run(words, places | {"HELD": plain})
    if plain_code != 0:
        return f"unpacked: exit code {plain_code}: {str(known)[:300]}"
    if words[0] in ("merge", "finetune"):
        first, second = (load_file(o / "model.safetensors") for o in (out, plain_out))
        if first.keys() != second.keys():
            return f"other tensors: {sorted(first.keys() ^ second.keys())[:3]}"
        return max(float((first[n].float() - second[n].float()).abs().max()) for n in first)
    if words[0] in ("check", "models"):
        stated = [
            [(row.get("level", row.get("ok")), row["check"]) for row in each[key]]
            for each in (found, known) for key in ("findings", "checks") if key in each
        ]  # fmt: skip
        return 0.0 if stated[0] == stated[1] and stated[0] else f"{stated[0]} and {stated[1]}"
    pairs = [list(numbers(found)), list(numbers(known))]
    if len(pairs[0]) != len(pairs[1]) or not pairs[0]:
        return f"{len(pairs[0])} and {len(pairs[1])} numbers"
    return max((abs(a - b) for a, b in zip(*pairs, strict=True)), default=0.0)


def stage(root: Path, family: str) -> dict[str, str]:
    """A base and another model that comes from it, with a tokenizer that GGUF can hold."""
    base = write_tiny_model(family, root / "base", head=True, **SIZE)
    llama = _loaded(write_tiny_model("llama", root / "llama", head=True, **SIZE))
    file = write_tiny_gguf(root / "base.gguf", llama, tiny_tokenizer())
    for path in locate(file).folder.glob("tokenizer*"):
        shutil.copyfile(path, base / path.name)
    return {"BASE": str(base), "OTHER": str(near(root / "other", base, 2))}


def measure(root: Path, only: str | None) -> tuple[list[list[str]], list[str]]:
    """The table's rows, and the formats that could not be written here."""
    rows, missing = [], []
    for number, (name, write) in enumerate(FORMATS.items()):
        if only and only not in name:
            continue
        folder = root / f"format-{number}"
        folder.mkdir()
        places = stage(folder / "stage", FAMILY.get(name, "llama"))
        try:
            held = write(Path(places["BASE"]), folder / "held")
        except ImportError as error:
            missing.append(f"{name} ({error.name})")
            continue
        plain = str(unpacked(held, folder / "plain" / locate(held).name))
        row = [name]
        for verb, words in VERBS.items():
            start = time.process_time()
            found = difference(words, places | {"HELD": held}, plain)
            row.append(found if isinstance(found, str) else f"{found:.0e}" if found else "equal")
            sys.stderr.write(f"{name}: {verb}: {row[-1]} ({time.process_time() - start:.1f} s)\n")
        rows.append(row)
    return rows, missing


def report(only: str | None) -> str:
    """The table in Markdown, with the commands."""
    import os

    with tempfile.TemporaryDirectory() as folder:
        os.environ["REPSIM_CACHE"] = f"{folder}/cache"
        rows, missing = measure(Path(folder), only)
    known = versions()
    software = ", ".join(f"{k} {known[k]}" for k in ("torch", "transformers") if k in known)
    lines = [
        f"{platform.machine()} CPU, {dt.date.today()}; Python {platform.python_version()}, "
        f"{software}. Each cell: largest difference to the same verb on the unpacked weights."
    ]
    if missing:
        lines.append(f"Not written here, for want of their library: {'; '.join(missing)}.")
    head = ["format", *VERBS]
    table = [head, ["---"] * len(head), *rows]
    lines += ["", *(f"| {' | '.join(row)} |" for row in table), "", "Commands:", ""]
    lines += [f"- `repsim {' '.join(words)}`" for words in VERBS.values()]
    return "\n".join(lines)


def main() -> None:
    """Print the table, or put it into the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="replace the table in README.md")
    parser.add_argument("--only", help="formats whose name has this")
    asked = parser.parse_args()
    text = report(asked.only)
    sys.stdout.write(f"{text}\n")
    if asked.write:
        start, end = "<!-- formats -->", "<!-- /formats -->"
        before, _, rest = README.read_text().partition(start)
        write_text(README, f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}")


if __name__ == "__main__":
    main()
