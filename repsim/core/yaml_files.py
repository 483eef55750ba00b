"""YAML in, strictly: repeated keys are refused, and errors say which file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from repsim.core.errors import InputError


def read_yaml(path: str | Path, what: str) -> Any:
    """Read a YAML document.

    Args:
        path: The file.
        what: What the file is, for messages ("study file").

    Raises:
        InputError: It is missing, is not YAML, or repeats a key.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.yaml"
        >>> _ = path.write_text("a: [1, 2]")
        >>> read_yaml(path, "file")
        {'a': [1, 2]}
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{what} '{path}' cannot be read: {reason}") from None
    try:
        return yaml.load(text, Loader=_strict_loader())
    except yaml.YAMLError as error:
        raise InputError(f"{what} '{path}' is not valid YAML: {error}") from None


def _strict_loader() -> Any:
    """YAML's safe loader, refusing repeated keys, of which the last would silently win."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            repeated = [key for i, key in enumerate(keys) if key in keys[:i]]
            if repeated:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key '{repeated[0]}' is repeated", node.start_mark
                )
            return dict(super().construct_mapping(node, deep=deep))

    return Loader
