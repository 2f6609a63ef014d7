"""The dataset card of a VIDB version: README.md with YAML front matter."""

import html

import yaml

from valueflow.records import SCHEMAS, ValueId, clean
from valueflow.store import Manifest, VidbDetails

# License ids of the Hugging Face Hub; any other license is written as "other" with its name.
HUB_LICENSES = {"mit", "apache-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"}
SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M")]
COLUMNS = {
    "theory": "theory of the value",
    "value": "value: a node of the theory",
    "text_id": "hash of the text",
    "text": "the ranked text",
    "theta": "log-worth on the judge's scale, in nats; its zero is arbitrary",
    "standard_error": "standard error of theta, in nats",
    "num_windows": "number of windows with the text",
    "wins": "number of texts ranked below it, over all windows",
    "component": "connected component of the comparison graph; only texts of the same component are on one scale",
    "intensity": "where people would put the text, from -10 (opposes) to +10 (supports), given where the judge puts it",
    "low": "lower end of the 95 % interval of intensity: error of content, sampling, zero and unit together",
    "high": "upper end of the 95 % interval of intensity",
    "judge_intensity": "where the judge puts the text: its calibrated theta",
    "judge_low": "lower end of the 95 % interval of judge_intensity: the randomness of the judge's answers alone",
    "judge_high": "upper end of the 95 % interval of judge_intensity",
    "flags": "number of plausibility checks that flagged the intensity; null if none was run",
    "human_mean": "mean human rating, if any",
    "final_rating": "the intensity to use: the judges' intensity, merged with the human mean if there is one",
    "agreed": "whether the text is in the filtered release: judges and people agree, or no check flagged it",
    "direction": "label from the source: 1 supports, -1 opposes, 0 neutral, null unknown",
    "source": "source corpus of the text",
    "license": "license of the row",
}


def dataset_card(
    version: str, manifest: Manifest, rows_by_license: dict[str, int], languages: list[str], values: list[ValueId]
) -> str:
    """Return the card of a VIDB version."""
    theories = list(dict.fromkeys(value.theory for value in values))
    front = {
        "pretty_name": f"VIDB {version}",
        **license_field(list(rows_by_license)),
        "language": sorted({language for language in languages if language}),
        "size_categories": [next((name for limit, name in SIZES if manifest.num_rows < limit), "10M<n<100M")],
        "task_categories": ["text-classification"],
        "tags": ["human-values", "value-intensity", "plackett-luce", "valueflow"],
        "configs": [{"config_name": t, "data_files": f"theory={t}/**/*.parquet"} for t in theories],
    }
    sections = [
        f"# VIDB {version}",
        _description(manifest, values),
        "## Columns\n\n"
        + markdown_table(["column", "type", "meaning"], [[f"`{c}`", _type(c), COLUMNS[c]] for c in SCHEMAS["vidb"].names]),
        "## How it was built\n\n" + _provenance(manifest),
        "## Licenses\n\nEvery row keeps the license of its source (column `license`); this collection does not change it. "
        "Check the licenses of the rows you use.\n\n"
        + markdown_table(["license", "rows"], [[name, f"{count:,}"] for name, count in rows_by_license.items()]),
        LIMITS,
        _usage(version, values[0]),
    ]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n" + "\n\n".join(sections) + "\n"


LIMITS = """## Intended use and limits

Intended for measuring and steering the human values that texts express: as anchors that new texts are compared with, and as
data for research on values in language models. Not intended for judging people or for making decisions about them.

- Intensities are **not comparable across values**: each value has its own zero and its own unit.
- Intensities say where people would put a text, given where the judge that ranked the texts puts it. The section on how the
  version was built says what the error of the judge was estimated from, and whether people's ratings are behind it.
  `judge_intensity` and its interval are the judge's own, and cover the random variation in its answers alone.
- Texts may be offensive, false or distressing: the lower end of every scale consists of texts that reject a value.
- Texts come from the corpora in column `source`, with their selection, language and period; they are not a sample of any
  population."""


def license_field(names: list[str]) -> dict[str, str]:
    """Return the license fields of a card's front matter: the only license, or `other`."""
    if len(names) != 1:
        return {"license": "other", "license_name": "per-row"}
    hub_id = names[0].lower()
    return {"license": hub_id} if hub_id in HUB_LICENSES else {"license": "other", "license_name": names[0]}


def _description(manifest: Manifest, values: list[ValueId]) -> str:
    origin = (
        "A judge ranked the texts of each value, a few at a time. A Plackett-Luce model fitted to its orders gives a log-worth "
        "per text (`theta`) with a standard error, and a calibration maps it to `intensity` with a 95 % interval (`low`, "
        "`high`)."
        if manifest.details(VidbDetails).resolved
        else "The intensities were imported from files. The judge is not recorded, and there are no intervals."
    )
    return (
        f"A value intensity database: {manifest.num_rows:,} rows, each a text with a number from -10 to +10 that says how "
        f"strongly it supports (+) or opposes (-) one of {len(values)} human values. {origin}\n\nValues: "
        + ", ".join(f"`{value}`" for value in values)
        + "."
    )


def _provenance(manifest: Manifest) -> str:
    """Table of judge, windows, calibration and lineage; for an imported version, of calibration and files."""
    details = manifest.details(VidbDetails)
    modes = ", ".join(sorted({calibration["mode"] for calibration in details.calibrations.values()}))
    rows = [["calibration", modes]]
    if details.resolved:
        judge, windows = details.resolved["judge"], details.resolved["windows"]
        model = f", model {judge['model']}" if "model" in judge else ""
        rows = [
            ["judge", f"{judge['name']} ({judge['kind']}{model})"],
            ["judge fingerprint", details.judge_fingerprint],
            ["texts per window (k)", str(windows["k"])],
            ["windows per text (m)", str(windows["m"])],
            ["arrangement of windows", windows["mode"]],
            *rows,
            *([f"build of {stage}", build_id] for stage, build_id in details.builds.items()),
        ]
    if details.pending:
        rows += [["published early", f"{details.pending} more values of the build were still being judged"]]
    if details.truncated:
        rows += [["texts that the judge read in part", f"{details.truncated:,} (longer than `max_chars` of its settings)"]]
    sources = dict.fromkeys(error.get("source", "") for error in details.content_errors.values())
    rows += [["intervals", source] for source in sources]
    rows += [
        ["inputs", ", ".join(source.url for source in manifest.inputs)],
        ["created", manifest.created],
        ["ValueFlow", f"{manifest.code_version}, commit {manifest.git_commit}"],
    ]
    return markdown_table(["setting", "value"], rows)


def _usage(version: str, value: ValueId) -> str:
    return f"""## How to load

The columns `theory` and `value` are both in the files and in the folder names, hence `partitioning=None`.

```python
import pandas as pd

rows = pd.read_parquet("theory={value.theory}/value={value.node}", partitioning=None)
```

```python
import pyarrow.parquet as pq

table = pq.read_table("theory={value.theory}", partitioning=None)
```

With ValueFlow, where `ROOT` is the folder that contains `vidb/{version}`:

```python
from valueflow import vidb

anchors = vidb.load("ROOT", "{version}").anchors("{value}")
```"""


def _type(column: str) -> str:
    return str(SCHEMAS["vidb"].field(column).type)


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; text in cells is escaped so that it can neither end a cell nor become HTML."""
    cells = [[html.escape(clean(cell), quote=False).replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
