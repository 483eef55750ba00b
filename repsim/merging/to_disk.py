"""`merge`: from a recipe to a model folder, streaming."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from repsim.core.errors import UsageError
from repsim.core.files import write_text
from repsim.core.progress import progress
from repsim.merging.arrays import flat_array
from repsim.merging.card import RECIPE_FILE, write_companions
from repsim.merging.execute import Job, after_survey, bytes_of, choose_device
from repsim.merging.output import Output, lay_out
from repsim.merging.prepare import Prepared, prepare
from repsim.merging.reading import read_recipe
from repsim.merging.recipe import Recipe
from repsim.merging.steps import Step, key_of, read_steps
from repsim.models.gguf import SUFFIX, TO_GGUF
from repsim.models.inspect import PROVENANCE_FILE, hash_remembered, split_label

if TYPE_CHECKING:
    import torch

    from repsim.merging.repairing import Calibration

Transform = Callable[[str, "torch.Tensor"], "torch.Tensor"]


def merge(
    recipe: Recipe | str | Path | Mapping[str, Any],
    out: str | Path,
    *,
    device: str | None = None,
    force: bool = False,
    transforms: Mapping[str, Transform] | None = None,
    forecast: Callable[[], str] | None = None,
    any_base: bool = False,
    keep: str | Path | None = None,
    say: Callable[[str, str], None] | None = None,
    then: Callable[[Recipe, Path], None] | None = None,
) -> Path:
    """Merge models on disk into a new model folder.

    Tensors are read through memory maps, merged one at a time in float32 and written to their
    places, so that a few tensors are in memory however large the models. The folder is written
    aside and renamed when it is whole. A merge that was killed goes on when it is run again.

    A file of several merges that name each other (`mergekit-multi`) is made one after another, and
    what is merged in between is removed at the end. Stopped, it goes on from the merges that were
    whole, if the file and all models are still the same.

    Args:
        recipe: A recipe, a dictionary that states one, or a YAML file; mergekit's are read too.
        out: Folder of the result; must not exist.
        device: Where tensors are merged; by default a GPU if there is one, but for methods that
            keep up with the disk on a CPU.
        force: Replace an earlier merge in that folder.
        transforms: Model, as the recipe names it -> function of name and tensor that its tensors
            pass through. A merge with transforms is not resumed.
        forecast: Asked for a forecast of the merge, in Markdown for the model card, once
            recipe, models and target are found sound and before a tensor is merged.
        any_base: Whether a base may be of another origin than the models, as their weights tell it.
        keep: Folder for the merges in between, of a file of several; must not exist.
        say: Told what a reader should know, a label and a text; it is in the card as well.
        then: Trains a copy of the merge if the recipe has `then_finetune`; `repsim.merge` brings
            `repsim.finetune`. Run again, it goes on where the training was stopped.

    Returns:
        The folder: weights, config, tokenizer, model card, `repsim_recipe.yaml` and
        `repsim_provenance.json`.

    Raises:
        IncompatibleModelsError: The models do not fit each other, or the base is of another origin
            and `any_base` is off.
        InputError: A file is missing or damaged, or a tensor holds NaN or infinity.
        ResourceError: The disk is full, or the device is not there.
        UsageError: The recipe or the target is not possible.

    Example:
        >>> import tempfile
        >>> from repsim.testing.tiny_models import write_tiny_model
        >>> root = tempfile.mkdtemp()
        >>> a, b = (str(write_tiny_model("llama", f"{root}/{n}", seed=n)) for n in (0, 1))
        >>> folder = merge({"method": "slerp", "models": [a, b]}, root + "/merged", device="cpu")
        >>> (folder / "model.safetensors").is_file(), (folder / "README.md").is_file()
        (True, True)
    """
    target = Path(out)
    if steps := read_steps(recipe):
        how = {"device": device, "force": force, "any_base": any_base, "say": say, "then": then}
        return _merge_steps(steps, Path(str(recipe)), target, keep, forecast, how)
    if keep is not None:
        raise UsageError("nothing is merged in between: the recipe holds one merge")
    parsed = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    chosen = None if device is None else choose_device(device)
    if parsed.then_finetune:
        if then is None:
            raise UsageError(
                "'then_finetune' needs a merge that can train", hint="repsim.merge, or repsim merge"
            )
        if _is_to_go_on(target, parsed):
            then(parsed, target)
            return target
    _check_target(target, parsed, force=force)
    prepared = prepare(parsed, transforms=transforms, any_base=any_base)
    if say:
        for sentence in dict.fromkeys(prepared.notes):
            say("note", sentence)
    predicted = forecast() if forecast else ""
    if chosen is None:
        on_gpu = prepared.method.gpu or not prepared.method.streams or prepared.calibration
        chosen = choose_device(None if on_gpu else "cpu")
    layout = lay_out({plan.name: plan.header for plan in prepared.plans})
    aside = target.with_name(f".{target.name}.merging")
    with (
        _hashing(prepared) as hashes,
        Output.open(aside, layout, prepared.key and f"{prepared.key}/{chosen}") as output,
    ):
        if prepared.calibration is None:
            _write_tensors(prepared, output, chosen)
        else:
            _write_repaired(prepared, output, chosen, prepared.calibration)
        for hashed in hashes:
            hashed.result()
        write_companions(aside, prepared, output.done, name=target.name, forecast=predicted)
        output.write_index()
        output.tidy()
    _put_in_place(aside, target)
    if then and parsed.then_finetune:
        then(parsed, target)
    return target


def copy_of(target: Path) -> Path:
    """Folder of the copy of a merge that is trained."""
    return target.with_name(f"{target.name}-finetuned")


def _is_to_go_on(target: Path, recipe: Recipe) -> bool:
    """Whether a merge was made by this recipe, and the training of its copy is not done."""
    made = target / RECIPE_FILE
    done = (copy_of(target) / PROVENANCE_FILE).is_file()
    return not done and made.is_file() and made.read_text(encoding="utf-8") == recipe.text


def _merge_steps(
    steps: Sequence[Step], file: Path, target: Path, keep: str | Path | None,
    forecast: Callable[[], str] | None, how: Mapping[str, Any],
) -> Path:  # fmt: skip
    """The merges of one file in turn; the next run takes up whole results unless it fails too."""
    results = target.with_name(f".{target.name}.merges") if keep is None else Path(keep)
    recipes = [step.recipe(results) for step in steps]  # what is wrong in the last one shows now
    if early := next((s.name for s, r in zip(steps, recipes, strict=True)
                      if s.name and r.then_finetune), None):  # fmt: skip
        raise UsageError(
            f"'{early}' is merged on, and its copy would not be: it cannot have 'then_finetune'",
            hint="give it to the last merge, or fine-tune in a call of its own",
        )
    _check_target(target, recipes[-1], force=how["force"])
    begun, key = results / ".begun", key_of(steps)
    if results.exists() and not (begun.is_file() and begun.read_text(encoding="utf-8") == key):
        if keep is not None:
            raise UsageError(f"'{results}' exists", hint="choose another folder for --keep")
        shutil.rmtree(results)
    text, say = file.read_text(encoding="utf-8"), how["say"] or (lambda label, text: None)
    fate = f"kept in '{results.name}'" if keep is not None else "not kept"
    notes = (*recipes[-1].notes, f"made of merges that are {fate}: "
             + ", ".join(f"'{step.name}'" for step in steps[:-1]))  # fmt: skip
    try:
        write_text(begun, key)
        for number, (step, recipe) in enumerate(zip(steps, recipes, strict=True), start=1):
            made = bool(step.name) and (results / step.name).is_dir()
            what = f"{number} of {len(steps)}: {step.name or target.name}"
            say("merge", what + (", made before" if made else ""))
            if not step.name:
                last = dataclasses.replace(recipe, text=text, notes=notes)
                merge(last, target, forecast=forecast, **how)
            elif not made:
                merge(recipe, results / step.name, **how)
    except (KeyboardInterrupt, MemoryError, OSError):
        raise
    except Exception:
        shutil.rmtree(results, ignore_errors=True)
        raise
    begun.unlink() if keep is not None else shutil.rmtree(results)
    return target


def _job(prepared: Prepared, device: str) -> Job:
    recipe = prepared.recipe
    job = Job(
        prepared.method, list(prepared.sources.values()), recipe.dtype, recipe.seed, device,
        prepared.statistics,
    )  # fmt: skip
    return after_survey(job, prepared.plans)


def _write_repaired(
    prepared: Prepared, output: Output, device: str, calibration: Calibration
) -> None:
    """Merge and repair the whole model, and write what the journal does not list yet."""
    from repsim.merging.repairing import repaired_tensors

    if all(plan.name in output.done for plan in prepared.plans):
        return
    job = _job(prepared, device)
    for found in repaired_tensors(job, prepared.plans, calibration, prepared.config):
        name = found.plan.name
        if name not in output.done:
            output.write(name, bytes_of(flat_array(found.tensor)))
            output.finish(name, notes=list(found.notes), values=dict(found.values))


def _write_tensors(prepared: Prepared, output: Output, device: str) -> None:
    """Merge what the journal does not list yet."""
    job = _job(prepared, device)
    sizes = {plan.name: math.prod(plan.header.shape) for plan in prepared.plans}
    order = output.order
    with progress("merging", total=sum(sizes.values()), unit="parameters") as bar:
        for plan in sorted(prepared.plans, key=lambda plan: order[plan.name]):
            if plan.name not in output.done:
                context = job.context(plan)
                for start, data in job.merge(plan, context):
                    output.write(plan.name, data, start)
                output.finish(plan.name, notes=context.notes, values=context.values)
            bar.update(sizes[plan.name])


@contextmanager
def _hashing(prepared: Prepared) -> Iterator[list[Future[str]]]:
    """Hash the parents' files beside the merge, which reads the same bytes."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        files = [prepared.checkpoints[model].files for model in prepared.recipe.sources]
        futures = [pool.submit(hash_remembered, some) for some in files]
        try:
            yield futures
        finally:
            for future in futures:
                future.cancel()


def _check_target(target: Path, recipe: Recipe, *, force: bool) -> None:
    """Refuse to write over anything but an earlier merge."""
    if target.name in ("", ".."):
        raise UsageError(f"'{target}' is not the name of a new folder")
    if target.suffix == SUFFIX:
        raise UsageError(
            f"a merge is a folder of safetensors, and '{target.name}' is to be a GGUF file",
            hint=f"write the folder '{target.with_suffix('')}', then: "
            + TO_GGUF.format(folder=target.with_suffix(""), file=target),
        )
    if target.is_symlink() and not target.exists():
        raise UsageError(f"'{target}' is a link that leads nowhere", hint="choose another folder")
    if not target.exists():
        return
    sources = [Path(split_label(model)[1]).expanduser() for model in recipe.sources]
    if target.resolve() in {source.resolve() for source in sources}:
        raise UsageError(f"'{target}' is one of the models that are merged")
    if not force:
        raise UsageError(
            f"'{target}' exists", hint="choose another folder, or pass --force to replace a merge"
        )
    empty = target.is_dir() and not any(target.iterdir())
    if not empty and not (target / RECIPE_FILE).is_file():
        raise UsageError(
            f"'{target}' holds something else than a merge and is not replaced",
            hint="choose another folder",
        )


def _put_in_place(aside: Path, target: Path) -> None:
    """Rename the folder; an earlier merge there is moved away first and removed last."""
    target.parent.mkdir(parents=True, exist_ok=True)
    old = None
    if target.exists():
        old = target.with_name(f".{target.name}.replaced")
        shutil.rmtree(old, ignore_errors=True)
        target.replace(old)
    aside.replace(target)
    descriptor = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)
