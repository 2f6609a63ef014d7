"""`valueflow profile-model`: a model's own values, or those of several side by side; the job jobs.profile_model."""

import importlib
import json
import os
import re
from argparse import Namespace
from typing import Any

from valueflow.cli.backend import ROOT_ENV, root_of
from valueflow.config import load, shown
from valueflow.errors import InputError

AT_URL = re.compile(r"(?P<name>.+)@(?P<url>https?://.+)")
OPENAI = "https://api.openai.com/"


def profile_model(args: Namespace) -> None:
    """Ask the models, make their profiles and print where the page is.

    Raises:
        InputError: no model is named, or a setting is wrong.
    """
    if not (args.model or args.config):
        raise InputError("name a model with --model (NAME@URL of an endpoint, or what vLLM loads), or a config with --config")
    # By name, when it is needed: jobs are above this room, and Ray takes seconds to load.
    job = importlib.import_module("jobs.profile_model")
    config = load(job.SCHEMA, args.config, overrides(args))
    from valueflow.job import run_config

    run_config("profile_model", config, job.main, f"profile-model {args.config} {shown(args.override)}".strip())


def overrides(args: Namespace) -> list[str]:
    """Return the options as overrides of the job's config; those that are written as overrides come last."""
    chosen: dict[str, Any] = {}
    if args.root or not args.config or os.environ.get(ROOT_ENV):
        chosen["root"] = root_of(args)
    if args.model:
        chosen["models"] = [model_of(words, args.key_env) for words in args.model]
    for setting, option in (("queries", args.queries), ("values", args.value)):
        if option:
            chosen[setting] = option
    if args.dry_run:
        chosen["dry_run"] = True
    return [*(f"{name}={json.dumps(setting)}" for name, setting in chosen.items()), *args.override]


def model_of(words: str, key_env: str | None) -> dict[str, str]:
    """Return the settings of a model of the command line.

    Args:
        words: NAME@URL of an OpenAI-compatible endpoint; else a hub name, folder or package that vLLM loads.
        key_env: environment variable with the key of the endpoint; None: OpenAI's for its own URL, no key for others.

    Raises:
        InputError: a URL has no name.
    """
    if at := AT_URL.fullmatch(words):
        default = "OPENAI_API_KEY" if at["url"].startswith(OPENAI) else ""
        key = default if key_env is None else key_env
        return {"kind": "openai", "name": at["name"], "model": at["name"], "url": at["url"], "key_env": key}
    if re.match("https?://", words):
        raise InputError(f"--model {words} has no name of a model; write NAME@{words}")
    return {"kind": "vllm", "name": words.rstrip("/").rpartition("/")[2], "model": words}
