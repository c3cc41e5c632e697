"""GGUF files as ordinary checkpoints: their weights written out in float32, once."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from lessen.errors import ArtefactError, InputError


def convert(file: Path, folder: Path) -> None:
    """Write a GGUF file's model and tokenizer as a Hugging Face folder.

    Weights of few bits stay as coarse as they are: the model answers as the file says, not as what that was
    made from. transformers reads it, which takes a minute.

    Args:
        file: The GGUF file.
        folder: An empty one.

    Raises:
        InputError: When the package that knows the format is missing.
        ArtefactError: When the file cannot be read.
    """
    if importlib.util.find_spec("gguf") is None:
        raise InputError(f"{file.name} is a GGUF file; to read it once, install: pip install gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
        model = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name)
    except Exception as error:  # of many kinds, for a file that is damaged or of a newer version
        raise ArtefactError(f"cannot read {file}: {error}") from None
    del model.config.quantization_config
    model.hf_quantizer = None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
