"""What people type into a search box, as the full-text index understands it.

Words are looked for whole, in any order, all of them: ``tide pool``. ``tide*`` is every word that begins so, ``"low
water"`` those words in a row. Nothing else has a meaning: what would be an operator is a word like any other.

An image is found if all is in its own texts, or all in the title of an album that it is in. What is found by relevance
comes in this order, and within each the newest first:

1. the words in a row in the prompt; a single word exactly so
2. all of them in prompt, alternative text and description
3. all of them, but not without the negative prompt
4. all of them in the title of an album

(Not by bm25(): its value for a row depends on every other row, so the end of a page would be nowhere once one more has
come; and it must look at each row that is found, of which there can be a hundred thousand.)
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

_TERM = re.compile(r'"(?P<phrase>[^"]*)(?:"|$)(?P<open>\*?)|(?P<word>[^\s"]+)')
_SAID = "{prompt alt_text description}"


@dataclass(frozen=True, slots=True)
class Expressions:
    """Full-text expressions, each of which finds what the one before does, and more; but ``titles`` is of albums."""

    in_a_row: str
    said: str
    words: str
    titles: str


@dataclass(frozen=True, slots=True)
class _Term:
    text: str
    prefix: bool


def expressions(q: str) -> Expressions | None:
    """Read what was typed; None where there is nothing in it to look for.

    >>> expressions('tide "low wat"*').words
    '"tide" "low wat" *'
    >>> expressions('NEAR(a OR "b').words
    '"NEAR(a" "OR" "b"'
    >>> expressions(' "" * 🏊 ') is None
    True
    """
    terms = _terms(q)
    if not terms:
        return None
    words = " ".join(_quoted(term) for term in terms)
    if len(terms) == 1:
        row = _quoted(_Term(terms[0].text, prefix=False))
    else:
        row = " + ".join([*(_quoted(_Term(term.text, prefix=False)) for term in terms[:-1]), _quoted(terms[-1])])
    in_a_row, said = f"{{prompt}} : ({row})", f"{_SAID} : ({words})"
    return Expressions(in_a_row, said, words, f"{{title}} : ({words})")


def has_prefix(expression: str) -> bool:
    """Tell whether an expression looks for beginnings of words."""
    return '" *' in expression


def _terms(q: str) -> list[_Term]:
    terms: dict[_Term, None] = {}  # a word said twice is said once
    for found in _TERM.finditer(q.replace("\0", " ")):
        if (word := found["word"]) is not None:
            text, prefix = word.rstrip("*"), word.endswith("*")
        else:
            text, prefix = found["phrase"], bool(found["open"])
        if any(map(_is_looked_for, text)):
            terms[_Term(text, prefix)] = None
    return [*terms]


def _is_looked_for(character: str) -> bool:
    """Tell whether the index knows the character (source: FTS5's unicode61: letters, numbers, private use)."""
    category = unicodedata.category(character)
    return category[0] in "LN" or category == "Co"


def _quoted(term: _Term) -> str:
    return f'"{term.text}"' + (" *" if term.prefix else "")
