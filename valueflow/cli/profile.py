"""`valueflow profile`: what persons or groups value, from their texts, and how they differ."""

from argparse import Namespace
from collections import Counter
from collections.abc import Sequence
from typing import cast

import numpy as np
from pydantic import BaseModel

from valueflow import api
from valueflow.cli import output
from valueflow.cli.backend import backend, dry_run, scores_of, settings, sheet
from valueflow.cli.outcome import Outcome
from valueflow.cli.texts import Texts, read_units
from valueflow.cli.trusted import Trusted
from valueflow.client import AsyncClient, LocalClient, ProfileSettings
from valueflow.errors import InputError
from valueflow.profiles.requested import MAX_COMPARED
from valueflow.records import ValueId


async def profile(args: Namespace) -> None:
    """Write the mean intensity of values over the texts of each unit, or how the units differ."""
    given, outcome = read_units(args.texts, args.column, args.unit, args.thread), Outcome()
    _check(args, given)
    trusted = Trusted(args.trusted, given.texts, args.value) if args.trusted else None
    if trusted:
        args.value = trusted.values
    async with backend(args) as client:
        if args.dry_run:
            dry_run(args, client, given.texts)
            return
        if trusted:
            await corrected_profile(args, client, given.texts, trusted)
            return
        answer = await client.profile(given.texts, args.value or ["all"], **_settings(args, given))
    with sheet(args, output.divergences if args.compare else output.profiles) as out:
        out.header = answer.model_dump(exclude={"divergence" if args.compare else "profile"})
        outcome.begin(answer)
        rows: Sequence[BaseModel] = answer.divergence if args.compare else answer.profile
        for row in rows:
            out.add(row.model_dump())
    sizes = Counter(given.units or [""] * len(given.texts))
    for profiled in answer.profile:
        num_scored = profiled.num_texts + profiled.num_left_out
        for number in range(sizes[profiled.unit]):
            outcome.add(f"{profiled.unit} {profiled.value}".strip(), number < num_scored, reason=profiled.error)
    outcome.report()


def _check(args: Namespace, given: Texts) -> None:
    """Refuse options that exclude each other, and more than one request can hold."""
    if args.trusted:
        for option in ("min_relevance", "unit", "thread", "min_texts"):
            if getattr(args, option) not in (None, ""):
                name = f"--{option.replace('_', '-')}"
                raise InputError(f"{name} excludes --trusted: a profile that is corrected has all texts of one; leave one out")
    units = list(dict.fromkeys(given.units or []))
    if args.compare and not 2 <= len(units) <= MAX_COMPARED:
        found = f"column {args.unit!r} of {args.texts} has {len(units)}" if args.unit else "--unit names no column of them"
        raise InputError(
            f"--compare lists the differences of every two of 2 to {MAX_COMPARED} units, and {found}; "
            "python -m jobs.build_profile compares more"
        )
    if args.unit and len(given.texts) > api.MAX_TEXTS:
        raise InputError(
            f"{args.texts} has {len(given.texts):,} texts of {len(units):,} units, and one request takes {api.MAX_TEXTS:,}; "
            "python -m jobs.build_profile has no limit"
        )


def _settings(args: Namespace, given: Texts) -> ProfileSettings:
    fields = {"min_relevance": args.min_relevance, "min_texts": args.min_texts, "units": given.units, "threads": given.threads}
    return cast(ProfileSettings, settings(args) | {name: field for name, field in fields.items() if field is not None})


async def corrected_profile(args: Namespace, client: AsyncClient | LocalClient, texts: list[str], trusted: Trusted) -> None:
    """Write the mean intensity of values over texts, corrected by trusted scores of some of them."""
    outcome, judge_VT = Outcome(), {value: np.full(len(texts), np.nan) for value in trusted.values}
    with sheet(args, output.profiles) as out:
        async for line in scores_of(args, client, texts, out, outcome):
            if line.intensity is not None:
                judge_VT[ValueId(line.value)][line.index] = line.intensity
        for value, judge_T in judge_VT.items():
            out.add(trusted.row(value, judge_T))
    outcome.report()
