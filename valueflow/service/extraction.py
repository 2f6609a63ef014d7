"""What a root lacks for the extraction of values from texts, and the commands that make it."""

from valueflow import store


def extraction_steps(root: str) -> str:
    """Return why values are not extracted in this process, what a root has for it, and the commands to run, as a message."""
    texts, by_panel = store.finished(root, "texts"), store.finished(root, "labels")
    labels = [store.manifest(store.Build(root, "source_labels", build)) for build in texts[-1:]]
    from_corpora = any(manifest and manifest.num_rows for manifest in labels)
    if not texts:
        state = f"{root} has no texts: read labelled ones with python -m jobs.ingest conf/ingest/tiny.yaml root={root}, then"
    elif not from_corpora and not by_panel:
        command = f"python -m jobs.categorize conf/categorize/tiny.yaml root={root}"
        state = f"the texts in {root} have no labels: make them with {command}, then"
    else:
        state = f"{root} has them:"
    use_panel = bool(texts) and not from_corpora
    job, server = (" reference.labels=latest", "labels") if use_panel else ("", "texts")
    return (
        "values are extracted by comparison with labelled texts, by a job or a server, not by this command alone; "
        f"{state} run python -m jobs.extract conf/extract/tiny.yaml root={root} texts=FILE{job}, or embed the labelled texts "
        f"with python -m jobs.embed conf/embed/tiny.yaml root={root} npz=false, start python -m serve.local root={root} "
        f"extraction.{server}=latest and name that server with --server"
    )
