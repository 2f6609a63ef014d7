"""The Jinja environment of the pages."""

import functools
from typing import Any

import jinja2

from valueflow.records import LIMIT
from valueflow.report import formatting


def render(template: str, **context: Any) -> str:
    """Return a page; texts are escaped, and a name that the context lacks is an error."""
    return _environment().get_template(template).render(context)


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("valueflow.report", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": "{:,}".format,
        "decimal": formatting.decimal,
        "percent": formatting.percent,
        "signed": formatting.signed,
    }
    environment.globals |= {"interval": formatting.interval, "limit": LIMIT}
    return environment
