"""Classes by name: built-in ones, those that packages add, and any `package.module:Class`."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from uqabench.errors import InputError, nearest
from uqabench.objects import import_object

T = TypeVar("T", bound=type)


class Registry(Generic[T]):
    """The classes of one kind, e.g. "encoder". A package declares its own as entry points of `group`:
    `name = "package.module:Class"`."""

    def __init__(self, kind: str, group: str) -> None:
        self.kind, self.group = kind, group
        self.classes: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Class decorator that makes a class known as `name` in this process.

        Raises InputError when another class has the name.
        """

        def add(cls: T) -> T:
            taken = self.classes.setdefault(name, cls)
            if (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
                raise InputError(
                    f"The {self.kind} name '{name}' belongs to {taken.__module__}:{taken.__qualname__}: "
                    f"register {cls.__qualname__} under another name."
                )
            self.classes[name] = cls
            return cls

        return add

    def names(self) -> tuple[str, ...]:
        """Every name that `find` knows, sorted: built-in, registered, and declared as entry points."""
        return tuple(sorted({*self.classes, *self._entry_points()}))

    def find(self, name: str) -> T:
        """The class called `name`, or `package.module:Class`; InputError where there is none, or its import fails."""
        if ":" in name:
            return import_object(name, self.kind)
        if name in self.classes:
            return self.classes[name]
        points = self._entry_points()
        if name not in points:
            raise InputError(
                f"The {self.kind} '{name}' is unknown{nearest(name, self.names())}: choose one of "
                f"{', '.join(self.names())}, or give your own class as package.module:Class."
            )
        return import_object(points[name].value, self.kind)

    def _entry_points(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.group)}


def reason(error: Exception) -> str:
    """An exception in one line: its type and what it says."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}".rstrip(". ")
