"""What a family reads: sources of text for each language, and the tokenizer."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from repsim.core.config import Config, Number, Whole
from repsim.core.errors import UsageError, unknown_name
from repsim.pretraining.stable import StableConfig


class SourceConfig(Config):
    """One of several sources of text; its share in a language's samples is by `weight`."""

    source: str
    weight: Number = Field(default=1.0, gt=0)
    languages: tuple[str, ...] = ()


class CorpusConfig(Config):
    """Training and held-out text: `source` as of `load_training_text`, or a list of such."""

    source: str | tuple[SourceConfig, ...]
    languages: tuple[str, ...]
    content: Literal["same", "disjoint"] = "same"
    max_bytes: Whole | None = Field(default=None, ge=1)

    def streams(self, language: str) -> dict[str, SourceConfig]:
        """The sources of a language; a single one is named as the language is."""
        if isinstance(self.source, str):
            return {language: SourceConfig(source=self.source)}
        mine = [s for s in self.source if not s.languages or language in s.languages]
        if len(mine) == 1:
            return {language: mine[0]}
        return {f"{language}+{number}": source for number, source in enumerate(mine, start=1)}

    @model_validator(mode="after")
    def _possible(self) -> Self:
        for language in self.languages:
            if not self.streams(language):
                raise UsageError(f"no source of 'corpus.source' is for {language}")
        for source in self.source if isinstance(self.source, tuple) else ():
            for language in source.languages:
                if language not in self.languages:
                    raise unknown_name("language of a source", language, self.languages)
        return self


class TokenizerConfig(StableConfig):
    """One joint byte-level tokenizer, one per language, or bytes; or that of a folder."""

    kind: Literal["joint", "per-language", "bytes"] = "joint"
    vocab_size: Whole = Field(default=4096, ge=257)
    algorithm: Literal["bpe", "unigram"] = "bpe"
    path: str | None = None
    unsaid: ClassVar = {"algorithm": "bpe", "path": None}

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.path is not None and self.model_fields_set - {"path"}:
            raise UsageError("'tokenizer.path' names a finished tokenizer: say nothing beside it")
        return self
