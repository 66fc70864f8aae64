"""What an interest is about, in words of titles."""

from mind.evaluation.words import typical_words


def test_words_are_those_that_one_interest_has_and_others_have_not() -> None:
    kitchen = ["Lumen Knife set, pro", "Knife block of oak", "Lumen Coffee grinder"]
    garden = ["Lumen Garden hose", "Garden hose, 20 m", "Rake"]
    assert typical_words([kitchen, garden]) == [["knife", "lumen"], ["garden", "hose"]]
    assert typical_words([kitchen, garden], most=1) == [["knife"], ["garden"]]


def test_nothing_is_said_where_titles_have_nothing_in_common() -> None:
    assert typical_words([["Rake"], [], ["Ab cd", "Ab cd", "1999 1999"]]) == [[], [], []]
    assert typical_words([]) == []
