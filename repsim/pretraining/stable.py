"""Configurations whose hashes outlive new settings."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import SerializerFunctionWrapHandler, model_serializer

from repsim.core.config import Config


class StableConfig(Config):
    """Settings that came later are dumped only where they say something, so that hashes stay."""

    #: Setting -> the value under which everything is as before there was such a setting.
    unsaid: ClassVar[dict[str, Any]] = {}

    @model_serializer(mode="wrap")
    def _without_what_is_not_said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {k: v for k, v in dump(self).items() if k not in self.unsaid or v != self.unsaid[k]}
