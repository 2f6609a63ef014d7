"""Write the window plan of every value, one task a value."""

import ray

from valueflow import store
from valueflow.distributed.cluster import completed_results
from valueflow.ranking.windows import WindowsConfig, plan_table
from valueflow.store import Build, File, WindowsDetails

ROWS_PER_PART = 50_000


def plan(candidates: Build, config: WindowsConfig, out: Build) -> store.Manifest:
    """Return the manifest of the plan; every window has its id before any judge is called.

    Raises:
        InputError: a value has fewer texts than k.
    """
    finished = store.finished_manifest(out, "plan", "windows")
    if finished:
        return finished
    pools = store.require_manifest(candidates).files
    task = ray.remote(plan_value).options(num_cpus=1)
    tasks = [task.remote(candidates, file.path, config, out) for file in pools]
    files = [file for written in completed_results("plan", tasks) for file in written]
    details = WindowsDetails(settings=config.public(), windows=sum(file.rows for file in files))
    return store.commit(out, details, [candidates], files)


def plan_value(candidates: Build, path: str, config: WindowsConfig, out: Build) -> list[File]:
    """Write the windows of one value."""
    pool = store.read_part(candidates, path, ["theory", "value", "text_id"])
    windows = plan_table(pool["theory"][0].as_py(), pool["value"][0].as_py(), pool["text_id"].to_pylist(), config)
    folder = path.rpartition("/")[0]
    starts = range(0, windows.num_rows, ROWS_PER_PART)
    return [store.write_part(out, windows.slice(s, ROWS_PER_PART), f"{s // ROWS_PER_PART:05d}", folder) for s in starts]
