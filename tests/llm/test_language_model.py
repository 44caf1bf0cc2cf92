"""The chat around a question, the letters' token ids, and the guard against a foreign split."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from uqabench.errors import InputError
from uqabench.llm.demo import CHAT_TEMPLATE, SmallLMConfig, new_model, train_tokenizer
from uqabench.llm.language_model import LanguageModel
from uqabench.vocabulary import LETTERS

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# The turn has a blank before the answer that the generation prompt lacks (as Llama 2's), or another beginning.
BLANK = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}"
    "{% else %}{{ '[INST] ' + (m.content | trim) + ' [/INST]' }}{% endif %}{% endfor %}"
)
THINKING = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|assistant|><think></think>' + m.content }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
TEXTS = ["one two three", "four five six"] * 4


def language_model(template, texts=TEXTS):
    tokenizer = train_tokenizer(texts, 400)
    tokenizer.chat_template = template
    model = new_model(SmallLMConfig(width=16, layers=1, heads=2, inner=16), tokenizer, seed=0)
    return LanguageModel("probe", model, tokenizer)


def test_the_letters_ids_are_what_follows_the_prompt(make_lm):
    lm = make_lm()
    prompt = lm.prompt_text("Which?\nA. x\nB. y")
    for letter, ids in zip(LETTERS, lm.answer_ids, strict=True):
        chat = [{"role": "user", "content": "Which?\nA. x\nB. y"}, {"role": "assistant", "content": letter}]
        whole = lm.tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"]
        assert lm.encode([prompt])[0] + ids == whole
    assert lm.letter_ids.tolist() == [ids[0] for ids in lm.answer_ids]
    assert [lm.tokenizer.decode([i]) for i in lm.letter_ids] == list(LETTERS)


def test_a_template_with_a_newline_after_each_turn():
    lm = language_model(CHATML)
    assert lm.chat_before == "<|im_start|>user\n" and lm.chat_after == "<|im_end|>\n<|im_start|>assistant\n"
    assert [lm.tokenizer.decode(ids) for ids in lm.answer_ids] == [letter + "<|im_end|>" for letter in LETTERS]


def test_a_blank_before_the_answer_is_part_of_the_letters_token():
    lm = language_model(BLANK, TEXTS + [f" {letter}" for letter in LETTERS] * 20)
    assert [lm.tokenizer.decode([i]) for i in lm.letter_ids] == [" A", " B", " C", " D"]
    assert lm.tokenizer.decode(lm.answer_ids[1]) == " B <|end|>"
    assert lm.prompt_text("x") == "[INST] x [/INST]"


def test_a_blank_that_is_a_token_of_its_own_ends_the_prompt():
    lm = language_model(BLANK)
    assert [lm.tokenizer.decode([i]) for i in lm.letter_ids] == list(LETTERS)
    assert lm.prompt_text("x") == "[INST] x [/INST] "
    chat = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "C"}]
    whole = lm.encode([lm.tokenizer.apply_chat_template(chat, tokenize=False)])[0]
    assert lm.encode([lm.prompt_text("x")])[0] + lm.answer_ids[2] == whole


def test_what_a_template_writes_before_an_answer_is_part_of_the_prompt():
    lm = language_model(THINKING)
    assert lm.prompt_text("x") == "x<|assistant|><think></think>"
    assert [lm.tokenizer.decode(ids) for ids in lm.answer_ids] == list(LETTERS)


@pytest.mark.parametrize(
    ("opened", "closed"),
    [("<think>\n", "<think>\n\n</think>\n\n"), ("[THINK]", "[THINK]\n\n[/THINK]\n\n")],
)
def test_a_thought_that_the_prompt_opens_is_closed_and_empty(opened, closed):
    template = (
        "{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: OPEN' }}{% endif %}"
    )
    lm = language_model(template.replace("OPEN", opened.replace("\n", "\\n")))
    assert lm.prompt_text("x") == "user: x<|end|>assistant: " + closed
    assert [lm.tokenizer.decode(ids) for ids in lm.answer_ids] == [letter + "<|end|>" for letter in LETTERS]


def test_template_arguments_reach_the_template_and_their_names_are_checked():
    template = CHATML.replace("assistant\n' }}", "assistant\n' + ('' if thinking else 'short ') }}")
    plain = language_model(CHATML)
    with_argument = LanguageModel("probe", plain.model, plain.tokenizer)
    plain.tokenizer.chat_template = template
    for thinking, end in ((True, "assistant\n"), (False, "assistant\nshort ")):
        lm = LanguageModel("probe", plain.model, plain.tokenizer, template_args={"thinking": thinking})
        assert lm.prompt_text("x").endswith(end)
    assert with_argument.prompt_text("x").endswith("assistant\n")
    for name, message in (("thinkin", "has no such argument"), ("messages", "set by uqabench itself")):
        with pytest.raises(InputError, match=rf"llm\.template_args\.{name}.*{message}"):
            LanguageModel("probe", plain.model, plain.tokenizer, template_args={name: True})


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}{{ m.content }}", r"cannot be used \(TemplateSyntaxError"),
        ("{{ messages[7].content }}", r"cannot be used \(UndefinedError"),
        ("{{ 1 / 0 }}", r"cannot be used \(ZeroDivisionError"),
    ],
)
def test_a_template_that_fails_is_one_sentence(template, message):
    with pytest.raises(InputError, match=message):
        language_model(template)


def test_a_template_that_refuses_a_system_message_says_so():
    template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHATML
    lm = language_model(template)
    with pytest.raises(InputError, match=r"takes no system message \(no system role\): leave llm.system empty"):
        LanguageModel("probe", lm.model, lm.tokenizer, system="Be brief.")


def test_the_chat_tells_one_day_from_another():
    dated = "{{ date_string if date_string else '1 May' }}" + CHATML
    lm = language_model(dated)
    later = LanguageModel("probe", lm.model, lm.tokenizer, template_args={"date_string": "2 May"})
    assert lm.chat.to_dict() != later.chat.to_dict()
    same = LanguageModel("probe", lm.model, lm.tokenizer, chat=lm.chat)
    assert same.prompt_text("x") == lm.prompt_text("x") and same.answer_ids == lm.answer_ids


@pytest.mark.parametrize("content", ["[1]", '{"split_hash": 7}', '"text"'])
def test_a_card_of_the_wrong_type_is_named(tmp_path, make_lm, content):
    lm = make_lm()
    lm.model.save_pretrained(tmp_path)
    lm.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "card.json").write_text(content)
    with pytest.raises(InputError, match=r"card\.json is no card of a language model"):
        LanguageModel.load(tmp_path)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_letters_logits_are_those_of_float32(make_lm, dtype):
    lm = make_lm()
    lm.model.to(dtype)
    hidden = torch.randn(50, lm.width).to(dtype)
    exact = hidden.double() @ lm.model.get_output_embeddings().weight.detach().double().T
    got = lm.letter_logits(hidden)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, exact[:, lm.letter_ids].float(), rtol=1e-5, atol=1e-4)
    assert lm.logits(hidden).dtype == dtype  # the model's own head is as it was


def test_soft_tokens_are_as_large_as_what_the_embedding_module_returns(make_lm):
    from transformers.models.gemma3.modeling_gemma3 import Gemma3TextScaledWordEmbedding

    lm = make_lm()
    assert lm.embedding_scale == 1.0 and lm.token_rms == lm.table_rms
    table = lm.model.get_input_embeddings().weight
    scaled = Gemma3TextScaledWordEmbedding(*table.shape, None, embed_scale=5.0)
    scaled.weight = table
    lm.model.set_input_embeddings(scaled)
    given = scaled(torch.arange(len(table))).detach().square().mean().sqrt()
    assert lm.token_rms == pytest.approx(float(given), rel=1e-5) == pytest.approx(5 * lm.table_rms, rel=1e-5)


def test_a_prompt_beyond_the_positions_names_both(make_lm):
    lm = make_lm()
    lm.model.config.max_position_embeddings = 96
    lm.check_prompts(95, "text20")
    with pytest.raises(InputError, match=r"text50: the longest prompt has 97 tokens with its answer, more than the 96"):
        lm.check_prompts(96, "text50")


def test_a_system_message_stands_before_the_question(make_lm):
    plain = make_lm()
    lm = LanguageModel("probe", plain.model, plain.tokenizer, system="Be brief.")
    assert lm.prompt_text("Q?") == "<|system|>Be brief.<|user|>Q?<|assistant|>"
    assert plain.prompt_text("Q?") == "<|user|>Q?<|assistant|>"
    assert lm.letter_ids.tolist() == plain.letter_ids.tolist()


def test_a_template_without_the_users_message_is_refused():
    with pytest.raises(InputError, match="drops the user's message"):
        language_model("{{ 'hello' }}")


def test_letters_that_begin_alike_are_refused():
    tokenizer = train_tokenizer(TEXTS, 400)
    template = "{% for m in messages %}{{ m.role[0] + m.content }}{% endfor %}{{ 'a' if add_generation_prompt }}"
    as_unknown = json.loads(tokenizer.backend_tokenizer.to_str())
    as_unknown["normalizer"] = {"type": "Replace", "pattern": {"Regex": "[A-D]"}, "content": "x"}
    blind = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer.from_str(json.dumps(as_unknown)), eos_token="<|end|>"
    )
    blind.chat_template = template
    model = new_model(SmallLMConfig(width=16, layers=1, heads=2, inner=16), tokenizer, seed=0)
    with pytest.raises(InputError, match="two answer letters the same first token"):
        LanguageModel("blind", model, blind)


def test_a_model_of_another_split_is_refused(make_lm):
    lm = make_lm()
    lm.check_split("a" * 64)  # no card: nothing is known of its training
    lm.card["split_hash"] = "a" * 64
    lm.check_split("a" * 64)
    with pytest.raises(
        InputError, match=r"another split \(aaaaaaaaaaaa…, the data has bbbbbbbbbbbb…\).*llm.name=train"
    ):
        lm.check_split("b" * 64)


def test_questions_about_evaluation_users_may_be_put_to_a_model_that_knows_all_others(make_lm):
    lm = make_lm()
    lm.card["split_hash"] = "a" * 64  # trained on whoever does not evaluate, validation users among them
    lm.check_split("b" * 64, "a" * 64)
    with pytest.raises(InputError, match="another split"):
        lm.check_split("b" * 64)  # the questions are about validation users
    lm.card |= {"split_hash": "c" * 64, "evaluation_hash": "d" * 64}
    lm.check_split("b" * 64, "d" * 64)
    lm.check_split("c" * 64)
    for evaluation in (None, "c" * 64):
        with pytest.raises(InputError, match="another split"):
            lm.check_split("b" * 64, evaluation)


def test_load_reads_the_card_and_says_what_is_missing(tmp_path, make_lm):
    lm = make_lm()
    lm.model.save_pretrained(tmp_path / "model")
    lm.tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "card.json").write_text('{"split_hash": "abc"}')
    loaded = LanguageModel.load(tmp_path / "model")
    assert loaded.card == {"split_hash": "abc"} and loaded.answer_ids == lm.answer_ids
    assert loaded.width == 32 and loaded.device == torch.device("cpu")
    ids = torch.tensor([lm.encode(["one two"])[0]])
    torch.testing.assert_close(loaded.model(ids).logits, lm.model(ids).logits)
    with pytest.raises(InputError, match="nowhere.*does not exist"):
        LanguageModel.load(tmp_path / "nowhere")


def test_chat_template_of_small_models_is_the_shortest():
    assert "<|user|>" not in CHAT_TEMPLATE  # built from the role, so a system message needs no second branch
    lm = language_model(CHAT_TEMPLATE)
    assert len(lm.encode([lm.prompt_text("")])[0]) == 2
