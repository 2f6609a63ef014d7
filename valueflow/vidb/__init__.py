"""The Value Intensity DataBase: candidates, finished versions, publication, and files of rated texts."""

from valueflow.vidb.anchor_files import import_version, read_anchors
from valueflow.vidb.version import Anchors, Vidb, licenses, load

__all__ = ["Anchors", "Vidb", "import_version", "licenses", "load", "read_anchors"]
