"""Texts and labels from files, folders, the hub or pinned packages, and their disjoint parts."""

from lessen.data.packaged import BUILT_IN
from lessen.data.reading import read
from lessen.data.splits import split, without, without_contained
from lessen.data.table import Kind, Table, row_key

__all__ = ["BUILT_IN", "Kind", "Table", "read", "row_key", "split", "without", "without_contained"]
