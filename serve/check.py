"""Check a Serve config before it is deployed: keys, values, limits, and that its version can be read from here.

python -m serve.check infra/serve/gpu-node.yaml
"""

import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeApplicationSchema, ServeDeploySchema

from serve.app import DEPLOYMENTS, ServeConfig, builder, check_user_config, require_absolute
from valueflow import config
from valueflow.console import one_line, say
from valueflow.errors import InputError, allowed
from valueflow.store.files import read_input

IMPORT_PATH = "serve.app:builder"


def read(path: str) -> dict[str, Any]:
    """Return the content of a Serve config.

    Raises:
        InputError: the file cannot be read or is no mapping in YAML.
    """
    data = read_input(path)
    try:
        content = yaml.safe_load(data.decode("utf-8"))
    except config.UNREADABLE_YAML as error:
        raise InputError(f"{path} is not YAML in UTF-8: {error}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path} is no Serve config, a mapping with the key applications; see infra/serve/")
    return content


def parse(content: dict[str, Any], where: str) -> ServeDeploySchema:
    """Return a Serve config with valid keys and values; `where` is the file in messages.

    Raises:
        InputError: a key is unknown or a value invalid.
    """
    _known_keys(content, ServeDeploySchema, where)
    deployed = config.parse(ServeDeploySchema, content, where)
    if not deployed.applications:
        raise InputError(f"{where}: applications is empty; see infra/serve/ for one")
    return deployed


def check(content: dict[str, Any], where: str) -> None:
    """Check a Serve config and its applications.

    Raises:
        InputError: a key is unknown, a value invalid, a limit does not fit another, or the version cannot be read.
    """
    deployed = parse(content, where)
    for application in deployed.applications:
        try:
            _check_application(application, deployed.http_options.request_timeout_s)
        except InputError as error:
            raise InputError(f"{where}: application {application.name!r}: {error}") from error


def _known_keys(values: dict[str, Any], schema: type[BaseModel], where: str) -> None:
    """Ray ignores unknown keys, for configs of newer versions."""
    names = set(schema.model_fields)
    for key, value in values.items():
        if key not in names:
            raise InputError(f"{where}: {key}: unknown key; {allowed(key, sorted(names))}")
        models = config.models_of(schema.model_fields[key].annotation)
        for index, item in enumerate(value if isinstance(value, list) else [value]):
            if models and isinstance(item, dict):
                place = f"{key}[{index}]" if isinstance(value, list) else key
                _known_keys(item, models[0], f"{where}: {place}")


def _check_application(application: ServeApplicationSchema, request_timeout: float | None) -> None:
    if application.import_path != IMPORT_PATH:
        raise InputError(f"import_path is {application.import_path!r}; that of this service is {IMPORT_PATH!r}")
    if application.route_prefix is not None and not application.route_prefix.startswith("/"):
        raise InputError(f"route_prefix is {application.route_prefix!r}; it begins with a slash")
    args = dict(application.args)
    for deployment in application.deployments:
        if deployment.name not in DEPLOYMENTS:
            raise InputError(f"deployments: {deployment.name!r}: unknown name; {allowed(deployment.name, DEPLOYMENTS)}")
        if deployment.name == "evaluator" and isinstance(deployment.user_config, dict):
            args |= check_user_config(deployment.user_config)
    served = config.parse(ServeConfig, args, "args")
    require_absolute(served.root)
    if request_timeout is not None and request_timeout <= served.http.timeout_seconds:
        raise InputError(
            f"http_options.request_timeout_s, {request_timeout:g}, must be above http.timeout_seconds, "
            f"{served.http.timeout_seconds:g}, so that the application answers first"
        )
    if served.http.keys_file and Path(served.http.keys_file).exists():  # it may be on the nodes only
        served.http.all_keys()
    builder(args)


def main() -> None:
    """Check the file of the command line: exit code 0, or one line and 2."""
    try:
        if len(sys.argv) != 2:
            raise InputError("usage: python -m serve.check FILE.yaml")
        check(read(sys.argv[1]), sys.argv[1])
        say(f"{sys.argv[1]}: valid")
    except InputError as error:
        say(f"error: {one_line(str(error))}", sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
