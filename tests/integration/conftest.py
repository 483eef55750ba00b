"""The smallest family that is worth training, as the unit tests have it."""

from tests.unit.pretraining.conftest import corpus, document, family  # noqa: F401
from tests.unit.studies.conftest import micro  # noqa: F401
