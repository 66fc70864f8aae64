"""Describes interests by the words of the titles that an interest found and other interests did not.

This module knows only titles, and nothing of vectors.
"""

import re
from collections import Counter
from collections.abc import Sequence

SHORTEST = 4
"""Minimum number of letters of a typical word."""
_WORD = re.compile(rf"[^\W\d_]{{{SHORTEST},}}")


def typical_words(titles: Sequence[Sequence[str]], most: int = 3) -> list[list[str]]:
    """Return the words that are typical of each interest, the most typical first.

    A word counts if at least two titles of the interest have it, and if the share of these titles with the word is
    larger than the share of the titles of the other interests.

    Args:
        titles: the titles that each interest found.
        most: the maximum number of words of an interest.
    """
    having = [Counter(word for title in some for word in set(_WORD.findall(title.lower()))) for some in titles]
    everywhere, number = sum(having, Counter()), sum(map(len, titles))
    found = []
    for words, some in zip(having, titles, strict=True):
        others = max(number - len(some), 1)
        excess = {
            word: count / len(some) - (everywhere[word] - count) / others for word, count in words.items() if count > 1
        }
        kept = [word for word, more in sorted(excess.items(), key=lambda pair: (-pair[1], pair[0])) if more > 0]
        found.append(kept[:most])
    return found
