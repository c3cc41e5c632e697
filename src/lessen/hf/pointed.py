"""A shell that answers at a Point: which there are, which is used, and whether a certificate holds for it."""

from __future__ import annotations

from typing import Any, Self

from lessen.certificate import without_certificate
from lessen.config import LessenConfig
from lessen.depth.criteria import check_rule
from lessen.errors import InputError, PlanError
from lessen.hf.shell import LessenPreTrainedModel
from lessen.plan import Point, check_point


class LessenPointedModel(LessenPreTrainedModel):
    """What classifiers and generators share: Points, honest about their certificate."""

    def __init__(self, config: LessenConfig) -> None:
        super().__init__(config)
        self._certified_for: str | None = None
        self.point = self._named(config.point)

    @property
    def points(self) -> dict[str, Point]:
        """The Points saved with the model, by name; certified only where the certificate holds."""
        return {name: self._honest(point) for name, point in self.config.choices().items()}

    @property
    def point(self) -> Point:
        """How much of the model an input uses."""
        return self._honest(self._point)

    @point.setter
    def point(self, point: Point) -> None:
        self._point = point

    def honour_certificate(self) -> None:
        """Let Points carry their certificate: called by what has checked it against these very weights.

        It holds until the model is trained, gets other weights, or is changed to another precision; on
        another device it rests.
        """
        self._certified_for = self.precision

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """What moves and converts a module goes through here; a changed precision ends the certificate."""
        super()._apply(fn, recurse)
        if self._certified_for != self.precision:
            self._certified_for = None
        return self

    def load_state_dict(self, *arguments: Any, **options: Any) -> Any:
        """Other weights end the certificate."""
        self._certified_for = None
        return super().load_state_dict(*arguments, **options)

    def _honest(self, point: Point) -> Point:
        holds = self._certified_for == self.precision and self.device.type == "cpu"
        return point if holds else without_certificate(point)

    def train(self, mode: bool = True) -> Self:
        """Switch the mode; in training the certificate ends."""
        if mode:
            self._certified_for = None
        return super().train(mode)

    def use(self, point: str | Point) -> Self:
        """Choose the Point inputs are answered at from now on; returns the model.

        What generates reads prompts so; its exits are asked only in the modes `direct` and `spec`.

        Raises:
            PlanError: When no Point of this name was saved, or the model cannot keep it.
        """
        self.point = self._fitting(point)
        return self

    def _fitting(self, point: str | Point) -> Point:
        """A Point, or the one of a name, if the model can keep it."""
        if not isinstance(point, str | Point):
            raise InputError(f"point {point!r}: give a Point, or the name of one")
        chosen = self._named(point) if isinstance(point, str) else point
        check_point(chosen, self.config.form())
        if chosen.precision not in (None, self.precision):
            raise PlanError(
                f"point {chosen.name!r} is for {chosen.precision}, and this model runs in {self.precision}; "
                "load it in that precision, or use another point"
            )
        if chosen.exits is not None:
            check_rule(chosen.exits, self._judges())
        return chosen

    def _judges(self) -> str:
        """What its exits judge, as `check_rule` calls it; each kind of model says its own."""
        raise NotImplementedError

    def _named(self, name: str) -> Point:
        points = self.config.choices()
        if name not in points:
            raise PlanError(f"no point named {name!r}; this model has {', '.join(points)}")
        return points[name]
