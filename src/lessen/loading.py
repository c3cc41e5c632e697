"""`lessen.load`: a hub name, a folder of either format, or `builtin:NAME`, as one kind of model."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from lessen import artefact, builtin
from lessen.bits.conversion import packed, with_int8, with_latents
from lessen.bits.packing import broken
from lessen.certificate import check_promises
from lessen.config import WRITTEN, LessenConfig
from lessen.errors import ArtefactError, InputError, LessenError, PlanError
from lessen.families import family_of
from lessen.families.beexformer import CHARACTERS, PRESETS, SPECIAL, characters
from lessen.families.family import from_hugging_face, to_hugging_face
from lessen.hf import LessenForSequenceClassification, LessenModel
from lessen.model.transformer import initialise
from lessen.plan import FORMAT_VERSION, Bits, ExitShape, Latent, Precision, Shape, dense_shape

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")

TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model", "spiece.model")
"""One of these makes a tokenizer; without any, transformers invents one that knows no words."""

Model = LessenForSequenceClassification | LessenModel


def load(
    name: str | Path,
    *,
    precision: Precision | None = None,
    point: str | None = None,
    promises: bool = True,
) -> Model:
    """Load a model for inference.

    Args:
        name: A lessen folder, a Hugging Face folder or hub name, or `builtin:NAME`. `beexformer-small` and
            its like are not found but made, with weights drawn by torch's generator.
        precision: Type of the weights, or `int8`: the layers' matrices in 8 bits, whatever they multiply
            rounded to 8 bits for each token. As stored if None (float32 unless it was saved in int8). A
            certificate is about the one it was made in; in another, Points are uncertified.
        point: Name of the saved Point to answer at; the artefact's own choice if None.
        promises: Check the folder's certificate and let its Points carry it. Off, they are uncertified.

    Returns:
        A transformers model with its tokenizer attached, in evaluation mode: a classifier (or regressor) if
        the checkpoint has a head, else an encoder that embeds sentences.

    Raises:
        InputError: When nothing can be found under the name.
        ArtefactError: When the folder's files are incomplete, truncated or do not belong together.
        PlanError: When `config.json` has unknown fields or is of a newer version, the Point does not exist,
            or weights stored in 8 bits are wanted in more.
        UnsupportedModelError: When the architecture is not supported.
    """
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
    certificate = check_promises(Path(source), config.choices().values()) if own and promises else None
    model = _load_own(Path(source), config) if own else _load_foreign(source, config)
    model = _in_precision(model, precision, str(name)).eval()
    model.tokenizer = _tokenizer(source)
    if own:
        model.folder = Path(source)
    if certificate is not None and certificate.precision == model.precision:
        model.honour_certificate()
    if point is not None:
        if isinstance(model, LessenModel):
            raise PlanError(f"{name} has no classifier, so it has no points; it only embeds sentences")
        model.use(point)
    return model


def in_int8(model: Model) -> Model:
    """The same model with its layers' matrices in 8 bits, and the same Points, uncertified.

    Args:
        model: In float32; unchanged.
    """
    return _converted(model, with_int8(model.transformer.state_dict(), model.config.form()))


def in_latents(
    model: Model,
    latent: Latent | None = None,
    *,
    activation_bits: Bits = 32,
    layers: Collection[int] | None = None,
    embedding: bool = True,
) -> Model:
    """The same model computing with the signs of its weights, ready to learn so; as it is, it will be bad.

    Args:
        model: In float32; unchanged.
        latent: How signs are scaled and learn.
        activation_bits: Of what they multiply: 32, 8 or 1.
        layers: Places (0-based) of layers whose matrices become binary; all if None.
        embedding: Whether the token table does.

    Raises:
        PlanError: When a part has few bits already, or does not exist.
    """
    state, shape = with_latents(
        model.transformer.state_dict(),
        model.config.form(),
        latent or Latent(),
        activation_bits=activation_bits,
        layers=layers,
        embedding=embedding,
    )
    return with_shape(model, shape, state)


def in_signs(model: Model) -> Model:
    """The same model with its binary weights packed, for inference, and the same Points, uncertified.

    Args:
        model: With latents; unchanged. Without any, it is copied.
    """
    return _converted(model, packed(model.transformer.state_dict(), model.config.form()))


def _converted(model: Model, made: tuple[Mapping[str, Tensor], Shape]) -> Model:
    state, shape = made
    fresh = with_shape(model, shape, state)
    for field in ("points", "path", "point"):
        setattr(fresh.config, field, getattr(model.config, field))
    if isinstance(fresh, LessenForSequenceClassification):
        fresh.use(fresh.config.point)
    return fresh


def _in_precision(model: Model, precision: Precision | None, name: str) -> Model:
    if model.precision == "int8":
        if precision in (None, "int8"):
            return model
        raise PlanError(f"{name} was saved with weights of 8 bits; load it in int8")
    if precision == "int8":
        return in_int8(model.to(torch.float32))
    return model.to(getattr(torch, precision or "float32"))


def depth_of(name: str | Path) -> int:
    """Number of layers of a model, from its config alone.

    Raises:
        InputError, ArtefactError, PlanError, UnsupportedModelError: As `load`.
    """
    if (preset := _preset(name)) is not None:
        return PRESETS[preset].num_hidden_layers
    config = _config_of(_resolve(name))
    return len(config.form().layers) if isinstance(config, LessenConfig) else config.num_hidden_layers


def with_exits(
    model: Model,
    *,
    exits: Sequence[ExitShape] | None = None,
    labels: Sequence[str] | None = None,
    problem_type: str | None = None,
    seed: int = 0,
) -> LessenForSequenceClassification:
    """A classifier with new exit heads on the same backbone weights.

    Args:
        model: Any loaded model.
        exits: Where the exits sit and how they are built; after every layer, in the form of the last head (or
            mean pooling and one linear layer if there is none), if None. The last head of a task that is kept
            stays as it is, whatever is asked for.
        labels: Names of the outputs of a new task; None keeps the model's task and its last head.
        problem_type: Of the new task, as in transformers.
        seed: Of the new heads' initial weights. Where the task is kept, a new exit of the same form as the
            last one starts as its copy instead.

    Returns:
        A new model sharing no memory with `model`. The backbone's weights are equal; so are those of the last
        head if the task is kept.
    """
    config = model.config
    old = config.form()
    keeps_task = labels is None
    if keeps_task and not old.exits:
        raise InputError("this model has no classifier; name the labels of the task it is to learn")
    depth = len(old.layers)
    if exits is None:
        like = old.exits[-1] if keeps_task else ExitShape(layer=depth, pool="mean")
        exits = [like.model_copy(update={"layer": layer}) for layer in range(1, depth + 1)]
    elif keeps_task:
        exits = [*(exit for exit in exits if exit.layer < depth), old.exits[-1]]
    shape = Shape.model_validate(old.model_dump() | {"exits": [e.model_dump() for e in exits]})
    names = list(config.id2label.values()) if labels is None else list(labels)
    fresh = LessenForSequenceClassification(
        LessenConfig(
            architecture=config.architecture,
            shape=shape.model_dump(mode="json"),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            problem_type=problem_type or (config.problem_type if keeps_task else _problem_type(len(names))),
            profile=config.profile if isinstance(config, LessenConfig) else None,
        )
    )
    state = {name: value.clone() for name, value in model.state_dict().items()}
    if not keeps_task:
        state = {name: value for name, value in state.items() if ".exits." not in name}
    wanted = fresh.state_dict()
    state = {k: v for k, v in state.items() if k in wanted and wanted[k].shape == v.shape}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        initialise(fresh.transformer.exits)
    if keeps_task:
        last = model.transformer.exits[str(depth)].state_dict()
        for shape_of_exit in exits:
            if shape_of_exit.model_copy(update={"layer": depth}) == old.exits[-1]:
                fresh.transformer.exits[str(shape_of_exit.layer)].load_state_dict(last)
    fresh.load_state_dict(state, strict=False)
    fresh.tokenizer = model.tokenizer
    return fresh.to(model.dtype).eval()


def with_shape(model: Model, shape: Shape, state: Mapping[str, Tensor]) -> Model:
    """The same model with other weights: what a removal left, of the task and the tokenizer of before.

    Args:
        model: Any loaded model; unchanged.
        shape: Which weights there are.
        state: The tensors of its transformer, such as `width.removal` returns; copied.

    Returns:
        A new model at full depth and with all tokens: Points and certificates spoke of the old weights. The
        retention profile stays where it fits.
    """
    old = model.config
    profile = old.retention_profile()
    config = LessenConfig(
        architecture=old.architecture,
        shape=shape.model_dump(mode="json"),
        id2label=old.id2label,
        label2id=old.label2id,
        problem_type=old.problem_type,
        profile=old.profile if profile is not None and len(profile.base) == len(shape.layers) else None,
    )
    with torch.device("meta"):
        fresh = type(model)(config)
    named = {f"transformer.{name}": value.detach().clone() for name, value in state.items()}
    fresh.load_state_dict(named, strict=True, assign=True)
    fresh.tokenizer = model.tokenizer
    return fresh.train(model.training)


def export_hugging_face(model: LessenForSequenceClassification) -> dict[str, Tensor]:
    """The full-depth weights under the names of the family's Hugging Face model, backbone only.

    Use it to run the same weights elsewhere: `AutoModel.from_config(...).load_state_dict(..., strict=False)`.
    """
    facts = model.config.facts()
    names = family_of(facts.family).names(facts, prefixed=False, head=False)
    state = {k.removeprefix("transformer."): v for k, v in model.state_dict().items()}
    return to_hugging_face(state, names)


def _problem_type(outputs: int) -> str:
    return "regression" if outputs == 1 else "single_label_classification"


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
    if text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise InputError(f"no such model folder: {text}")
    return text


def _config_of(source: str) -> PreTrainedConfig:
    if Path(source).is_dir():
        raw = artefact.read_config(Path(source))
        if raw.get("model_type") == "lessen":
            _check_own_config(raw, source)
        elif isinstance(raw.get("model_type"), str):
            family_of(raw["model_type"])
    try:
        config = AutoConfig.from_pretrained(source)
    except LessenError:
        raise
    except Exception as error:  # transformers checks some fields in ways of its own, with errors of all kinds
        known = Path(source).is_dir()
        why = (
            _first_line(error)
            if known
            else f"there is no such folder, and the hub says: {_first_line(error)}"
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
        raise InputError(f"cannot download {name!r}: {_first_line(error)}") from None


def _check_own_config(raw: dict[str, Any], source: str) -> None:
    version = raw.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise PlanError(
            f"{source}/config.json: format_version {version!r} is newer than this lessen reads "
            f"({FORMAT_VERSION}); upgrade lessen"
        )
    for field in raw:
        if field not in WRITTEN:
            near = difflib.get_close_matches(field, WRITTEN, n=1)
            hint = f", did you mean {near[0]!r}?" if near else "; it may come from a newer lessen"
            raise PlanError(f"{source}/config.json: unknown field {field!r}{hint}")
    _check_task(raw, f"{source}/config.json")


def _check_task(raw: dict[str, Any], where: str) -> None:
    labels = raw.get("id2label")
    if labels is not None and (
        not isinstance(labels, dict) or sorted(labels) != sorted(str(i) for i in range(len(labels)))
    ):
        raise PlanError(f"{where}: id2label must name the outputs 0, 1, 2, ... without gaps")
    problem = raw.get("problem_type")
    if problem is not None and problem not in PROBLEM_TYPES:
        raise PlanError(f"{where}: problem_type {problem!r} is none of {', '.join(PROBLEM_TYPES)}")
    if problem == "regression" and labels is not None and len(labels) != 1:
        raise PlanError(f"{where}: regression has one output, id2label names {len(labels)}")
    if raw.get("dtype") not in (None, "float32", "bfloat16", "float16", "float64"):
        raise PlanError(f"{where}: dtype {raw['dtype']!r} is not one a checkpoint can have")


def _load_own(folder: Path, config: LessenConfig) -> Model:
    kind = LessenForSequenceClassification if config.form().exits else LessenModel
    with torch.device("meta"):
        skeleton = kind(config)
    artefact.check_weights(folder, {name: tuple(t.shape) for name, t in skeleton.state_dict().items()})
    model = kind.from_pretrained(folder, config=config)
    _check_seals(folder, model.state_dict())
    return model


def _check_seals(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Refuse packed signs that are damaged, or packed in another way."""
    for name, beside in state.items():
        if name.endswith(".seal"):
            words = f"{name.removesuffix('seal')}weight"
            if why := broken(state[words], beside):
                raise ArtefactError(f"{folder / artefact.WEIGHTS}: tensor {words}: {why}")


def _load_foreign(source: str, config: PreTrainedConfig) -> Model:
    family = family_of(config.model_type)
    facts = family.architecture(config)
    has_head = any(name.endswith("ForSequenceClassification") for name in config.architectures or [])
    auto = AutoModelForSequenceClassification if has_head else AutoModel
    try:
        foreign, found = auto.from_pretrained(source, dtype="auto", output_loading_info=True)
    except Exception as error:  # transformers raises many kinds for a damaged or missing weights file
        raise ArtefactError(f"cannot read the weights of {source}: {_first_line(error)}") from None
    head = family.head_shape(config) if has_head else None
    shape = dense_shape(
        facts.num_hidden_layers,
        facts.num_attention_heads,
        facts.intermediate_size,
        exits=(head,) if head else (),
    )
    own = LessenConfig(
        architecture=facts.model_dump(mode="json"),
        shape=shape.model_dump(mode="json"),
        id2label=config.id2label if has_head else None,
        label2id=config.label2id if has_head else None,
        problem_type=config.problem_type or _problem_type(config.num_labels) if has_head else None,
    )
    kind = LessenForSequenceClassification if has_head else LessenModel
    with torch.device("meta"):
        model = kind(own)
    names = family.names(facts, prefixed=has_head, head=has_head)
    _refuse_gaps(source, names, found["missing_keys"])
    state = from_hugging_face(foreign.state_dict(), names)
    model.load_state_dict({f"transformer.{k}": v for k, v in state.items()}, strict=True, assign=True)
    return model


def _refuse_gaps(source: str, names: Mapping[str, tuple[str, ...]], missing: Collection[str]) -> None:
    """transformers fills missing tensors with random numbers and goes on; that is never what a user wants."""
    needed = {f"{name}.{kind}" for theirs in names.values() for name in theirs for kind in ("weight", "bias")}
    if absent := sorted(needed & set(missing)):
        more = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise ArtefactError(
            f"{source}: the weights lack {absent[0]}{more}; the file is incomplete or another model's"
        )


def _tokenizer(source: str) -> Any:
    folder = Path(source)
    if folder.is_dir() and not any((folder / name).exists() for name in TOKENIZER_FILES):
        return None
    try:
        return AutoTokenizer.from_pretrained(source)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
