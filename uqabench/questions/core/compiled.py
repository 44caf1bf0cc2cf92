"""What all compiled code of question generation shares; `entries` makes the functions that Python calls."""

from __future__ import annotations

from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

inner = numba.njit(nogil=True, forceinline=True)
"""The decorator of compiled functions that only compiled functions call.

They become part of their caller: a call would count references to every array it passes, thirty of them in `Context`,
which is most of what a candidate costs.
"""


@intrinsic
def borrowed(typing_context, value):
    """The same array, or the same (named) tuple of arrays and numbers, for code that counts no references to it.

    A function that is passed `Context` counts a reference to each array when it begins and when it ends, by an atomic
    operation: hundreds a candidate, which would take most of its time. Whoever borrows has to keep the original in use
    for as long, since compiled code lets go of an array after the last line that names it.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _without_owner(context, builder, signature.args[0], arguments[0])

    return value(value), code


def _without_owner(context: Any, builder: Any, kind: types.Type, value: ir.Value) -> ir.Value:
    if isinstance(kind, types.Array):
        array = make_array(kind)(context, builder, value)
        array.meminfo = ir.Constant(array.meminfo.type, None)
        array.parent = ir.Constant(array.parent.type, None)
        return array._getvalue()
    if isinstance(kind, types.BaseTuple):
        parts = cgutils.unpack_tuple(builder, value)
        own = [_without_owner(context, builder, each, part) for each, part in zip(kind.types, parts, strict=True)]
        return context.make_tuple(builder, kind, own)
    return value
