"""Public logs in exactly the form that their sites distribute, written by hand."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from uqabench.cli import main
from uqabench.data import open_source
from uqabench.data.log import RawLog
from uqabench.data.rejections import Rejections
from uqabench.data.sources.recipe import load_recipe, packaged_recipes
from uqabench.errors import InputError

SECONDS = 1_000_000


def read(name: str, folder: Path) -> tuple[list[tuple], dict[str, tuple], dict[str, int]]:
    """(interactions as (user, item, microseconds, action), items as id -> attributes, rejected rows)."""
    rejections = Rejections()
    log: RawLog = open_source(name, folder).read(rejections)
    users, items = log.user_ids.to_pylist(), log.item_ids.to_pylist()
    times = [None] * len(log.users) if log.times is None else log.times.tolist()
    actions = [None] * len(log.users) if log.actions is None else [log.action_names[code] for code in log.actions]
    rows = [(users[u], items[i], t, a) for u, i, t, a in zip(log.users, log.items, times, actions, strict=True)]
    attributes = {name: column.to_pylist() for name, column in log.attributes.items()}
    described = {item: {n: column[i] for n, column in attributes.items() if column[i]} for i, item in enumerate(items)}
    return rows, described, rejections.summary()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def writes(name: str, content: str | bytes) -> Path:
        path = tmp_path / "log" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return tmp_path / "log"

    return writes


def test_taobao(write):
    folder = write("UserBehavior.csv", "1,2268318,2520377,pv,1511544070\n1,2333346,2520771,cart,1511561733\n"
                   "2,2268318,2520377,buy,1511572885\n3,2268318,7,pv,1511572886\n")  # fmt: skip
    rows, items, bad = read("taobao-user-behavior", folder)
    assert rows[0] == ("1", "2268318", 1511544070 * SECONDS, "pv") and len(rows) == 4 and not bad
    assert [action for *_, action in rows] == ["pv", "cart", "buy", "pv"]
    assert items == {"2268318": {"category": "2520377"}, "2333346": {"category": "2520771"}}


REVIEW = {
    "rating": 5.0, "title": "Great", "text": "nice \u2028 one", "images": [{"small": "x"}], "asin": "B1",
    "parent_asin": "B00", "user_id": "AE2", "timestamp": 1588687728923, "helpful_vote": 0, "verified_purchase": True,
}  # fmt: skip
META = {
    "main_category": "All Beauty", "title": "Howard LC0008", "average_rating": 4.8, "features": [], "price": None,
    "store": "Howard Products", "categories": ["Beauty", "Hair Care", "Shampoo"], "details": {"Weight": "7 oz"},
    "parent_asin": "B00", "bought_together": None,
}  # fmt: skip


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_amazon(write, suffix):
    reviews = [REVIEW, {**REVIEW, "user_id": "AE3", "rating": 1.0}, {**REVIEW, "parent_asin": "B02"}]
    write(f"All_Beauty.jsonl{suffix}", "\n".join(map(json.dumps, reviews)) + '\n{"user_id": "AE4", "par\nnull\n\n')
    bare = {**META, "parent_asin": "B01", "categories": [], "title": "", "store": None, "price": "from 7.99"}
    folder = write(f"meta_All_Beauty.jsonl{suffix}", json.dumps(META) + "\n" + json.dumps(bare))
    rows, items, bad = read("amazon-2023", folder)
    assert rows[0] == ("AE2", "B00", 1588687728923000, "5") and rows[1][3] == "1" and len(rows) == 3
    assert bad == {"malformed row": 2}
    assert items["B00"] == {
        "title": "Howard LC0008", "category": "Shampoo", "brand": "Howard Products", "shop": "All Beauty"
    }  # fmt: skip
    assert items["B02"] == {} and items["B01"] == {"shop": "All Beauty"}


def test_amazon_as_csv(write):
    folder = write("All_Beauty.csv", "user_id,parent_asin,rating,timestamp\nA,B00,5.0,1588687728923\n")
    write("meta_All_Beauty.jsonl", json.dumps(META))
    rows, items, _ = read("amazon-2023", folder)
    assert rows == [("A", "B00", 1588687728923000, "5")] and items["B00"]["title"] == "Howard LC0008"


def test_movielens_1m(write):
    write("ml-1m/ratings.dat", "1::1193::5::978300760\n1::661::3::978302109\n2::1193\n2::1193::4::978298413\n")
    folder = write("ml-1m/movies.dat", "661::James and the Giant Peach (1996)::Animation|Children's\n"
                   "1193::Mis\xe9rables, Les (1995)::Drama\n".encode("latin-1"))  # fmt: skip
    rows, items, bad = read("movielens-1m", folder)
    assert rows[0] == ("1", "1193", 978300760 * SECONDS, "5") and len(rows) == 3 and bad == {"malformed row": 1}
    assert items["661"] == {"title": "James and the Giant Peach (1996)", "category": "Animation"}
    assert items["1193"]["title"] == "Misérables, Les (1995)"


@pytest.mark.parametrize("name", ["movielens-20m", "movielens-32m"])
def test_movielens_csv(write, name):
    write("ratings.csv", "userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,4.0,1112484676\n")
    folder = write("movies.csv", 'movieId,title,genres\n2,"American President, The (1995)",Comedy|Drama\n'
                   "29,Untitled,(no genres listed)\n")  # fmt: skip
    rows, items, _ = read(name, folder)
    assert rows == [("1", "2", 1112486027 * SECONDS, "3.5"), ("1", "29", 1112484676 * SECONDS, "4")]
    assert items == {
        "2": {"title": "American President, The (1995)", "category": "Comedy"},
        "29": {"title": "Untitled"},
    }


def test_yelp(write):
    review = {"review_id": "r", "user_id": "u", "business_id": "b", "stars": 3.0, "date": "2018-07-07 22:09:11"}
    write("yelp_academic_dataset_review.json", json.dumps(review) + "\n")
    business = {"business_id": "b", "name": "St Honore Pastries", "city": "Philadelphia", "categories": "Food, Tea"}
    folder = write("yelp_academic_dataset_business.json", json.dumps(business) + "\n")
    rows, items, _ = read("yelp", folder)
    assert rows == [("u", "b", 1531001351 * SECONDS, "3")]
    assert items == {"b": {"title": "St Honore Pastries", "category": "Food", "shop": "Philadelphia"}}


def test_steam(write):
    review = {"username": "Chaos Syren", "product_id": "725280", "hours": 0.1, "date": "2017-12-17", "text": "it's"}
    write("steam_reviews.json.gz", repr(review) + "\n" + "__import__('os')\n")
    game = {"id": "725280", "app_name": "Kart", "genres": ["Action", "Indie"], "developer": "K", "publisher": "P"}
    folder = write("steam_games.json.gz", "{u'id': u'1', u'app_name': u'Caf\\xe9'}\n" + repr(game) + "\n")
    rows, items, bad = read("steam", folder)
    assert rows == [("Chaos Syren", "725280", 1513468800 * SECONDS, None)] and bad == {"malformed row": 1}
    assert items["725280"] == {"title": "Kart", "category": "Action", "brand": "K", "shop": "P"}
    assert items["1"] == {"title": "Café"}


def test_yoochoose(write):
    folder = write(
        "yoochoose-clicks.dat", "1,2014-04-07T10:51:09.277Z,214536502,0\n1,2014-04-07T10:54:09.868Z,214536500,S\n"
    )
    rows, items, _ = read("yoochoose", folder)
    assert rows[0] == ("1", "214536502", 1396867869277000, None)
    assert items == {"214536500": {"category": "S"}, "214536502": {}}


def test_retailrocket(write):
    write("events.csv", "timestamp,visitorid,event,itemid,transactionid\n1433221332117,257597,view,355908,\n"
          "1433223236124,257597,transaction,15,4000\n")  # fmt: skip
    write("item_properties_part1.csv", "timestamp,itemid,property,value\n1435460400000,355908,categoryid,1338\n"
          "1441508400000,355908,888,1116713 960601 n277.200\n")  # fmt: skip
    folder = write("item_properties_part2.csv", "timestamp,itemid,property,value\n1439089200000,15,categoryid,9\n"
                   "1438089200000,15,categoryid,8\n")  # fmt: skip
    rows, items, _ = read("retailrocket", folder)
    assert rows[1] == ("257597", "15", 1433223236124000, "transaction")
    assert items == {"355908": {"category": "1338"}, "15": {"category": "9"}}


def test_kuairec(write):
    write("data/big_matrix.csv", "user_id,video_id,play_duration,video_duration,time,date,timestamp,watch_ratio\n"
          "0,3649,13838,10867,2020-07-05 00:08:23.438,20200705,1593878903.438,1.27\n")  # fmt: skip
    write("data/small_matrix.csv", "user_id,video_id,timestamp\n0,1,1.0\n")
    folder = write("data/kuairec_caption_category.csv",
                   "video_id,manual_cover_text,caption,topic_tag,first_level_category_id,first_level_category_name,"
                   "second_level_category_id,second_level_category_name\n"
                   '3649,UNKNOWN,"精神小伙\n路难走",[],8,颜值,673,UNKNOWN\n')  # fmt: skip
    rows, items, _ = read("kuairec", folder)
    assert rows == [("0", "3649", 1593878903438000, None)]
    assert items["3649"]["category"] == "颜值" and "brand" not in items["3649"]
    assert "精神小伙" in items["3649"]["title"]


def test_recbole(write):
    write("ml.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n")
    folder = write("ml.item", "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
                   "242\tKolya \"x\t1996\tComedy Drama\n")  # fmt: skip
    rows, items, _ = read("recbole", folder)
    assert rows == [("196", "242", 881250949 * SECONDS, "3")]
    assert items == {"242": {"title": 'Kolya "x', "category": "Comedy"}}


def test_a_recipe_of_ones_own_is_one_file(write, tmp_path, capsys):
    recipe = tmp_path / "shop.yaml"
    recipe.write_text(
        "title: My shop\nurl: https://example.org\ndownload: log.txt\nlicence: mine.\ncitation: nothing.\n"
        "interactions:\n  - files: [log.txt]\n    format: {kind: delimited, delimiter: ' | ', header: [who, what]}\n"
        "    columns: {user: who, item: what}\n"
    )
    folder = write("log.txt", "".join(f"u{u} | i{(u + t) % 8}\n" for u in range(10) for t in range(8)))
    assert main(["prepare", str(recipe), "--path", str(folder), "--out", str(tmp_path / "store"), "--quiet"]) == 0
    assert "My shop: mine." in capsys.readouterr().out
    recipe.write_text(recipe.read_text().replace("what}", "what, colour: who}"))
    with pytest.raises(InputError, match="'colour' is no field"):
        open_source(str(recipe), folder)
    recipe.write_text("title: My shop\n")
    with pytest.raises(InputError, match="url"):
        open_source(str(recipe), folder)


def test_what_is_missing_is_named_with_the_place_to_get_it(tmp_path, capsys):
    assert main(["prepare", "amazon-2023", "--out", str(tmp_path / "out")]) == 2
    assert "download the reviews" in (said := capsys.readouterr().err) and "amazon-reviews-2023" in said
    (tmp_path / "log").mkdir()
    assert main(["prepare", "yelp", "--path", str(tmp_path / "log"), "--out", str(tmp_path / "out")]) == 2
    assert "holds no file of interactions (yelp_academic_dataset_review.json" in capsys.readouterr().err


def test_sources_are_listed_with_licence_and_place(capsys):
    assert main(["sources"]) == 0
    said = capsys.readouterr().out
    for name in packaged_recipes():
        recipe = load_recipe(name)
        assert all(recipe[field] for field in ("title", "url", "download", "licence", "citation"))
        assert f"{name}: {recipe['title']}" in said and recipe["url"] in said and recipe["citation"] in said
    assert len(packaged_recipes()) == 11


def test_unpacking_is_bounded(write, monkeypatch):
    from uqabench.data.sources import packed

    folder = write("All_Beauty.jsonl.gz", " " * 2**22 + "\n")
    write("meta_All_Beauty.jsonl.gz", json.dumps(META))
    monkeypatch.setattr(packed, "_FREE", 2**16)
    with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
        read("amazon-2023", folder)
