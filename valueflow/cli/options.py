"""The options of the command line."""

import argparse
from typing import NoReturn

from valueflow import __version__

ROOT = "runs/demo"


FORMATS = ("table", "csv", "json", "jsonl")


TEXTS = "a text; or a file (csv, tsv, jsonl, parquet: see --column; txt: a text a line); or - for the lines of standard input"


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    top = _Parser(prog="valueflow", description="Human values expressed in text, as intensities from -10 to 10.")
    top.add_argument("--version", action="version", version=f"valueflow {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    where, how, out = _where(), _how(), _out()

    score = commands.add_parser("score", parents=[how, where, out], help="intensity of values in texts")
    _texts(score)
    compare = commands.add_parser("compare", parents=[how, where, out], help="which of two texts expresses a value more")
    compare.add_argument("first", help="a text")
    compare.add_argument("second", help="another text")
    profile = commands.add_parser("profile", parents=[how, where, out], help="values of a person or group, by their texts")
    _texts(profile)
    extract = commands.add_parser("extract", parents=[where, out], help="values that a text may express")
    _texts(extract)
    extract.add_argument("--theory", action="append", metavar="NAME", help="only this theory; may be repeated")
    extract.add_argument("--top", type=int, default=3, metavar="N", help="nodes of each theory (default 3)")
    values = commands.add_parser("values", parents=[where, out], help="values and what they mean")
    values.add_argument("name", nargs="?", help="a theory, as svt; or a value, as svt:benevolence, for its place and examples")
    vidb = commands.add_parser("vidb", help="versions of the Value Intensity DataBase")
    actions = vidb.add_subparsers(dest="action", required=True, metavar="list|show")
    actions.add_parser("list", parents=[_root(), out], help="finished versions, oldest first")
    show = actions.add_parser("show", parents=[_root(), _server(), out], help="what a version holds and was made from")
    show.add_argument("version", nargs="?", metavar="VERSION", help="default: the published one")
    return top


def _texts(command: _Parser) -> None:
    command.add_argument("texts", metavar="TEXT|FILE|-", help=TEXTS)
    command.add_argument(
        "--column", default="text", metavar="NAME", help="column of a file that holds the texts (default text)"
    )


def _how() -> _Parser:
    options = _Parser(add_help=False)
    how = options.add_argument_group("how texts are scored")
    how.add_argument(
        "--value",
        action="append",
        metavar="NAME",
        help="a value (svt:benevolence) or theory (mft); may be repeated; default: all",
    )
    how.add_argument("--mode", help="ranked: a judge orders the text among anchors (default); fast: regression on an embedding")
    how.add_argument("--k", type=int, metavar="N", help="texts in a window, the scored one included (default 6)")
    how.add_argument("--m", type=int, metavar="N", help="windows for each text and value (default 3)")
    how.add_argument("--sampling", help="how anchors are chosen: adaptive (default), bucket, random, fixed")
    how.add_argument("--seed", type=int, metavar="N", help="same seed, same version, same judge: same score (default 0)")
    return options


def _server() -> _Parser:
    options = _Parser(add_help=False)
    options.add_argument(
        "--server", metavar="URL", help="a ValueFlow server (default: VALUEFLOW_SERVER); its key is read from VALUEFLOW_API_KEY"
    )
    return options


def _root() -> _Parser:
    options = _Parser(add_help=False)
    options.add_argument(
        "--root", metavar="FOLDER", help=f"without a server: where the tables are (default: VALUEFLOW_ROOT, else {ROOT})"
    )
    return options


def _where() -> _Parser:
    options = _Parser(add_help=False, parents=[_server(), _root()])
    options.add_argument("--vidb", metavar="VERSION", help="without a server: the VIDB version (default: the published one)")
    options.add_argument(
        "--judge",
        metavar="FILE.yaml",
        help="without a server: a config with a judge, as conf/evaluate/tiny.yaml (default: the VIDB's)",
    )
    return options


def _out() -> _Parser:
    options = _Parser(add_help=False)
    options.add_argument("--format", choices=FORMATS, help="default: by the ending of --output, else table")
    options.add_argument("--output", metavar="FILE", help="write there; rows of csv and jsonl as they come")
    return options
