"""The tiny configs that ship, with parts replaced."""

from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from valueflow.config import load

SHIPPED = Path(__file__).parents[1] / "conf"
SIMULATED = {"kind": "simulated", "name": "sim", "batch_size": 200}


def job_yaml(job: str, folder: Path, name: str = "tiny", **settings: object) -> Path:
    """Write a job's shipped config into a folder, its top-level keys replaced by the settings; return the path.

    An override on the command line is merged into the key it names; here a judge of another kind takes the place of the judge.
    """
    content = yaml.safe_load((SHIPPED / job / f"{name}.yaml").read_text("utf-8"))
    path = Path(folder) / f"{job}.yaml"
    path.write_text(yaml.safe_dump(content | settings), "utf-8")
    return path


def job_config(job: ModuleType, root: Path, *overrides: str, name: str = "tiny", **settings: object) -> Any:
    """Return the config of a job under a root on this machine; `overrides` are merged after `settings` have replaced keys."""
    path = job_yaml(job.__name__.rpartition(".")[2], root, name, root=str(root), **settings)
    return load(job.SCHEMA, str(path), list(overrides))
