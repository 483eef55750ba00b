"""Everything that one pass over the weights of a group of models yields."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from repsim.core.progress import progress
from repsim.mergeability.features.fit import Weights, check_fit
from repsim.mergeability.features.layout import Place, places_of, spaces_of
from repsim.mergeability.features.moments import Moments, tensor_moments
from repsim.mergeability.features.spectra import Spectrum, piece_of, sampled_layers, spectrum
from repsim.mergeability.features.units import Matrix, UnitProducts, add_units, units_of
from repsim.merging.checkpoint import Checkpoint, TensorSource

#: Parts of a model that are looked at; biases and positions are not.
GROUPS = ("attention", "mlp", "embedding", "norm")


@dataclasses.dataclass
class Scan:
    """What the pass found."""

    k: int
    layers: int
    no_rows: str = ""
    moments: list[tuple[Place, Moments]] = dataclasses.field(default_factory=list)
    units: dict[int, UnitProducts] = dataclasses.field(default_factory=dict)
    heads: dict[int, UnitProducts] = dataclasses.field(default_factory=dict)
    spectra: list[list[Spectrum | None]] = dataclasses.field(default_factory=list)
    update_spectra: list[list[Spectrum | None]] = dataclasses.field(default_factory=list)

    def sums(self, wanted: Callable[[Place], bool]) -> list[Moments]:
        """Sums of those tensors that are wanted."""
        return [found for place, found in self.moments if wanted(place)]

    def similarities(self, kind: dict[int, UnitProducts], i: int, j: int) -> list[Matrix]:
        """Similarities of the units of two models, block by block."""
        return [kind[layer].similarity(i, j) for layer in sorted(kind)]


def scan_weights(models: Sequence[Weights], base: Weights | None = None) -> Scan:
    """Read the weights of some models side by side, tensor by tensor, each once."""
    shapes, no_rows = check_fit([*models, base] if base else models)
    places = places_of(shapes, models[0].config)
    spaces = spaces_of(models[0].config)
    sizes = spaces.sizes if spaces else {}
    layers = 1 + max((place.layer for place in places if place.layer is not None), default=0)
    scan, sampled = Scan(len(models), layers, no_rows), sampled_layers(layers)
    sources = [model.source for model in models]
    origin = base.source if base else None
    everyone = [*sources, *([origin] if origin else [])]
    wanted = [place for place in places if place.group in GROUPS]
    weights = sum(math.prod(place.shape) for place in wanted)
    with progress("weights", total=len(sources) * weights, unit=" weights") as bar:
        for place in _read_ahead(wanted, everyone):
            scan.moments.append((place, tensor_moments(place, sources, origin)))
            _add_units(scan, place, sources, sizes)
            if place.is_body and place.layer in sampled:
                _add_spectra(scan, place, sources, origin)
            bar.update(len(sources) * math.prod(place.shape))
    return scan


def _read_ahead(places: Sequence[Place], sources: Sequence[TensorSource]) -> Iterator[Place]:
    """Places in order, each while the next one is read into the page cache by another thread."""
    with ThreadPoolExecutor(1) as reader:
        for place, *following in itertools.zip_longest(places, places[1:]):
            for source, after in itertools.product(sources, filter(None, following)):
                if isinstance(source, Checkpoint) and after.tensor in source.headers:
                    reader.submit(source.fetch, after.tensor)
            yield place


def _add_units(
    scan: Scan, place: Place, sources: Sequence[TensorSource], sizes: Mapping[str, int]
) -> None:
    if place.layer is None or place.stored is None:
        return
    rows = [units_of(place, source.read(place.tensor), sizes) for source in sources]
    known = [row for row in rows if row is not None]
    if known:
        kind = scan.heads if place.group == "attention" else scan.units
        kind[place.layer] = add_units(kind.get(place.layer), known)


def _add_spectra(
    scan: Scan, place: Place, sources: Sequence[TensorSource], base: TensorSource | None
) -> None:
    pieces = [piece_of(place, source.read(place.tensor)) for source in sources]
    scan.spectra.append([spectrum(piece) for piece in pieces])
    if base is not None:
        origin = piece_of(place, base.read(place.tensor))
        scan.update_spectra.append([spectrum(piece - origin) for piece in pieces])
