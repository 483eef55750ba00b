"""Findings as data: an entry of a YAML file is all that a new finding takes."""

import pytest
from jinja2 import UndefinedError

from repsim.core.errors import InputError
from repsim.stats.statements import read_entries, statements

FILE = """
- name: large
  claim: Most values are large.
  each: groups
  let:
    big: it.values | select('gt', limit) | list
    limit: "2"
  open:
    not it.values: Nothing was measured.
  verdict:
    supported: big | length > it.values | length / 2
    refuted: "true"
  sentence: >-
    {{ big | length }} of {{ it.values | length }} are over {{ limit }}
    ({{ (big | length / it.values | length) | percent }}).
- name: quiet
  when: groups | length > 10
  sentence: Many groups.
"""


class Group:
    def __init__(self, *values):
        self.values = values


@pytest.fixture
def entries(tmp_path):
    (tmp_path / "findings.yaml").write_text(FILE)
    return read_entries(tmp_path / "findings.yaml")


def test_an_entry_states_its_numbers_and_the_verdict_that_holds(entries):
    made = statements(entries, {"groups": [Group(1, 3, 4), Group(1), Group()]})
    assert [(s.verdict, s.text) for s in made] == [
        ("supported", "2 of 3 are over 2 (67 %)."),
        ("refuted", "0 of 1 are over 2 (0 %)."),
        ("open", "Nothing was measured."),
    ]
    assert made[0].claim == "Most values are large."


def test_a_name_that_is_not_offered_is_an_error(entries):
    with pytest.raises(UndefinedError, match="groups"):
        statements(entries, {})


def test_data_that_lack_what_an_entry_is_about_leave_it_out(entries):
    assert statements(entries, {}, skip=UndefinedError) == []


def test_an_unknown_key_is_named(tmp_path):
    (tmp_path / "findings.yaml").write_text("- {name: x, sentance: y}")
    with pytest.raises(InputError, match="unknown key 'sentance'"):
        read_entries(tmp_path / "findings.yaml")
