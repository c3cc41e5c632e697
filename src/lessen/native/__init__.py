"""Kernels in C++ (`native/` of the sources), loaded without torch or Python headers; optional everywhere.

Where the library was not built, does not fit the processor or is switched off by LESSEN_DISABLE_NATIVE=1,
`native()` is None and callers go on with torch.
"""

from lessen.native.available import native, native_for, recorded, why_not
from lessen.native.decoder import DecoderLayer, Form, LastNorm, Reading, Room
from lessen.native.embeddings import EmbeddingTables
from lessen.native.head import Head
from lessen.native.layer import Bias, EncoderLayer, LayerRest
from lessen.native.library import Native
from lessen.native.matrix import MatrixOf

__all__ = [
    "Bias",
    "DecoderLayer",
    "EmbeddingTables",
    "EncoderLayer",
    "Form",
    "Head",
    "LastNorm",
    "LayerRest",
    "MatrixOf",
    "Native",
    "Reading",
    "Room",
    "native",
    "native_for",
    "recorded",
    "why_not",
]
