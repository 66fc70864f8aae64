"""Says in words what an interest is about: the words of the titles that it found and other interests did not.

Knows titles alone, nothing of vectors.
"""

import re
from collections import Counter
from collections.abc import Sequence

SHORTEST = 4
"""Letters of the shortest word that says something."""
_WORD = re.compile(rf"[^\W\d_]{{{SHORTEST},}}")


def typical_words(titles: Sequence[Sequence[str]], most: int = 3) -> list[list[str]]:
    """The words that are typical of each interest, the most typical first.

    A word counts if at least two titles of the interest have it, and if a larger share of them has it than of the
    titles of the other interests.

    Args:
        titles: of what each interest found.
        most: words of an interest.
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
