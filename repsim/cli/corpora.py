"""`repsim corpora`: the built-in corpora, and a look at any other."""

from __future__ import annotations

import click

from repsim.cli import options as opt
from repsim.cli.output import print_either, print_json, print_table, say, size


@click.command(
    epilog="""\b
Examples:
  repsim corpora
  repsim corpora kolibri
  repsim corpora moses:data/corpus.en-de
"""
)
@click.argument("corpus", required=False)
@opt.languages("May be repeated.")
@opt.flag("--allow-network", "Let a Hugging Face data set be fetched.")
@opt.as_json
def corpora(
    corpus: str | None, languages: tuple[str, ...], allow_network: bool, as_json: bool
) -> None:
    """List the built-in parallel corpora, or read CORPUS and tell what is in it.

    Reading checks everything: encoding, alignment, empty and repeated sentences.
    """
    if corpus is None:
        _list(as_json=as_json)
        return
    from repsim.corpora import load_corpus

    loaded = load_corpus(corpus, languages=languages or None, allow_network=allow_network)
    document = loaded.describe()
    first = {language: loaded[language][0] for language in loaded.languages}
    if as_json:
        print_json(document | {"first": first})
        return
    print_table(
        [
            {
                "language": language,
                "mean characters": float(loaded.covariates(language)["length"].mean()),
                "first sentence": first[language],
            }
            for language in loaded.languages
        ]
    )
    say("corpus", f"{document['sentences']} sentences in {document['documents']} documents")
    say("source", document["source"] or "not stated")
    for note in document["notes"]:
        say("note", note)


def _list(*, as_json: bool) -> None:
    from repsim.corpora import list_corpora

    known = list_corpora()
    rows = [
        {"name": entry.name, "languages": entry.languages, "sentences": entry.sentences,
         "size": size(entry.size), "what": entry.title, "licence": entry.licence}
        for entry in known
    ]  # fmt: skip
    print_either(as_json, [entry.describe() for entry in known], rows)
    if not as_json:
        say(
            "next",
            f"repsim corpora {known[0].name}, or a path (TSV, JSONL, Moses, FLORES), hub:NAME",
        )
