"""`repsim zoo`: the small language models that ship inside the package."""

from __future__ import annotations

import click

from repsim.cli import options as opt
from repsim.cli.output import print_json, print_table, say, with_bits_per_byte


@click.command(
    epilog="""\b
Examples:
  repsim zoo
  repsim compare zoo:eng-1 zoo:deu-1 zoo:mixed --corpus bible-heldout -l eng_Latn -l deu_Latn
"""
)
@opt.as_json
def zoo(as_json: bool) -> None:
    """List the zoo: languages, history, and bits per byte of every model on every language.

    A model is a language model of its language if its bits per byte lie far under the unigram floor
    (last line) and far under those of the other language's models.
    """
    from repsim.models import list_zoo

    known = list_zoo()
    if as_json:
        print_json([model.describe() for model in known])
        return
    rows = []
    for model in known:
        ref = model.ref
        mix = " + ".join(f"{share:.0%} {language}" for language, share in model.mix.items())
        rows.append(
            {
                "name": model.name,
                "role": ref.role,
                "trained on": mix,
                "tokens": f"{model.tokens:,}",
                "init seed": ref.init_seed,
                "data seed": ref.data_seed,
                "forked from": f"{ref.forked_from}@{ref.fork_step}" if ref.forked_from else None,
            }
        )
    scores = [model.bits_per_byte for model in known]
    print_table(with_bits_per_byte(rows, scores, known[0].unigram_floor))
    say("again", known[0].command)
    say("next", "repsim compare zoo:eng-1 zoo:deu-1 zoo:mixed --corpus bible-heldout -o out/zoo")
