"""The reader of docstrings: sections, entries for several names, and descriptions that stand elsewhere."""

from dataclasses import dataclass

from pyroformer.help.docstrings import Equation, description, read


class Base:
    """What both do.

    Args:
        first: The first, default 1.
        second: The second; it
            goes on in a second line.
    """


class Other:
    """Something else.

    Args:
        third: As for `Both`.
    """


class Both(Base):
    r"""A sentence with :math:`\nu`
    in two lines.

    .. math:: a = b
        + c

    And a paragraph.

    Args:
        first, second: See `Base`; both count.
        third: See `Other`.
        fourth: See `Nobody`.

    Raises:
        SettingError: ``first`` is None.

    Reference:
        Someone, 2020, "A title:
        a subtitle".

    Example:
        task: digits
        prior: {both: {first: 2}}
    """


def test_sections():
    said = read(Both)
    assert said.summary == "A sentence with ν in two lines."
    assert said.body == (Equation("a = b + c"), "And a paragraph.")
    assert said.raises == {"SettingError": "first is None."}
    assert said.reference == 'Someone, 2020, "A title: a subtitle".'
    assert said.example == "task: digits\nprior: {both: {first: 2}}"
    assert list(said.settings) == ["first", "second", "third", "fourth"]


def test_references_are_followed_once_and_to_where_they_lead():
    assert description(Both, "first") == "The first, default 1. Here: both count."
    assert description(Both, "second") == "The second; it goes on in a second line. Here: both count."
    assert description(Both, "third") == "As for Both."  # a circle ends
    assert description(Both, "fourth") == "See Nobody."
    assert description(Both, "fifth") == ""


def test_a_base_class_is_asked_where_the_class_says_nothing():
    class Silent(Both):
        pass

    assert description(Silent, "first") == "The first, default 1. Here: both count."
    assert read(Silent).summary == ""


def test_what_dataclass_writes_is_no_docstring():
    @dataclass
    class Plain:
        a: int = 1

    assert Plain.__doc__ and read(Plain).summary == ""
