"""`lessen.load`: a hub name, a folder of either format, or `builtin:NAME`, as one kind of model."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import torch
from huggingface_hub import snapshot_download
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from lessen import artefact, builtin
from lessen.bits import fours, packing
from lessen.certificate import FILE as CERTIFICATE
from lessen.certificate import Generation, check_promises
from lessen.config import CHOICES, LessenConfig, check_written
from lessen.errors import ArtefactError, InputError, LessenError, PlanError, first_line
from lessen.families import family_of
from lessen.families.beexformer import CHARACTERS, PRESETS, SPECIAL, characters
from lessen.foreign import load_foreign
from lessen.hf import (
    LessenForCausalLM,
    LessenForSeq2SeqLM,
    LessenForSequenceClassification,
    LessenGenerator,
    LessenModel,
)
from lessen.model.architecture import Architecture
from lessen.model.digests import base_digest
from lessen.model.few_bits import BinaryEmbedding, BinaryLinear, Int4Linear
from lessen.model.transformer import initialise
from lessen.plan import FEW_BITS, Precision, Shape, dense_shape
from lessen.reshaping import Model, in_few_bits, with_language_exits


def load(
    name: str | Path,
    *,
    precision: Precision | None = None,
    point: str | None = None,
    promises: bool = True,
    base: str | Path | None = None,
) -> Model:
    """Load a model for inference.

    Args:
        name: A lessen folder, a Hugging Face folder or hub name, or `builtin:NAME`. `beexformer-small` and
            its like are not found but made, with weights drawn by torch's generator.
        precision: Type of the weights, or `int8`: the layers' matrices in 8 bits, whatever they multiply
            rounded to 8 bits for each token; or `int8-weights`: matrices in 8 bits alone; or `int4`: matrices
            in 4 bits, whatever they multiply rounded to 8 bits for each 32 numbers of a token. With the last
            two a generator's token table and language head are in 8 bits. As stored if None (float32 unless
            it was saved in few bits). A certificate is about the one it was made in; in another, Points are
            uncertified.
        point: Name of the saved Point to answer at; the artefact's own choice if None.
        promises: Check the folder's certificate and let its Points carry it. Off, they are uncertified.
        base: Of exits that were saved alone: where their model is, if not where it was.

    Returns:
        A transformers model with its tokenizer attached, in evaluation mode: a generator if the architecture
        is or has a decoder, a classifier (or regressor) if the checkpoint has a head for that, else an
        encoder that embeds sentences.

    Raises:
        InputError: When nothing can be found under the name, or there is no such precision.
        ArtefactError: When the folder's files are incomplete, truncated or do not belong together.
        PlanError: When `config.json` has unknown fields or is of a newer version, the Point does not exist,
            or weights stored in few bits are wanted in others.
        UnsupportedModelError: When the architecture is not supported.
    """
    if precision not in (None, *get_args(Precision)):
        raise InputError(f"precision {precision!r}: choose {', '.join(get_args(Precision))}")
    if (preset := _preset(name)) is not None:
        if point is not None:
            raise PlanError(f"{name} has no classifier, so it has no points; it only embeds sentences")
        return _in_precision(_made(preset), precision, str(name)).eval()
    source = _resolve(name)
    config = _config_of(source)
    own = isinstance(config, LessenConfig)
    if own and not Path(source).is_dir():
        source = _downloaded(source)
        config = _config_of(source)
    if own:
        artefact.check_files(Path(source))
    if own and config.base is not None:
        model: Model = _load_exits(Path(source), config, base)
    elif base is not None:
        raise InputError(f"{name} is a whole model; base is for exits that were saved without theirs")
    else:
        model = _load_own(Path(source), config) if own else load_foreign(source, config)
    # Only now: reading the weights names the tensor that is damaged, a certificate just says that one is.
    certificate = check_promises(Path(source), config.choices().values()) if own and promises else None
    model = _in_precision(model, precision, str(name)).eval()
    model.tokenizer = _tokenizer(source)
    if own:
        model.folder = Path(source)
    if isinstance(model, LessenModel):
        if point is not None:
            raise PlanError(f"{name} has no classifier, so it has no points; it only embeds sentences")
        return model
    if certificate is not None and certificate.precision == model.precision:
        if certificate.generation is not None:
            _check_decoding(Path(source) / CERTIFICATE, certificate.generation, model)
        model.honour_certificate()
    if point is not None and not model.config.form().exit_layers and len(model.config.choices()) == 1:
        raise PlanError(f"{name} generates at full depth; it has no points")
    return model.use(model.config.point if point is None else point)


def _in_precision(model: Model, precision: Precision | None, name: str) -> Model:
    if model.precision in FEW_BITS:
        if precision in (None, model.precision):
            return model
        bits = 4 if model.precision == "int4" else 8
        raise PlanError(f"{name} was saved with weights of {bits} bits; load it in {model.precision}")
    if precision in FEW_BITS:
        found = in_few_bits(model.to(torch.float32), precision)
        if found.precision != precision:
            raise PlanError(f"{name}: {precision} changes none of its layers; load it in float32")
        return found
    return model.to(getattr(torch, precision or "float32"))


def depth_of(name: str | Path) -> int:
    """Number of layers of a model, from its config alone; of those that write, where a decoder does.

    Raises:
        InputError, ArtefactError, PlanError, UnsupportedModelError: As `load`.
    """
    if (preset := _preset(name)) is not None:
        return PRESETS[preset].num_hidden_layers
    config = _config_of(_resolve(name))
    if isinstance(config, LessenConfig):
        return len(config.form().writing_layers)
    facts = family_of(config.model_type).architecture(config)
    return facts.num_decoder_layers or facts.num_hidden_layers


def gguf_behind(name: str | Path) -> Path | None:
    """The GGUF file a built-in model was written out from, or the one a folder was compressed from was.

    Raises:
        InputError: When its package is missing.
        ArtefactError: When it is not the file that is known, or the folder's plan cannot be read.
    """
    plan = Path(name) / "plan.json"
    said = artefact.read_json(plan, "compress the model again") if plan.is_file() else {"model": name}
    source = str(said.get("model")) if isinstance(said, dict) else ""
    return builtin.gguf_file(source.removeprefix("builtin:")) if source.startswith("builtin:") else None


def generates(name: str | Path) -> bool:
    """Whether a model continues text, from its config alone.

    Raises:
        InputError, ArtefactError, PlanError, UnsupportedModelError: As `load`.
    """
    return facts_of(name).language_head is not None


def has_exits(name: str | Path) -> bool:
    """Whether a model can answer before its last layer, from its config alone.

    Raises:
        InputError, ArtefactError, PlanError, UnsupportedModelError: As `load`.
    """
    config = None if _preset(name) is not None else _config_of(_resolve(name))
    return isinstance(config, LessenConfig) and bool(config.form().exit_layers)


def latent_form_of(name: str | Path) -> Shape | None:
    """The Shape of a model whose binary weights are stored as what they learn by, from its config alone.

    Raises:
        InputError, ArtefactError, PlanError, UnsupportedModelError: As `load`.
    """
    config = None if _preset(name) is not None else _config_of(_resolve(name))
    form = config.form() if isinstance(config, LessenConfig) else None
    return form if form is not None and form.latent is not None else None


def facts_of(name: str | Path) -> Architecture:
    """What a model's family fixes, from its config alone.

    Raises:
        InputError, ArtefactError, PlanError, UnsupportedModelError: As `load`.
    """
    if (preset := _preset(name)) is not None:
        return PRESETS[preset]
    config = _config_of(_resolve(name))
    if isinstance(config, LessenConfig):
        return config.facts()
    return family_of(config.model_type).architecture(config)


def _preset(name: str | Path) -> str | None:
    """The preset of `builtin:NAME`, if it is one."""
    text = str(name).removeprefix("builtin:")
    return text if str(name).startswith("builtin:") and text in PRESETS else None


def _made(preset: str) -> LessenModel:
    """An encoder with random weights, and the tokenizer its vocabulary is of."""
    facts = PRESETS[preset]
    shape = dense_shape(facts.num_hidden_layers, facts.num_attention_heads, facts.intermediate_size)
    config = LessenConfig(architecture=facts.model_dump(mode="json"), shape=shape.model_dump(mode="json"))
    model = LessenModel(config).eval()
    initialise(model.transformer)
    if preset == CHARACTERS:
        model.tokenizer = PreTrainedTokenizerFast(tokenizer_object=characters(), **SPECIAL)
    else:
        model.tokenizer = _tokenizer(str(builtin.model_folder("minilm-l6")))
    return model


def _resolve(name: str | Path) -> str:
    text = str(name)
    if text.startswith("builtin:"):
        known = text.removeprefix("builtin:")
        if known not in builtin.MODELS:
            there = ", ".join(sorted({*builtin.MODELS, *PRESETS}))
            raise InputError(f"no built-in model {known!r}; there is {there}")
        return str(builtin.model_folder(known))
    path = Path(text).expanduser()
    if path.is_dir():
        return str(path)
    if path.exists():
        raise InputError(f"{text} is a file; name the model's folder")
    if text.startswith((".", "/", "~")) or text.endswith("/") or text.count("/") > 1:
        raise InputError(f"no such model folder: {text}")
    return text


def _config_of(source: str) -> PreTrainedConfig:
    if Path(source).is_dir():
        raw = artefact.read_config(Path(source))
        if raw.get("model_type") == "lessen":
            check_written(raw, f"{source}/config.json")
        elif isinstance(raw.get("model_type"), str):
            family_of(raw["model_type"])
    try:
        config = AutoConfig.from_pretrained(source)
    except LessenError:
        raise
    except Exception as error:  # transformers checks some fields in ways of its own, with errors of all kinds
        known = Path(source).is_dir()
        why = (
            first_line(error) if known else f"there is no such folder, and the hub says: {first_line(error)}"
        )
        raise InputError(f"cannot load a model named {source!r}: {why}") from None
    if not isinstance(config, LessenConfig):
        family_of(config.model_type)
    return config


def _downloaded(name: str) -> str:
    """The folder a lessen model of the hub is kept in on this machine."""
    try:
        return snapshot_download(name)
    except Exception as error:  # of the network, the hub or the disk
        raise InputError(f"cannot download {name!r}: {first_line(error)}") from None


def _load_own(folder: Path, config: LessenConfig) -> Model:
    kind: type[Model] = LessenForSequenceClassification if config.form().exits else LessenModel
    if config.facts().language_head is not None:
        kind = LessenForSeq2SeqLM if config.facts().decoder else LessenForCausalLM
    with torch.device("meta"):
        skeleton = kind(config)
    artefact.check_weights(folder, skeleton.state_dict())
    model = kind.from_pretrained(folder, config=config)
    _check_seals(folder, model)
    return model


def _load_exits(folder: Path, config: LessenConfig, place: str | Path | None) -> Model:
    """The model that exits saved alone belong to, with them.

    Raises:
        ArtefactError: When the model found is another one, naming the first difference.
    """
    of, facts, shape = config.base_model(), config.facts(), config.form()
    assert of is not None
    base = load(of.model if place is None else place, promises=False)
    name, found = place or of.model, base.config.facts()
    for field in type(facts).model_fields:
        if (said := getattr(facts, field)) != (there := getattr(found, field)):
            said, there = (str(value)[:40] for value in (said, there))
            raise ArtefactError(
                f"{folder}: its exits belong to another model than {name}: {field} {said}, not {there}"
            )
    if not isinstance(base, LessenGenerator) or base_digest(base.transformer) != of.weights:
        raise ArtefactError(f"{folder}: its exits belong to {of.model}; the weights of {name} are others")
    model = with_language_exits(base, shape.language_exits, words=range(facts.vocab_size))
    heads = {key: value for key, value in model.state_dict().items() if ".language_exits." in key}
    artefact.check_weights(folder, heads)
    with safe_open(folder / artefact.EXITS, framework="pt") as file:
        said = (file.metadata() or {}).get("base")
    if said != of.weights:
        raise ArtefactError(
            f"{folder / artefact.EXITS} belongs to another model than {artefact.CONFIG} says; "
            "put back the file it was saved with"
        )
    model.load_state_dict(load_file(folder / artefact.EXITS), strict=False)
    for field in (*CHOICES, "profile"):
        setattr(model.config, field, getattr(config, field))
    assert isinstance(model, LessenForCausalLM | LessenForSeq2SeqLM)
    return model.use(config.point)


def _check_seals(folder: Path, model: Model) -> None:
    """Refuse packed signs and blocks that are damaged, or packed in another way, and scales that are none."""
    for name, part in model.named_modules():
        why, scales = None, getattr(part, "scales", None)
        if isinstance(scales, torch.Tensor) and not scales.isfinite().all():
            where = f"{folder / artefact.WEIGHTS}: tensor {name}.scales"
            raise ArtefactError(f"{where} holds what is no number; the file is damaged")
        if isinstance(part, Int4Linear):
            why = fours.broken(part.weight, part.seal)
        elif isinstance(part, BinaryLinear | BinaryEmbedding):
            columns = part.in_features if isinstance(part, BinaryLinear) else part.embedding_dim
            why = packing.broken(part.weight, part.seal, columns)
        if why is not None:
            raise ArtefactError(f"{folder / artefact.WEIGHTS}: tensor {name}.weight: {why}")


def _check_decoding(place: Path, how: Generation, model: Model) -> None:
    """Refuse a certificate of texts that were written otherwise than the model would write them now."""
    assert isinstance(model, LessenGenerator)
    ends, most = tuple(sorted(model.stop_tokens)), model.decoding().most
    if how.never_early != ends or how.most_early not in (None, most):
        raise ArtefactError(
            f"{place}: texts end at tokens {list(ends)} and at most {most} in a row are early, but it was "
            f"made with {list(how.never_early)} and {how.most_early}; put back generation_config.json, or "
            "calibrate again"
        )


def _tokenizer(source: str) -> Any:
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).exists() for name in artefact.VOCABULARIES):
        return None
    try:
        return AutoTokenizer.from_pretrained(source)
    except Exception as error:  # transformers raises many kinds for a damaged file
        if not folder.is_dir():
            return None
        raise ArtefactError(f"cannot read the tokenizer of {source}: {first_line(error)}") from None
