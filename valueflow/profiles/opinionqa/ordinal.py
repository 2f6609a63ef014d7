"""Which option sets are ordered: by the degree words of known scales; any other set is nominal."""

from collections.abc import Sequence

from valueflow.errors import InputError

# Options of a scale in its order, each by words one of which it begins with; an option set is ordered if all are of one scale.
SCALES: tuple[tuple[tuple[str, ...], ...], ...] = (
    (
        ("a great deal", "a lot", "very much"),
        ("a fair amount", "some"),
        ("not too much", "only a little", "a little", "very little", "not much"),
        ("none at all", "no confidence", "nothing", "none", "not at all"),
    ),
    (("a lot of confidence",), ("some confidence",), ("not too much confidence",), ("no confidence",)),
    (
        ("very", "extremely", "essential"),
        ("somewhat", "fairly", "important but", "important"),
        ("not too", "not very"),
        ("not at all", "not"),
    ),
    (
        ("strongly favor", "strongly agree", "strongly approve", "strongly support"),
        ("favor", "somewhat agree", "agree", "somewhat favor", "somewhat approve", "somewhat support"),
        ("neither", "neutral"),
        ("somewhat disagree", "disagree", "somewhat oppose", "somewhat disapprove", "oppose"),
        ("strongly oppose", "strongly disagree", "strongly disapprove"),
    ),
    (
        ("all or most of the time", "always"),
        ("most of the time", "often"),
        ("some of the time", "sometimes"),
        ("only a little of the time", "hardly ever", "rarely"),
        ("none of the time", "never"),
    ),
    (("all or most", "almost all", "all"), ("most", "many"), ("some",), ("only a few", "few"), ("none", "hardly any")),
    (
        ("much better", "a lot better"),
        ("somewhat better", "a little better", "better"),
        ("about the same", "no difference", "stay about"),
        ("somewhat worse", "a little worse", "worse"),
        ("much worse", "a lot worse"),
    ),
    (("major", "a major"), ("minor", "a minor"), ("not a", "no ", "not")),
    (("excellent",), ("good",), ("only fair", "fair"), ("poor",)),
    (
        ("a top priority",),
        ("important but lower", "an important but not"),
        ("not too important", "a lower priority"),
        ("should not",),
    ),
    (("very likely",), ("somewhat likely",), ("not very likely", "not too likely"), ("not at all likely",)),
    (
        ("increase", "increased", "more", "too much", "too many"),
        ("about the right", "kept about", "about the same", "stay"),
        ("decrease", "decreased", "less", "fewer", "too little", "too few"),
    ),
    (
        ("definitely would", "definitely will", "yes, definitely", "definitely"),
        ("probably would", "probably will", "yes, probably", "probably"),
        ("probably not", "probably would not", "no, probably"),
        ("definitely not", "definitely would not", "no, definitely"),
    ),
)


def ranks(options: Sequence[str]) -> list[int] | None:
    """Return the rank of each option on the first scale that orders all of them, from 0 without gaps; None: nominal."""
    for scale in SCALES:
        found = [_rank(option, scale) for option in options]
        known = [rank for rank in found if rank is not None]
        if len(known) == len(options) and len(set(known)) == len(options) and len(options) > 2:
            order = sorted(known)
            return [order.index(rank) for rank in known]
    return None


def require_ranks(options: Sequence[str]) -> list[int]:
    """Return the ranks of ordered options.

    Raises:
        InputError: no known scale orders them.
    """
    found = ranks(options)
    if found is None:
        raise InputError(f"no known scale orders the options {list(options)}; they are nominal, use the total variation")
    return found


def _rank(option: str, scale: tuple[tuple[str, ...], ...]) -> int | None:
    """The level whose longest beginning fits the option."""
    fits = [
        (len(words), level) for level, of_level in enumerate(scale) for words in of_level if option.lower().startswith(words)
    ]
    return max(fits)[1] if fits else None
