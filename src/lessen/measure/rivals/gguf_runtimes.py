"""What else runs a GGUF file on a CPU: llama.cpp and OpenVINO GenAI, through their own Python packages.

Both compute with the file's few bits, which our models were written out from in more: their tokens part from
ours where two are nearly as likely.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from lessen.measure.generation_speed import Candidate, Run
from lessen.measure.rivals.optional import optional, quietly


def llama_cpp(file: Path, threads: int, positions: int) -> Candidate:
    """llama.cpp (package `llama-cpp-python`).

    Args:
        file: GGUF.
        threads: Of the processor.
        positions: Tokens of a prompt and its continuation at most.

    Raises:
        InputError: When the package is not installed.
    """
    package = optional("llama_cpp")
    with quietly():
        model = package.Llama(
            str(file), n_ctx=positions, n_threads=threads, n_threads_batch=threads, verbose=False
        )

    def candidate(prompt: Sequence[int], new_tokens: int) -> Run:
        tokens: list[int] = []
        seconds: list[float] = []
        began = perf_counter()
        model.reset()  # or it would find the prompt in its cache
        for token in model.generate(list(prompt), temp=0.0, repeat_penalty=1.0, reset=True):
            seconds.append(perf_counter() - began)
            tokens.append(int(token))
            if len(tokens) == new_tokens:
                break
        return Run(tuple(tokens), tuple(seconds))

    return candidate


def llama_cpp_build() -> str:
    """The installed llama.cpp's version and what it was built with, as it says itself.

    Raises:
        InputError: When the package is not installed.
    """
    package = optional("llama_cpp")
    said = package.llama_print_system_info().decode()
    on = [
        part.split("=")[0].strip()
        for part in said.split(":", 1)[-1].split("|")
        if part.strip().endswith("= 1")
    ]
    return f"{package.__version__}: {', '.join(on)}"


def openvino_genai(file: Path, threads: int, positions: int) -> Candidate:
    """OpenVINO GenAI (package `openvino-genai`); arguments and errors as above, `positions` are its own."""
    package, openvino = optional("openvino_genai"), optional("openvino")
    with quietly():
        pipeline = package.LLMPipeline(str(file), "CPU", INFERENCE_NUM_THREADS=threads)

    class Watch(package.StreamerBase):  # type: ignore[name-defined]
        """Notes when tokens come."""

        def __init__(self) -> None:
            super().__init__()
            self.tokens: list[int] = []
            self.seconds: list[float] = []

        def write(self, token: Any) -> Any:
            for each in token if isinstance(token, list) else [token]:
                self.seconds.append(perf_counter())
                self.tokens.append(int(each))
            return package.StreamingStatus.RUNNING

        def end(self) -> None:
            pass

    def candidate(prompt: Sequence[int], new_tokens: int) -> Run:
        import numpy as np

        config = package.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = new_tokens, True, False
        watch = Watch()
        ids = np.array([list(prompt)], dtype=np.int64)
        given = package.TokenizedInputs(openvino.Tensor(ids), openvino.Tensor(np.ones_like(ids)))
        began = perf_counter()
        pipeline.generate(given, config, watch)
        return Run(tuple(watch.tokens), tuple(second - began for second in watch.seconds))

    return candidate


GGUF_RIVALS: dict[str, Callable[[Path, int, int], Candidate]] = {
    "llama.cpp": llama_cpp,
    "openvino-genai": openvino_genai,
}
"""Builders by name: `builder(file, threads, positions)`."""
