"""The dataset card (README.md with YAML front matter) that goes with a VIDB version when it is shared."""

import html

import yaml

from valueflow.records import SCHEMAS, clean
from valueflow.store import Manifest, VidbDetails

# Licences under which the Hugging Face Hub knows a data set; any other is "other" with a name.
KNOWN_LICENSES = {"mit", "apache-2.0", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0"}
SIZES = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"), (10_000_000, "1M<n<10M")]
COLUMNS = {
    "theory": "theory the value belongs to",
    "value": "value, a node of the theory",
    "text_id": "hash of the text",
    "text": "the text that was ranked",
    "theta": "log-worth on the judge's scale, nats; it has no zero of its own",
    "standard_error": "standard error of theta, nats",
    "num_windows": "windows the text was in",
    "wins": "other texts it was placed above, over all windows",
    "component": "connected component of the comparisons; only texts of the same one share a scale",
    "intensity": "calibrated intensity, -10 (opposes) to +10 (supports)",
    "low": "lower end of the 95 % interval of intensity",
    "high": "upper end of the 95 % interval of intensity",
    "flags": "times a plausibility check found the intensity odd; null where none was made",
    "human_mean": "mean rating by people, where there is one",
    "final_rating": "the intensity to use: the judges' intensity, merged with the human mean where there is one",
    "agreed": "whether the text is in the filtered release: judges and people agree, or nobody flagged it",
    "direction": "label of the source: 1 supports, -1 opposes, 0 neutral, null unknown",
    "source": "corpus the text comes from",
    "license": "licence of the row",
}


def dataset_card(
    version: str, manifest: Manifest, rows_by_license: dict[str, int], languages: list[str], values: list[str]
) -> str:
    """Return the card of a VIDB version; `values` are ids such as svt:benevolence."""
    theories = list(dict.fromkeys(value.partition(":")[0] for value in values))
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
        _what(manifest, values),
        "## Columns\n\n"
        + markdown_table(["column", "type", "meaning"], [[f"`{c}`", _type(c), COLUMNS[c]] for c in SCHEMAS["vidb"].names]),
        "## How it was made\n\n" + _made(manifest),
        "## Licences\n\nEvery row keeps the licence of the source it comes from (column `license`); the collection does not "
        "change it. Check the licences of the rows you use.\n\n"
        + markdown_table(["licence", "rows"], [[name, f"{count:,}"] for name, count in rows_by_license.items()]),
        LIMITS,
        _load(version, values[0]),
    ]
    return f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n\n" + "\n\n".join(sections) + "\n"


LIMITS = """## Intended use and limits

Meant for measuring and steering the human values that texts express: as anchors with which new texts are compared, and as data
for research on values in language models. Not meant for judging people, or for deciding anything about them.

- Intensities are **not comparable across values**: each value has its own zero and its own unit.
- Intensities are the opinion of the judge that ordered the texts. Another judge gives other numbers, and the intervals cover
  the chance in this judge's answers, not its errors of taste or culture.
- Texts may be offensive, false or distressing: the lower end of every scale consists of texts that reject a value.
- Texts come from the corpora in column `source`, with their selection, language and period; they represent no population."""


def license_field(names: list[str]) -> dict[str, str]:
    """Return the front matter's licence of a card: that of all rows, or `other`."""
    if len(names) != 1:
        return {"license": "other", "license_name": "per-row"}
    known = names[0].lower()
    return {"license": known} if known in KNOWN_LICENSES else {"license": "other", "license_name": names[0]}


def _what(manifest: Manifest, values: list[str]) -> str:
    origin = (
        "A judge put the texts of a value in order, a few at a time; a Plackett-Luce model turned the orders into a log-worth "
        "per text (`theta`) with a standard error, and a calibration turned that into `intensity` with a 95 % interval (`low`, "
        "`high`)."
        if manifest.details(VidbDetails).resolved
        else "The intensities were imported from files; how they were judged is not recorded, and they have no intervals."
    )
    return (
        f"A value intensity database: {manifest.num_rows:,} rows, each a text with a number from -10 to +10 for how strongly "
        f"it supports (+) or opposes (-) one of {len(values)} human values. {origin}\n\nValues: "
        + ", ".join(f"`{value}`" for value in values)
        + "."
    )


def _made(manifest: Manifest) -> str:
    """What the manifest says of judge, windows, calibration and lineage; of an imported version only its files."""
    details = manifest.details(VidbDetails)
    modes = ", ".join(sorted({calibration["mode"] for calibration in details.calibrations.values()}))
    rows = [["calibration", modes]]
    if details.resolved:
        judge, windows = details.resolved["judge"], details.resolved["windows"]
        model = f", model {judge['model']}" if "model" in judge else ""
        rows = [
            ["judge", f"{judge['name']} ({judge['kind']}{model})"],
            ["judge fingerprint", details.judge_fingerprint],
            ["texts in a window (k)", str(windows["k"])],
            ["windows per text (m)", str(windows["m"])],
            ["arrangement of windows", windows["mode"]],
            *rows,
            *([f"build of {stage}", build_id] for stage, build_id in details.builds.items()),
        ]
    rows += [
        ["made from", ", ".join(source.url for source in manifest.inputs)],
        ["created", manifest.created],
        ["ValueFlow", f"{manifest.code_version}, commit {manifest.git_commit}"],
    ]
    return markdown_table(["what", "setting"], rows)


def _load(version: str, value: str) -> str:
    theory, _, node = value.partition(":")
    return f"""## How to load

The columns `theory` and `value` are in the files as well as in the folder names, hence `partitioning=None`.

```python
import pandas as pd

rows = pd.read_parquet("theory={theory}/value={node}", partitioning=None)
```

```python
import pyarrow.parquet as pq

table = pq.read_table("theory={theory}", partitioning=None)
```

With ValueFlow, `ROOT` being the folder in which this one is `vidb/{version}`:

```python
from valueflow import vidb

anchors = vidb.load("ROOT", "{version}").anchors("{value}")
```"""


def _type(column: str) -> str:
    return str(SCHEMAS["vidb"].field(column).type)


def markdown_table(header: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; cells may hold names from the data, so nothing in them can end a cell or become HTML."""
    cells = [[html.escape(clean(cell), quote=False).replace("|", "\\|") for cell in row] for row in rows]
    lines = [header, ["---"] * len(header), *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
