"""The small language model: tokenizer round trips, folder round trips, shapes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from uqabench.errors import InputError
from uqabench.llm.demo import SPECIAL_TOKENS, SmallLMConfig, in_stored_format, new_model, save_model, train_tokenizer
from uqabench.llm.sources import load_language_model

TEXTS = [
    "FLUID MILK PRODUCTS",
    "FLUID MILK PRODUCTS | DAIRY | National",
    "Which category is the most frequent?\nA. FLUID MILK PRODUCTS\nB. BEEF\nC. EGGS\nD. TEA",
    "用户最感兴趣的3个类目是什么？\nA. 牛奶\nB. 鸡蛋",
] * 3


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS, 600)


@given(st.text(max_size=60))
@example("用户近期最感兴趣的品牌是什么？ → 无变化")
@example('a  b\t\nA. B. C. | ; , ("é\u0301\u2028\U0001f600')
@example(" A")
def test_text_but_the_separator_of_fields_survives_the_round_trip(tokenizer, text):
    if any(special in text for special in SPECIAL_TOKENS):
        return
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text.replace(" | ", "")


def test_a_frequent_value_is_one_token_but_never_crosses_an_option(tokenizer):
    def pieces(text):
        return [tokenizer.decode([i]) for i in tokenizer(text, add_special_tokens=False)["input_ids"]]

    assert pieces("FLUID MILK PRODUCTS") == ["FLUID MILK PRODUCTS"]
    assert "FLUID MILK PRODUCTS" in pieces("A. FLUID MILK PRODUCTS\nB. BEEF")
    assert "用户最感兴趣的3个类目是什么？" in pieces("用户最感兴趣的3个类目是什么？")


def test_equal_texts_make_equal_tokenizers(tokenizer):
    again = train_tokenizer(iter(TEXTS), 600)
    assert again.get_vocab() == tokenizer.get_vocab()
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


def test_a_saved_model_reads_and_answers_the_same(tmp_path, tokenizer):
    model = new_model(SmallLMConfig(width=16, layers=1, heads=2, inner=32), tokenizer, seed=3).eval()
    save_model(model, tokenizer, tmp_path / "model")
    loaded, its_tokenizer = load_language_model(tmp_path / "model")
    chat = [{"role": "user", "content": TEXTS[2]}, {"role": "assistant", "content": "A"}]
    for text in [*TEXTS, tokenizer.apply_chat_template(chat, tokenize=False), "  blanks  \n\n", "→"]:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert its_tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        with torch.no_grad():
            assert torch.equal(model(torch.tensor([ids])).logits, loaded(torch.tensor([ids])).logits)
    assert its_tokenizer.chat_template == tokenizer.chat_template
    assert its_tokenizer.eos_token == "<|end|>" and its_tokenizer.pad_token == "<|pad|>"
    assert loaded.config.tie_word_embeddings and loaded.config.model_type == "qwen2"


@pytest.mark.parametrize("offline", [False, True])
def test_a_folder_says_nothing_of_how_its_model_was_loaded(tmp_path, tokenizer, offline):
    """Saved again, a loaded model gives the same bytes, online or offline: later stages are keyed by them."""
    model = new_model(SmallLMConfig(width=16, layers=1, heads=2, inner=32), tokenizer, seed=3)
    save_model(model, tokenizer, tmp_path / "a")
    loaded, its_tokenizer = load_language_model(tmp_path / "a")
    its_tokenizer.init_kwargs["local_files_only"] = offline
    save_model(loaded, its_tokenizer, tmp_path / "b")
    first, second = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "ab")
    assert first == second


def test_weights_follow_the_seed(tokenizer):
    config = SmallLMConfig(width=16, layers=1, heads=2, inner=16)
    a, b, c = (new_model(config, tokenizer, seed).get_input_embeddings().weight for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert a.shape == (len(tokenizer), 16)


def test_half_the_heads_begin_by_looking_for_equal_tokens(tokenizer):
    """A token sees its like, 5 to 50 places back, more than any other and hardly itself; other heads see nothing."""
    model = new_model(SmallLMConfig(width=128, layers=1, heads=4, inner=16), tokenizer, seed=0).eval()
    model.set_attn_implementation("eager")
    torch.manual_seed(0)
    ids = torch.stack([torch.randperm(len(tokenizer))[:60] for _ in range(64)])
    back = torch.randint(5, 50, (64,))
    ids[:, -1] = ids[torch.arange(64), 59 - back]
    with torch.no_grad():
        seen = model(ids, output_attentions=True).attentions[0][:, :, -1]
    like, itself = seen[torch.arange(64), :, 59 - back].mean(0), seen[:, :, -1].mean(0)
    assert (like[:2] > 0.25).all() and (itself[:2] < 0.08).all()
    torch.testing.assert_close(like[2:], torch.full((2,), 1 / 60), atol=0.01, rtol=0.0)


def test_a_width_that_rotary_positions_cannot_take_is_named():
    with pytest.raises(InputError, match=r"head_size \(31\) must be even.*at most width \(31\)"):
        SmallLMConfig(width=31)


@pytest.mark.parametrize("size", [3, 34])
def test_heads_that_do_not_fit_are_named(size):
    with pytest.raises(InputError, match=rf"head_size \({size}\) must be even.*at most width \(32\)"):
        SmallLMConfig(width=32, heads=4, head_size=size)


def test_heads_are_as_wide_as_the_states(tokenizer):
    model = new_model(SmallLMConfig(width=16, layers=1, heads=3, inner=32), tokenizer, seed=3)
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.weight.shape == attention.o_proj.weight.T.shape == (48, 16)
    assert torch.isfinite(model(torch.arange(12)[None]).logits).all()


def test_a_trained_model_has_the_weights_that_are_stored(tmp_path, tokenizer):
    model = new_model(SmallLMConfig(width=16, layers=1, heads=2, inner=32), tokenizer, seed=3)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    save_model(in_stored_format(model), tokenizer, tmp_path / "model")
    loaded, _ = load_language_model(tmp_path / "model", dtype=torch.float32)
    for name, weight in model.state_dict().items():
        assert weight.dtype == torch.float32 and torch.equal(weight, loaded.state_dict()[name])
        torch.testing.assert_close(weight, before[name], rtol=1e-3, atol=1e-7)
