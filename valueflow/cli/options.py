"""The parser of the command line. It imports nothing heavy, so that `--help` is fast."""

import argparse
from typing import Any, NoReturn

from valueflow import __version__, defaults
from valueflow.console import one_line

ROOT = "runs/demo"
FORMATS = ("table", "csv", "json", "jsonl")
# They ship with the repository.
SAMPLE, UNITS = "valueflow/samples/responses.csv --column response", "valueflow/samples/units.csv"
TEXTS = "a text; a file (csv, tsv, jsonl, parquet: see --column; txt: one text per line); or - for the lines of standard input"


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {one_line(message)} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = _Parser(
        prog="valueflow",
        description="Measure human values expressed in text: intensities from -10 to 10.",
        **_examples('score "I help my neighbours whenever I can." --value svt:benevolence', "values svt", "vidb list"),
    )
    top.add_argument("--version", action="version", version=f"valueflow {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    scoring, backend, out = _scoring(), _backend(), _out()

    score = commands.add_parser(
        "score",
        parents=[scoring, backend, out],
        help="intensity of values in texts",
        **_examples(
            'score "I help my neighbours whenever I can." --value svt:benevolence',
            f"score {SAMPLE} --value svt --value duty:fidelity --dry-run",
            f"score {SAMPLE} --value svt --m 2 --output scores.csv",
        ),
    )
    _texts(score)
    compare = commands.add_parser(
        "compare",
        parents=[scoring, backend, out],
        help="probability that one text expresses a value more than another",
        **_examples('compare "I lied to her." "I told her the truth." --value duty:fidelity'),
    )
    compare.add_argument("first", help="a text")
    compare.add_argument("second", help="another text")
    profile = commands.add_parser(
        "profile",
        parents=[scoring, backend, out],
        help="values of persons or groups, from their texts",
        **_examples(
            f"profile {SAMPLE} --value svt",
            f"profile {UNITS} --unit unit --value svt --min-texts 5",
            f"profile {UNITS} --unit unit --value svt --compare --output differences.csv",
        ),
    )
    _texts(profile)
    profile.add_argument(
        "--unit", default="", metavar="NAME", help="column of a file that says whose text it is: a profile for each"
    )
    profile.add_argument(
        "--thread", default="", metavar="NAME", help="column of what texts of a unit belong to and depend on each other by"
    )
    profile.add_argument(
        "--min-texts",
        type=int,
        metavar="N",
        help=f"a value that fewer texts of a unit concern is missing (default {defaults.MIN_TEXTS}; 5 where it is published)",
    )
    profile.add_argument(
        "--compare", action="store_true", help="write how every two units differ on each value, in place of their profiles"
    )
    profile.add_argument(
        "--trusted",
        metavar="FILE",
        help="scores of a random subset of the texts by people or a better judge, which correct the judge's mean: a csv, tsv, "
        "jsonl or parquet with the columns value, text or text_id, and rating or intensity",
    )
    profile.add_argument(
        "--min-relevance",
        type=float,
        metavar="R",
        help="texts whose relevance for a value is lower do not count in its mean, where the judge says relevance (default "
        f"{defaults.MIN_RELEVANCE})",
    )
    _profile_model(commands)
    extract = commands.add_parser(
        "extract",
        parents=[backend, out],
        help="values that a text may express",
        description="Needs a server that was started with labelled texts (setting `extraction`); without one use jobs.extract.",
        **_examples('extract "I gave my seat to an old man." --theory svt --top 2 --server http://127.0.0.1:8000'),
    )
    _texts(extract)
    extract.add_argument("--theory", action="append", metavar="NAME", help="only this theory; repeatable")
    extract.add_argument("--top", type=int, default=3, metavar="N", help="nodes per theory (default 3)")
    values = commands.add_parser(
        "values",
        parents=[backend, out],
        help="values and their definitions",
        **_examples("values", "values mft", "values svt:benevolence"),
    )
    values.add_argument("name", nargs="?", help="a theory (svt); or a value (svt:benevolence), to show its paths and examples")
    steer = commands.add_parser(
        "steer-prompt",
        help="the texts that steer a model towards or away from a value",
        description="Level 2 puts the value first at a cost, 1 leans towards it, -1 doubts it, -2 opposes it openly; 0 is a "
        "neutral persona.",
        **_examples(
            "steer-prompt fairness 2", "steer-prompt svt:benevolence -1 --variant 2", "steer-prompt conformity -2 --json"
        ),
    )
    steer.add_argument("value", metavar="VALUE", help="a value, in any spelling (svt:benevolence, conformity)")
    steer.add_argument("level", metavar="LEVEL", help="-2, -1, 0, 1 or 2")
    steer.add_argument(
        "--variant", type=int, metavar="N", help="only this text: 0 or 1 with the value's name, 2 without it (default: all)"
    )
    steer.add_argument("--json", action="store_true", help="JSON with the hash of all wordings")
    vidb = commands.add_parser(
        "vidb",
        help="versions of the Value Intensity DataBase",
        **_examples("vidb list", "vidb show --format json", "vidb pin current"),
    )
    actions = vidb.add_subparsers(dest="action", required=True, metavar="list|show|pin|unpin|rollback")
    finished = "finished versions, oldest first"
    actions.add_parser("list", parents=[_root(), out], help=finished, **_examples("vidb list", "vidb list --root runs/demo"))
    show = actions.add_parser(
        "show",
        parents=[_root(), _server(), out],
        help="contents and provenance of a version",
        **_examples("vidb show", "vidb show --output version.json"),
    )
    show.add_argument("version", nargs="?", metavar="VERSION", help="default: the published version")
    for name, text in (("pin", "keep a version, and what it was made from, from garbage collection"), ("unpin", "let it go")):
        action = actions.add_parser(name, parents=[_root()], help=text, **_examples(f"vidb {name} current"))
        action.add_argument("version", metavar="VERSION", help="a finished version; current: the published one")
    back = actions.add_parser(
        "rollback",
        parents=[_root()],
        help="publish an earlier version again, after all its bytes were read",
        **_examples("vidb rollback"),
    )
    back.add_argument("version", nargs="?", default="", metavar="VERSION", help="default: the one published before")
    submit = commands.add_parser(
        "submit",
        help="run a job on a Ray cluster",
        description="Uploads ValueFlow and the config (no data), follows the log and ends with the job's exit code. Where the "
        "same job runs already, it attaches to that.",
        **_examples("submit build_vidb conf/build_vidb/tiny.yaml root=s3://my-bucket/demo --retry 3"),
    )
    submit.add_argument("job", metavar="JOB", help="a module of jobs, such as build_vidb")
    submit.add_argument(
        "config", metavar="CONFIG.yaml", help="its config; root must be a URL or a path that every node can read"
    )
    submit.add_argument("override", nargs="*", metavar="key=value", help="overrides of the config")
    submit.add_argument("--address", metavar="URL", help="of the cluster's dashboard (default: RAY_API_SERVER_ADDRESS)")
    submit.add_argument(
        "--retry", type=int, default=0, metavar="N", help="times that a job is run again that crashed, was killed or stalled"
    )
    submit.add_argument("--runtime-env", default="", metavar="FILE.yaml", help="Ray's runtime environment, such as env_vars")
    submit.add_argument("--no-wait", action="store_true", help="do not follow the job; the same command attaches to it later")
    return top


def _profile_model(commands: Any) -> None:
    own = commands.add_parser(
        "profile-model",
        parents=[_root()],
        help="a model's own values, or those of several models side by side",
        description="Puts queries to the models without any persona, scores the replies on the published VIDB of the root in "
        "mode fast, and writes a page, CSV and JSON. Runs jobs.profile_model here; valueflow submit runs it on a cluster. What "
        "was asked once is not asked again.",
        **_examples(
            "profile-model --model gpt-4.1-mini@https://api.openai.com/v1 --dry-run",
            "profile-model --model qwen3@http://127.0.0.1:8001/v1 --model llama@http://127.0.0.1:8002/v1 --value svt",
            "profile-model --config conf/profile_model/tiny-models.yaml",
        ),
    )
    own.add_argument(
        "--model",
        action="append",
        metavar="NAME@URL|MODEL",
        help="a model behind an OpenAI-compatible URL, or a hub name or folder that vLLM loads here; repeatable",
    )
    own.add_argument(
        "--key-env",
        metavar="NAME",
        help="environment variable with the API key of the URLs (default: OPENAI_API_KEY for api.openai.com, no key elsewhere)",
    )
    own.add_argument(
        "--queries", action="append", metavar="FILE", help="file with a column query; repeatable (default: the 20 that ship)"
    )
    own.add_argument("--value", action="append", metavar="NAME", help="a value or a theory; repeatable (default: all)")
    own.add_argument("--config", default="", metavar="FILE.yaml", help="settings of jobs.profile_model, such as models")
    own.add_argument("--dry-run", action="store_true", help="print calls, tokens and money, call nothing")
    own.add_argument("override", nargs="*", metavar="key=value", help="overrides of the config, such as replicates=3")


def _examples(*lines: str) -> Any:
    """The settings of a parser whose help ends with these commands, each on a line of its own."""
    text = "\n".join(f"  valueflow {line}" for line in lines)
    return {"epilog": f"examples:\n{text}", "formatter_class": argparse.RawDescriptionHelpFormatter}


def _texts(command: _Parser) -> None:
    command.add_argument("texts", metavar="TEXT|FILE|-", help=TEXTS)
    command.add_argument(
        "--column", default="text", metavar="NAME", help="column of a file that contains the texts (default text)"
    )


def _scoring() -> _Parser:
    options = _Parser(add_help=False)
    group = options.add_argument_group("scoring")
    group.add_argument(
        "--value",
        action="append",
        metavar="NAME",
        help="a value (svt:benevolence) or a theory (mft); repeatable (default: all)",
    )
    group.add_argument(
        "--mode", help="ranked: a judge ranks the text among anchors (default); fast: regression on an embedding"
    )
    group.add_argument("--k", type=int, metavar="N", help=f"texts in a window, the scored one included (default {defaults.K})")
    group.add_argument("--m", type=int, metavar="N", help=f"windows per text and value (default {defaults.M})")
    group.add_argument(
        "--sampling",
        help=f"how the anchors of a window are chosen: adaptive, bucket, random or fixed (default {defaults.SAMPLING})",
    )
    group.add_argument(
        "--seed",
        type=int,
        metavar="N",
        help=f"the same seed, VIDB version and judge give the same score (default {defaults.SEED})",
    )
    group.add_argument("--dry-run", action="store_true", help="without a server: count the judge's calls and make none")
    return options


def _server() -> _Parser:
    options = _Parser(add_help=False)
    options.add_argument(
        "--server",
        metavar="URL",
        help="address of a ValueFlow server (default: VALUEFLOW_SERVER); its API key is read from VALUEFLOW_API_KEY",
    )
    return options


def _root() -> _Parser:
    options = _Parser(add_help=False)
    options.add_argument(
        "--root", metavar="FOLDER", help=f"without a server: folder or URL of the tables (default: VALUEFLOW_ROOT, else {ROOT})"
    )
    return options


def _backend() -> _Parser:
    options = _Parser(add_help=False, parents=[_server(), _root()])
    options.add_argument("--vidb", metavar="VERSION", help="without a server: VIDB version (default: the published one)")
    options.add_argument(
        "--judge",
        metavar="FILE.yaml",
        help="without a server: a config with a judge, such as conf/evaluate/tiny.yaml "
        "(default: the judge of the VIDB, if it is the packaged encoder)",
    )
    return options


def _out() -> _Parser:
    options = _Parser(add_help=False)
    options.add_argument("--format", choices=FORMATS, help="default: from the extension of --output, else table")
    options.add_argument("--output", metavar="FILE", help="write to this file; csv and jsonl rows as they arrive")
    return options
