"""Loading real model folders: a random Qwen2 of a few thousand weights and a word-level tokenizer."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from uqabench.errors import InputError, MissingExtra
from uqabench.llm import sources
from uqabench.llm.sources import check_weights, find_model, home, installed_models, load_language_model, load_tokenizer

transformers = pytest.importorskip("transformers")

TEMPLATE = "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}"
WORDS = ["<unk>", "<end>", "A", "B", "C", "D", "which", "item", "?", "user", "assistant", "<", ">"]


def build_folder(folder: Path, *, rows: int = len(WORDS), shard: str = "5GB") -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", eos_token="<end>", chat_template=TEMPLATE
    )
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=rows, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, bos_token_id=None, eos_token_id=1,
    )  # fmt: skip
    transformers.Qwen2ForCausalLM(config).save_pretrained(folder, max_shard_size=shard)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return build_folder(tmp_path_factory.mktemp("whole") / "tiny")


@pytest.fixture
def folder(whole, tmp_path):
    """A copy to damage."""
    return Path(shutil.copytree(whole, tmp_path / "tiny"))


@pytest.fixture(autouse=True)
def own_caches(tmp_path, monkeypatch):
    """Empty caches of this test's own, and no network."""
    from huggingface_hub import constants

    monkeypatch.setenv("UQABENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return tmp_path


def edit_json(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_loads_the_saved_weights_and_tokenizer(whole):
    from safetensors.torch import load_file

    model, tokenizer = load_language_model(whole)
    assert not model.training
    state = model.state_dict()
    for name, weight in load_file(whole / "model.safetensors").items():
        assert state[name].dtype == torch.float32 and torch.equal(state[name], weight)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "which item ?"}], tokenize=False)
    assert text == "<user> which item ? "
    ids = tokenizer(text, return_tensors="pt").input_ids
    assert ids.tolist() == [[11, 9, 12, 6, 7, 8]]
    assert model(ids).logits.shape == (1, 6, len(WORDS))


def test_dtype_is_the_asked_one(whole):
    model, _ = load_language_model(str(whole), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_loads_shards(tmp_path, whole):
    sharded = build_folder(tmp_path / "sharded", shard="4KB")
    assert len(check_weights(sharded)) > 1
    model, _ = load_language_model(sharded)
    expected, _ = load_language_model(whole)
    ids = torch.tensor([[2, 3, 4]])
    assert torch.equal(model(ids).logits, expected(ids).logits)


def test_says_nothing_while_loading_and_leaves_transformers_as_it_was(whole, capfd):
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled(), logging.get_verbosity()
    capfd.readouterr()
    load_language_model(whole)
    assert capfd.readouterr() == ("", "")
    assert (logging.is_progress_bar_enabled(), logging.get_verbosity()) == before


def test_home_is_the_environments_or_the_users_cache(monkeypatch, tmp_path):
    assert home() == tmp_path / "home"
    monkeypatch.delenv("UQABENCH_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home() == tmp_path / ".cache" / "uqabench"


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch):
    """As in a container that runs under a user id of its own: no $HOME, and no entry in the system's list."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.delenv("UQABENCH_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    for name in ("smollm2", "some/model"):
        with pytest.raises(InputError, match="No home folder is known for this user.* set UQABENCH_HOME to a folder"):
            find_model(name)
    for name in ("~/model", "~nobody-of-that-name/model"):
        with pytest.raises(InputError, match=rf"^{name}: the home folder that {name[:-6]} stands for is unknown here"):
            find_model(name)
    monkeypatch.setenv("UQABENCH_HOME", "~/cache")
    with pytest.raises(InputError, match="^~/cache: the home folder that ~ stands for is unknown here"):
        home()


def test_finds_an_installed_alias(whole):
    assert installed_models() == {}
    shutil.copytree(whole, home() / "models" / "mine")
    (home() / "models" / ".mine.partial-1").mkdir()
    assert installed_models() == {"mine": home() / "models" / "mine"}
    assert find_model("mine") == home() / "models" / "mine"
    assert load_tokenizer("mine").eos_token == "<end>"


def in_hub_cache(cache: Path, whole: Path) -> Path:
    """The layout in which huggingface_hub keeps the model owner/tiny."""
    repository = cache / "models--owner--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    return Path(shutil.copytree(whole, repository / "snapshots" / ("0" * 40)))


def test_finds_a_hugging_face_name_in_the_local_cache(whole, tmp_path):
    snapshot = in_hub_cache(tmp_path / "hub", whole)
    assert find_model("owner/tiny") == snapshot
    model, _ = load_language_model("owner/tiny")
    assert model.config.hidden_size == 16


def test_half_a_download_is_no_model(whole, tmp_path):
    snapshot = in_hub_cache(tmp_path / "hub", whole)
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"hub/models--owner--tiny/.*/model\.safetensors does not exist"):
        load_language_model("owner/tiny")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Qwen/Qwen2.5-3B-Instruct", r"'Qwen/Qwen2\.5-3B-Instruct' is no folder here, not in .*hub nor in .*models, "
         r"and https://huggingface.co cannot be reached: download it .* or run `uqabench llm add smollm2`"),
        ("smollm2", r"'smollm2' is not in .*home/models: run `uqabench llm add smollm2`"),
        ("./nowhere", r"folder '\./nowhere' does not exist: check the path, or give a Hugging Face name"),
        ("/nowhere/at/all", "folder '/nowhere/at/all' does not exist"),
        ("", "name is empty: give a folder, an alias or a Hugging Face name"),
        ("two words", r"'two words' is neither a folder, an installed model \(none\) nor a Hugging Face name"),
    ],
)  # fmt: skip
def test_what_cannot_be_found_is_named_with_the_way_out(name, message):
    with pytest.raises(InputError, match=message):
        load_language_model(name)


def test_a_file_is_no_model_folder(whole):
    with pytest.raises(InputError, match="config.json is a file: name the folder that holds it"):
        load_language_model(whole / "config.json")


def test_truncated_weights_are_named(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"tiny/model\.safetensors is damaged or truncated .*: fetch it again"):
        load_language_model(folder)


@pytest.mark.parametrize("content", [b"", b"x", b"not safetensors at all, but long enough for a header"])
def test_weights_that_are_not_safetensors_are_named(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(InputError, match=r"tiny/model\.safetensors is damaged or truncated"):
        load_language_model(folder)


def test_pickled_weights_are_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"model\.safetensors does not exist: only safetensors weights are loaded"):
        load_language_model(folder)


def test_a_missing_or_nameless_shard_is_named(tmp_path):
    sharded = build_folder(tmp_path / "sharded", shard="4KB")
    shard = check_weights(sharded)[1]
    shard.unlink()
    with pytest.raises(InputError, match=f"{shard.name} does not exist"):
        load_language_model(sharded)
    (sharded / "model.safetensors.index.json").write_text('{"weight_map": {}}')
    with pytest.raises(InputError, match=r"model\.safetensors\.index\.json has no 'weight_map'"):
        load_language_model(sharded)


def test_weights_that_lack_a_tensor_are_refused(folder):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"lacks 1 of its model's tensors \('model\.layers\.1\.mlp\.up_proj\.weight'"):
        load_language_model(folder)


def test_weights_of_another_shape_are_refused(folder):
    edit_json(folder / "config.json", hidden_size=32, head_dim=16)
    with pytest.raises(InputError, match="tiny: cannot load its weights"):
        load_language_model(folder)


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "'bert' \\(BertForMaskedLM\\)"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, "'t5'"),
        ({"model_type": "qwen2", "architectures": ["Qwen2ForSequenceClassification"]}, "'qwen2'"),
    ],
)
def test_other_kinds_of_model_are_refused(folder, config, name):
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=rf"config\.json: {name}.* is not a causal language model: choose a decoder"):
        load_language_model(folder)


@pytest.mark.parametrize("content", ["{", "[]", "\x00", '{"model_type": "no such type"}'])
def test_a_broken_config_is_named(folder, content):
    (folder / "config.json").write_text(content)
    with pytest.raises(InputError, match=r"tiny.*config\.json"):
        load_language_model(folder)


def test_a_folder_without_a_config_is_named(folder):
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"tiny has no config\.json"):
        load_language_model(folder)


@pytest.mark.parametrize("content", ["", "{", '{"model": {"type": "unheard of"}}'])
def test_a_broken_tokenizer_is_named(folder, content):
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(InputError, match="tiny: cannot load its tokenizer"):
        load_language_model(folder)


def test_a_tokenizer_without_chat_template_says_how_to_give_one(folder):
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match=r"has no chat template: .* as .*tiny/chat_template\.jinja, or pass a Jinja"):
        load_language_model(folder)
    own = folder / "own.jinja"
    own.write_text("{{ messages[0].content }}!")
    _, tokenizer = load_language_model(folder, chat_template=own)
    assert tokenizer.apply_chat_template([{"role": "user", "content": "which"}], tokenize=False) == "which!"


def test_an_unreadable_chat_template_is_named(folder):
    with pytest.raises(InputError, match=r"absent\.jinja cannot be read"):
        load_language_model(folder, chat_template=folder / "absent.jinja")


def test_more_tokens_than_embeddings_is_refused(tmp_path):
    short = build_folder(tmp_path / "short", rows=len(WORDS) - 2)
    with pytest.raises(InputError, match="tokenizer has 13 tokens but its model only 11 embeddings"):
        load_language_model(short)


@pytest.mark.parametrize("device", ["cuda:77", "toaster"])
def test_a_device_that_is_not_there_is_named(whole, device):
    with pytest.raises(InputError, match=f"The device '{device}' cannot hold the model"):
        load_language_model(whole, device=device)


def test_without_transformers_the_extra_is_named(whole, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"A language model needs the package 'transformers': .*uqabench\[llm\]"):
        sources.load_language_model(whole)


@pytest.mark.parametrize(
    "shard", ["../x.safetensors", "/etc/passwd", "sub/x.safetensors", "..", "x.bin", "a\\\\b.safetensors"]
)
def test_a_shard_outside_its_folder_is_not_read(tmp_path, shard):
    sharded = build_folder(tmp_path / "sharded", shard="4KB")
    index = json.loads((sharded / "model.safetensors.index.json").read_text())
    index["weight_map"][next(iter(index["weight_map"]))] = shard
    (sharded / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"index.json names the file '.*': a model's shards are .safetensors files"):
        load_language_model(sharded)


def test_layers_that_the_config_does_not_have_are_refused(folder):
    edit_json(folder / "config.json", num_hidden_layers=1, layer_types=["full_attention"], max_window_layers=1)
    with pytest.raises(InputError, match=r"weights have layers that config.json does not \('model.layers.1"):
        load_language_model(folder)


@pytest.mark.parametrize(
    "changes",
    [{"num_hidden_layers": "two"}, {"layer_types": ["full_attention"]}, {"hidden_size": None}, {"model_type": 7}]
    + [{"num_attention_heads": 0}, {"hidden_act": "none such"}, {"vocab_size": -1}, {"rope_parameters": []}],
)
def test_a_config_that_cannot_be_is_one_sentence(folder, changes):
    edit_json(folder / "config.json", **changes)
    with pytest.raises(InputError, match="config.json|cannot load its"):
        load_language_model(folder)
