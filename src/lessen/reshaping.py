"""Models made out of loaded ones: other exits, other weights, fewer bits, or another library's names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from lessen.bits.conversion import packed, with_latents, with_precision
from lessen.config import CHOICES, LessenConfig
from lessen.errors import InputError, PlanError
from lessen.families import family_of
from lessen.families.parts import to_hugging_face
from lessen.hf import (
    LessenForCausalLM,
    LessenForSeq2SeqLM,
    LessenForSequenceClassification,
    LessenGenerator,
    LessenModel,
)
from lessen.model.language_heads import LanguageHead, start
from lessen.model.transformer import initialise
from lessen.plan import Bits, ExitShape, LanguageExitShape, Latent, Precision, Shape
from lessen.records import parse

Model = LessenForSequenceClassification | LessenForCausalLM | LessenForSeq2SeqLM | LessenModel


def in_few_bits(model: Model, precision: Precision) -> Model:
    """The same model with its layers' matrices in few bits, and the same Points, uncertified.

    Args:
        model: In float32; unchanged.
        precision: `int8`: whatever matrices multiply is rounded to 8 bits for each token. `int8-weights`: it
            is left as it is. `int4`: matrices have 4 bits, and what they multiply is rounded to 8. With the
            last two a generator's token table and language head are in 8 bits.

    Raises:
        PlanError: For weights beyond what float16 holds, in `int4`.
    """
    form, generates = model.config.form(), model.config.facts().language_head is not None
    return _converted(
        model, with_precision(model.transformer.state_dict(), form, precision, generates=generates)
    )


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
        InputError: When the model generates.
        PlanError: When a part has few bits already, or does not exist, or is left out though it is binary
            already.
    """
    if model.config.facts().language_head is not None:
        raise InputError(
            "binary weights are for encoders; this model generates: in_few_bits has it in 8 or 4"
        )
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
    for field in CHOICES:
        setattr(fresh.config, field, getattr(model.config, field))
    if not isinstance(fresh, LessenModel):
        fresh.use(fresh.config.point)
    return fresh


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
    if config.facts().language_head is not None:
        raise InputError("this model generates; exits that classify are for encoders")
    keeps_task = labels is None
    if keeps_task and not old.exits:
        raise InputError("this model has no classifier; name the labels of the task it is to learn")
    depth = len(old.layers)
    if exits is None:
        like = old.exits[-1] if keeps_task else ExitShape(layer=depth, pool="mean")
        exits = [like.model_copy(update={"layer": layer}) for layer in range(1, depth + 1)]
    elif keeps_task:
        exits = [*(exit for exit in exits if exit.layer < depth), old.exits[-1]]
    shape = parse(Shape, old.model_dump() | {"exits": [e.model_dump() for e in exits]}, "exits")
    names = list(config.id2label.values()) if labels is None else list(labels)
    fresh = LessenForSequenceClassification(
        LessenConfig(
            architecture=config.architecture,
            shape=shape.model_dump(mode="json"),
            id2label=dict(enumerate(names)),
            label2id={name: i for i, name in enumerate(names)},
            problem_type=problem_type or (config.problem_type if keeps_task else problem_type_of(len(names))),
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
    fresh.tokenizer, fresh.origin = model.tokenizer, model.folder or model.origin
    return fresh.to(model.dtype).eval()


def with_language_exits(
    model: LessenGenerator,
    exits: Sequence[LanguageExitShape],
    *,
    words: Sequence[int] = (),
    fresh: bool = False,
    seed: int = 0,
) -> LessenGenerator:
    """A generator with new heads that name the next token early, on the same backbone weights.

    Args:
        model: A loaded generator; exits it has are left behind, and so are its Points. Of an encoder-decoder
            model exits sit in the decoder.
        exits: Where they sit and how they are built.
        words: Token ids of the short list, most frequent first, where an exit has one.
        fresh: Draw norms and matrices of their own anew, instead of starting from the model's own head.
        seed: Of the draws.

    Returns:
        A new model sharing no memory with `model`. Until they are trained, its exits read earlier states as
        if they were the last.

    Raises:
        InputError: When the model does not generate, or there are fewer words than an exit has room for.
        PlanError: When an exit does not fit the model.
    """
    if not isinstance(model, LessenGenerator):
        raise InputError("language exits are for models that generate; this one does not")
    if model.config.form().embedding_bits != 32:
        raise PlanError("language exits learn from a model in float32; this one was saved in few bits")
    config = model.config
    shape = parse(
        Shape,
        config.form().model_dump() | {"language_exits": [exit.model_dump() for exit in exits]},
        "exits",
    )
    form = shape.model_dump(mode="json")
    fresh_model = type(model)(
        LessenConfig(architecture=config.architecture, shape=form, profile=config.profile)
    ).to(model.dtype)
    state = {name: value for name, value in model.state_dict().items() if ".language_exits." not in name}
    fresh_model.load_state_dict({name: value.clone() for name, value in state.items()}, strict=False)
    inner = fresh_model.transformer
    final_norm = inner.writer.final_norm
    assert final_norm is not None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for exit in exits:
            head = inner.language_exits[str(exit.layer)]
            assert isinstance(head, LanguageHead)
            start(head, final_norm, inner.vocabulary_matrix, fresh=fresh)
            if exit.words is not None:
                if len(words) < exit.words:
                    raise InputError(
                        f"the text has {len(words)} different tokens, the exits list {exit.words}: list fewer"
                    )
                head.words.copy_(torch.tensor(sorted(words[: exit.words])))
    fresh_model.tokenizer, fresh_model.generation_config = model.tokenizer, model.generation_config
    fresh_model.origin = model.folder or model.origin
    return fresh_model.eval()


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
    fresh.tokenizer, fresh.origin = model.tokenizer, model.folder or model.origin
    if not isinstance(model, LessenModel | LessenForSequenceClassification):
        fresh.generation_config = model.generation_config
    return fresh.train(model.training)


def export_hugging_face(model: Model) -> dict[str, Tensor]:
    """The full-depth weights under the names of the family's Hugging Face model.

    Use it to run the same weights elsewhere: of an encoder it is the backbone alone
    (`AutoModel.from_config(...).load_state_dict(..., strict=False)`), of a generator the whole model
    (`AutoModelForCausalLM.from_config(...).load_state_dict(...)`, or `AutoModelForSeq2SeqLM`).
    """
    facts = model.config.facts()
    family, generates = family_of(facts.family), facts.language_head is not None
    names = family.names(facts, prefixed=generates, head=generates)
    state = {k.removeprefix("transformer."): v for k, v in model.state_dict().items()}
    theirs = to_hugging_face(state, names, facts)
    table = state["embeddings.token.weight"]
    if facts.language_head == "tied":
        theirs[f"{family.language_head}.weight"] = table
    return theirs | {f"{name}.weight": table for name in family.copies_of_table}


def problem_type_of(outputs: int) -> str:
    """transformers' name of the usual task with so many outputs."""
    return "regression" if outputs == 1 else "single_label_classification"
