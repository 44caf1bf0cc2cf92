"""The template file: complete, telling sub-tasks apart, and open to a user's own."""

from __future__ import annotations

import numpy as np
import pytest
import yaml

from uqabench.errors import InputError
from uqabench.questions.kinds import ASKED, KIND_INDEX, KINDS, kinds
from uqabench.questions.render import format_question, render
from uqabench.questions.scoring import detect_subtask
from uqabench.questions.templates import Templates


def write(tmp_path, text):
    path = tmp_path / "own.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_both_languages_have_three_phrasings_of_every_kind():
    languages = Templates.load().languages
    assert set(languages) == {"en", "zh"}
    for language in languages.values():
        assert len(language.phrasings) == len(language.instructions) == len(KINDS)
        for phrasings in language.phrasings:
            assert len(phrasings) == len(set(phrasings)) >= 3


def test_several_answers_come_with_an_instruction():
    for language in Templates.load().languages.values():
        for kind, instruction in zip(KINDS, language.instructions, strict=True):
            assert bool(instruction) == kind.ordered


def test_chinese_phrasings_tell_the_sub_task(grocery, grocery_train):
    said = set()
    language = Templates.load().languages["zh"]
    for i in range(len(grocery_train)):
        kind = int(grocery_train.kind[i])
        rendered = render(grocery_train, i, grocery.catalogue, "zh")
        assert detect_subtask(rendered.question) == KINDS[kind].subtask
        assert detect_subtask(rendered.question + rendered.instruction) == KINDS[kind].subtask
        said.add((kind, int(grocery_train.template[i]) % len(language.phrasings[kind])))
    assert len(said) == sum(len(language.phrasings[KIND_INDEX[kind.name]]) for kind in kinds("v1"))


def test_a_file_of_ones_own_replaces_single_kinds(tmp_path, grocery, grocery_train):
    path = write(tmp_path, "en: {kinds: {ip_next: {phrasings: ['And then?']}}, words: {answer: 'So:'}}")
    own = Templates.load(path)
    assert own.digest != Templates.load().digest and own.digest == Templates.load(path).digest
    i = int(np.flatnonzero(grocery_train.subtask == 2)[0])
    rendered = render(grocery_train, i, grocery.catalogue, "en", own)
    assert (rendered.question, rendered.cue) == ("And then?", "So:")
    assert own.languages["zh"] == Templates.load().languages["zh"]


def test_a_new_language_needs_everything(tmp_path):
    with pytest.raises(InputError, match=r"fr.words is missing"):
        Templates.load(write(tmp_path, "fr: {kinds: {}}"))
    languages = yaml.safe_load(write(tmp_path, FRENCH).read_text())
    assert "fr" in Templates.load(write(tmp_path, yaml.safe_dump(languages))).languages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("en: {kinds: {df_first: {phrasings: [a]}}}", r"en.kinds has the unknown entry 'df_first'"),
        ("en: {kinds: {ap_next: {phrasings: ['Next?']}}}", r"en.kinds.ap_next, phrasing 1 lacks .*\{attribute\}"),
        ("zh: {kinds: {ap_next: {phrasings: ['{attribut}']}}}", r"zh.kinds.ap_next, phrasing 1 .*\{attribut\}"),
        ("en: {kinds: {df_last: {phrasings: ['{attribute} {n}']}}}", r"df_last, phrasing 1 has the unknown .*\{n\}"),
        ("en: {kinds: {df_last: {phrasings: ['{attribute}']}}}", r"df_last, phrasing 1 lacks .*\{k\} or \{recency\}"),
        ("en: {kinds: {ip_next: {phrasings: ['Next {']}}}", r"ip_next, phrasing 1 has unbalanced braces"),
        ("en: {kinds: {ip_next: {phrasings: []}}}", r"ip_next.phrasings must list at least one"),
        ("en: {kinds: {ip_next: {phrasings: [3]}}}", r"ip_next, phrasing 1 must be a text"),
        ("en: {kinds: {ip_next: {instruction: '{k}'}}}", r"ip_next.instruction has the unknown placeholder"),
        ("en: {words: {option: '{text}'}}", r"en.words.option lacks the placeholder \{letter\}"),
        ("en: {words: {attribute: {brand: 7}}}", r"en.words.attribute has no text for 'brand'"),
        ("en: {words: {colon: x}}", r"en.words has the unknown entry 'colon'"),
        ("en: {words: {took: {click: saw}}}", r"en.words.took has no text for 'purchase'"),
        (
            "en: {kinds: {ip_next: {phrasings: ['{took}']}}}",
            r"ip_next, phrasing 1 has the unknown placeholder \{took\}",
        ),
        ("en: {kinds: {ip_natural: {phrasings: ['x']}}}", r"en.kinds has the unknown entry 'ip_natural'"),
        ("en: 5", r"own.yaml: en is missing or no mapping"),
        ("[1, 2", r"own.yaml is not readable YAML"),
        ("- 1", r"own.yaml holds no languages"),
    ],
)
def test_faults_of_a_template_file_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        Templates.load(write(tmp_path, text))


@pytest.mark.parametrize(
    "field",
    ["attribute:d", "attribute:>{x}", "attribute:>999999999", "attribute!r", "attribute.x", "attribute[0]", "0", ""],
)
def test_a_placeholder_is_a_name_and_nothing_else(tmp_path, field):
    """Python's format fields could read attributes, fail at the first question, or fill the memory with blanks."""
    own = yaml.safe_dump({"en": {"kinds": {"ap_next": {"phrasings": ["{attribute}", f"{{attribute}} {{{field}}}"]}}}})
    with pytest.raises(InputError) as error:
        Templates.load(write(tmp_path, own))
    assert f"own.yaml: en.kinds.ap_next, phrasing 2 has the placeholder {{{field}}}, which is more" in str(error.value)


def test_placeholders_of_words_are_names_too(tmp_path):
    with pytest.raises(
        InputError, match=r"en.words.option has the placeholder \{letter:>9\}, which is more than a name"
    ):
        Templates.load(write(tmp_path, "en: {words: {option: '{letter:>9} {text}'}}"))


def test_a_doubled_brace_is_a_brace_everywhere(tmp_path, grocery, grocery_train):
    kind = {"instruction": "{{old}} first", "phrasings": ["{{{k}}} {attribute}"]}
    words = {"answer": "{{go}}", "list_separator": " {{}} "}
    own = Templates.load(write(tmp_path, yaml.safe_dump({"en": {"words": words, "kinds": {"df_list": kind}}})))
    i = int(np.flatnonzero(grocery_train.kind == KIND_INDEX["df_list"])[0])
    rendered = render(grocery_train, i, grocery.catalogue, "en", own)
    assert rendered.question.startswith(f"{{{grocery_train.params[i, 0]}}} ")
    assert (rendered.instruction, rendered.cue) == ("{old} first", "{go}")
    assert all(" {} " in option for option in rendered.options)


def test_a_missing_template_file_is_named(tmp_path):
    with pytest.raises(InputError, match="absent.yaml does not exist"):
        Templates.load(tmp_path / "absent.yaml")


FRENCH = """
fr:
  words:
    attribute: {title: titre, category: rayon, brand: marque, shop: magasin}
    recency: {1: dernier, 2: avant-dernier, 3: antépénultième}
    ordinal: "n° {n}"
    list_separator: ", "
    path_separator: " → "
    no_change: "{value} (constant)"
    option: "{letter}) {text}"
    answer: "Réponse :"
    item_separator: " | "
  kinds:
    df_last: {phrasings: ["Quel est le {attribute} de l'{recency} article ?"]}
    df_nth: {phrasings: ["Quel est le {attribute} de l'article {ordinal} ?"]}
    df_list: {phrasings: ["{attribute} des {k} derniers articles ?"]}
    mf_count: {phrasings: ["Combien d'articles ont {attribute} = {value} ?"]}
    mf_length: {phrasings: ["Combien d'articles ?"]}
    ip_next: {phrasings: ["Quel article suit ?"]}
    ap_next: {phrasings: ["Quel {attribute} suit ?"]}
    li_top3: {phrasings: ["Les 3 {attribute} les plus fréquents ?"]}
    si_recent: {phrasings: ["{attribute} le plus fréquent des {window} derniers ?"]}
    it_path: {phrasings: ["Évolution du {attribute} ?"]}
    df_position: {phrasings: ["{attribute} de l'article {n} des {length} derniers ?"]}
    df_basket: {phrasings: ["Quel {attribute} est dans l'{recency} panier ?"]}
    it_baskets: {phrasings: ["Évolution du {attribute} par paniers ?"]}
"""


def test_the_new_language_speaks(tmp_path, grocery, grocery_train):
    own = Templates.load(write(tmp_path, FRENCH))
    i = int(np.flatnonzero((grocery_train.kind == KIND_INDEX["df_last"]) & (grocery_train.params[:, 0] == 2))[0])
    rendered = render(grocery_train, i, grocery.catalogue, "fr", own)
    word = own.languages["fr"].words["attribute"][ASKED[grocery_train.attribute[i]]]
    assert rendered.question == f"Quel est le {word} de l'avant-dernier article ?"
    assert format_question(rendered).splitlines()[1].startswith("A) ")
