"""`config.json` as transformers reads and writes it: which fields there are, and that they make sense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedConfig

from lessen.errors import PlanError
from lessen.model.architecture import Architecture
from lessen.plan import FULL, Base, Drafts, Point, RetentionProfile, Shape, check_point
from lessen.records import FORMAT_VERSION, parse, suggestion

WRITTEN = (
    "model_type",
    "format_version",
    "architecture",
    "shape",
    "points",
    "point",
    "path",
    "profile",
    "drafts",
    "base",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "problem_type",
    "transformers_version",
)
"""The fields of `config.json`: no others are written, and `lessen.load` refuses a file that has others."""


CHOICES = ("points", "path", "point", "drafts")
"""Fields that say how a model may be run, whatever its weights are rounded to."""

ABSENT = ("base", "drafts")
"""Fields of generators, which are not written where they say nothing."""

PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


class LessenConfig(PreTrainedConfig):
    """`config.json`: family facts, Shape, Points, and transformers' own `id2label` and `problem_type`."""

    model_type = "lessen"

    format_version: int = FORMAT_VERSION
    architecture: dict | None = None
    shape: dict | None = None
    points: list | None = None
    point: str = "full"
    path: list | None = None
    profile: dict | None = None
    drafts: dict | None = None
    base: dict | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.architecture is not None:
            self.facts()
            self.form()
            self.choices()
            self.steps()
            self.retention_profile()
            self.drafting()
            self.base_model()
            self.is_encoder_decoder = self.facts().decoder is not None

    def to_diff_dict(self) -> dict[str, Any]:
        """What is written: the known fields only, whatever a trainer has set on the config."""
        written = {key: value for key, value in super().to_diff_dict().items() if key in WRITTEN}
        return {key: value for key, value in written.items() if key not in ABSENT or value is not None}

    @property
    def hidden_size(self) -> int:
        """Width of the hidden states."""
        return self.facts().hidden_size

    @property
    def num_hidden_layers(self) -> int:
        """Layers that are left."""
        return len(self.form().layers)

    @property
    def vocab_size(self) -> int:
        """Rows of the token table."""
        return self.facts().vocab_size

    @property
    def max_position_embeddings(self) -> int:
        """Longest input, in tokens."""
        return self.facts().max_tokens

    def facts(self) -> Architecture:
        """The validated `architecture` field."""
        return parse(Architecture, self.architecture, self._where("architecture"))

    def form(self) -> Shape:
        """The validated `shape` field."""
        return parse(Shape, self.shape, self._where("shape"))

    def choices(self) -> dict[str, Point]:
        """The validated Points by name; "full" is always among them."""
        points = self._points("points", self.points)
        named = {point.name: point for point in points}
        if len(named) < len(points):
            raise PlanError(f"{self._where('points')}: two points have the same name")
        return {FULL.name: FULL, **named}

    def retention_profile(self) -> RetentionProfile | None:
        """The validated `profile` field: how tokens leave, moved by one scalar; None if none was measured."""
        if self.profile is None:
            return None
        profile = parse(RetentionProfile, self.profile, self._where("profile"))
        layers = len(self.form().layers)
        if len(profile.base) != layers:
            raise PlanError(
                f"{self._where('profile')}: base has {len(profile.base)} shares, the model {layers} layers"
            )
        return profile

    def drafting(self) -> Drafts | None:
        """The validated `drafts` field: how to draft in mode `spec`; None if nothing was found to pay."""
        if self.drafts is None:
            return None
        drafts = parse(Drafts, self.drafts, self._where("drafts"))
        try:
            check_point(Point(name="drafts", exits=drafts.rule), self.form())
        except PlanError as error:
            raise PlanError(f"{self._where('drafts')}.{error}") from None
        return drafts

    def base_model(self) -> Base | None:
        """The validated `base` field: whose exits these are, where they are saved alone."""
        return None if self.base is None else parse(Base, self.base, self._where("base"))

    def steps(self) -> list[Point]:
        """The validated `path`: what the dial chooses from, most careful first."""
        return self._points("path", self.path)

    def _points(self, field: str, raw: list | None) -> list[Point]:
        points = []
        for place, value in enumerate(raw or []):
            where = self._where(f"{field}[{place}]")
            points.append(parse(Point, value, where))
            try:
                check_point(points[-1], self.form())
            except PlanError as error:
                raise PlanError(f"{where}.{error}") from None
        return points

    def _where(self, field: str) -> str:
        name = getattr(self, "_name_or_path", "")
        return f"{name}/config.json: {field}" if name else f"config.json: {field}"


def check_written(raw: Mapping[str, Any], where: str) -> None:
    """Refuse a `config.json` that this version cannot have written, before transformers reads it its own way.

    Args:
        raw: As it is in the file.
        where: The file, as named in the error.

    Raises:
        PlanError: For a newer format, an unknown field, or labels, task or dtype that cannot be.
    """
    version = raw.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise PlanError(
            f"{where}: format_version {version!r} is newer than this lessen reads ({FORMAT_VERSION}); "
            "upgrade lessen"
        )
    for field in raw:
        if field not in WRITTEN:
            raise PlanError(f"{where}: unknown field {field!r}{suggestion(field, WRITTEN)}")
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
