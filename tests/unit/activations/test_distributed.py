import pytest

from repsim.activations.distributed import Ranks, join
from repsim.core import ResourceError


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_every_chunk_goes_to_exactly_one_rank(size):
    shares = [Ranks(rank, size).share(17) for rank in range(size)]
    assert sorted(chunk for share in shares for chunk in share) == list(range(17))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_process_needs_no_others(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join() == Ranks(0, 1, 0)
    assert Ranks().all(True)
    assert not Ranks().all(False)


def test_failure_elsewhere_fails_here(monkeypatch):
    monkeypatch.setattr(Ranks, "all", lambda self, value: False)
    with (
        pytest.raises(ResourceError, match="the extraction failed in another process"),
        Ranks(0, 2).together("the extraction"),
    ):
        pass


def test_ranks_without_an_address_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ResourceError, match="WORLD_SIZE is 2, but the processes cannot reach"):
        join()
