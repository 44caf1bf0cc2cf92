"""Finding and loading a language model: a folder, an installed alias, or a Hugging Face name.

Whatever the name, the model ends up as one local folder of safetensors, JSON and tokenizer files that is checked
before anything is loaded, so what is wrong with it is said in one sentence.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from uqabench.errors import InputError, MissingExtra
from uqabench.files import read_json
from uqabench.llm.packaged import INSTALLABLE

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_SUFFIX = ".safetensors"
_NUMBER = re.compile(r"\.\d+\.")
# Only the root's own weights: some repositories keep a second copy in another layout in subfolders.
_PATTERNS = ["*.json", "*.jinja", "merges.txt", "vocab.txt", "tokenizer.model", "model*.safetensors"]


def home() -> Path:
    """The user's cache folder: `$UQABENCH_HOME`, or `~/.cache/uqabench`; InputError where no home folder is known."""
    chosen = os.environ.get("UQABENCH_HOME")
    if chosen:
        return _expanded(chosen)
    try:
        return Path.home() / ".cache" / "uqabench"
    except RuntimeError as error:  # no $HOME, and the user is not in the system's list, as in many containers
        raise InputError(
            "No home folder is known for this user, so installed language models have no place: set UQABENCH_HOME to a "
            "folder that you may write to."
        ) from error


def _expanded(path: str) -> Path:
    """The path with a leading `~` or `~user` replaced; InputError where that home folder is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(
            f"{path}: the home folder that {path.partition('/')[0]} stands for is unknown here: give the full path."
        ) from error


def models_folder() -> Path:
    """Where installed models live, one folder an alias."""
    return home() / "models"


def load_language_model(
    name_or_path: str | Path,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    chat_template: str | Path | None = None,
    trust_remote_code: bool = False,
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """Load a causal language model and its tokenizer, in evaluation mode.

    `name_or_path`: a folder, an alias installed in `models_folder()`, or a Hugging Face name such as
    `Qwen/Qwen2.5-3B-Instruct` (the copy in the Hugging Face cache first, then the hub). Only safetensors are read.
    `chat_template`: a Jinja file that takes the place of the tokenizer's own chat template.

    Raises InputError when the model cannot be found, is damaged or incomplete, is not a causal language model, has
    no chat template or fewer embeddings than tokens; MissingExtra without transformers.
    """
    transformers = import_transformers("A language model")
    folder = find_model(name_or_path, trust_remote_code=trust_remote_code)
    config = _causal_config(folder, trust_remote_code)
    check_weights(folder)
    tokenizer = load_tokenizer(folder, chat_template=chat_template, trust_remote_code=trust_remote_code)
    with quiet(), _reading(folder, "weights"):
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            trust_remote_code=trust_remote_code,
        )
    _check_tensors(folder, model, report)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise InputError(
            f"{folder}: its tokenizer has {len(tokenizer)} tokens but its model only {rows} embeddings: "
            "use the tokenizer that belongs to the model."
        )
    return _place(model, device).eval(), tokenizer


def load_tokenizer(
    name_or_path: str | Path, *, chat_template: str | Path | None = None, trust_remote_code: bool = False
) -> PreTrainedTokenizerFast:
    """Load the tokenizer alone; InputError when it is missing, damaged or has no chat template."""
    transformers = import_transformers("A tokenizer")
    folder = find_model(name_or_path, trust_remote_code=trust_remote_code)
    with quiet(), _reading(folder, "tokenizer"):
        loader = transformers.PreTrainedTokenizerFast if _has_own_tokenizer(folder) else transformers.AutoTokenizer
        tokenizer = loader.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if chat_template is not None:
        try:
            tokenizer.chat_template = Path(chat_template).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"The chat template {chat_template} cannot be read ({error}): name a Jinja file."
            ) from error
    if not tokenizer.chat_template:
        raise InputError(
            f"The tokenizer of {name_or_path} has no chat template: choose an instruction-tuned model, save a template "
            f"as {folder / 'chat_template.jinja'}, or pass a Jinja file as `chat_template`."
        )
    return tokenizer


def _has_own_tokenizer(folder: Path) -> bool:
    """Whether the folder's tokenizer is a generic one, complete in tokenizer.json.

    AutoTokenizer goes by the model's type and would give such a Qwen2 model Qwen2's own splitting rules.
    """
    path = folder / "tokenizer_config.json"
    generic = ("PreTrainedTokenizerFast", "TokenizersBackend")
    return path.exists() and (folder / "tokenizer.json").exists() and read_json(path).get("tokenizer_class") in generic


def find_model(name_or_path: str | Path, *, trust_remote_code: bool = False) -> Path:
    """The local folder of a model, downloaded first when only the Hugging Face hub has it.

    A folder of that name wins over an installed alias, an alias over a hub name. InputError says where it was
    looked for.
    """
    name = str(name_or_path)
    if not name:
        raise InputError("The language model's name is empty: give a folder, an alias or a Hugging Face name.")
    path = _expanded(name)
    if path.is_dir():
        return path
    installed = models_folder() / name
    if "/" not in name and installed.is_dir():
        return installed
    if name in INSTALLABLE:
        raise InputError(
            f"The language model '{name}' is not in {models_folder()}: run `uqabench llm add {name}` first."
        )
    if path.exists():
        raise InputError(f"The language model {path} is a file: name the folder that holds it.")
    if isinstance(name_or_path, Path) or path.is_absolute() or name[0] in ".~" or name.count("/") > 1:
        raise InputError(
            f"The language model folder '{name}' does not exist: check the path, or give a Hugging Face name "
            f"(owner/model) or one of the aliases {', '.join(installed_models() or INSTALLABLE)}."
        )
    return _from_hub(name, trust_remote_code)


def local_config(name: str) -> PretrainedConfig | None:
    """The config of a causal language model that lies on this machine (a folder, an installed alias, the Hugging Face
    cache); None where there is none. Its weights need not be there."""
    path, installed = _expanded(name), models_folder() / name
    folder = path if path.is_dir() else installed if "/" not in name and installed.is_dir() else _cached(name)
    return None if folder is None else _causal_config(folder, False)


def _cached(name: str) -> Path | None:
    """The folder of the Hugging Face cache that holds a model's config."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, _CONFIG)
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def installed_models() -> dict[str, Path]:
    """The installed aliases and their folders, sorted by name."""
    folder = models_folder()
    if not folder.is_dir():
        return {}
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith(".")}


def check_weights(folder: Path) -> list[Path]:
    """The safetensors files of a model folder, each checked for its header and its length.

    InputError names the file that is missing, truncated or not safetensors.
    """
    from safetensors import SafetensorError, safe_open

    files = _weight_files(folder)
    for path in files:
        if not path.is_file():
            raise InputError(
                f"{path} does not exist: only safetensors weights are loaded; fetch the file, or convert the model "
                "with `save_pretrained`."
            )
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path} is damaged or truncated ({_first_line(error)}): fetch it again.") from error
    return files


def import_transformers(purpose: str) -> Any:
    """The transformers module, imported only when a language model is asked for; MissingExtra without it."""
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra("transformers", "llm", purpose) from error
    return transformers


def _weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if (folder / _WEIGHTS).is_file() or not index.is_file():
        return [folder / _WEIGHTS]
    content = read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict) or not shards or not all(isinstance(name, str) for name in shards.values()):
        raise InputError(f"{index} has no 'weight_map' of tensor names to files: fetch it again.")
    names = sorted(set(shards.values()))
    if outside := [name for name in names if Path(name).name != name or "\\" in name or not name.endswith(_SUFFIX)]:
        raise InputError(
            f"{index} names the file '{outside[0]}': a model's shards are {_SUFFIX} files beside their index; fetch it "
            "again."
        )
    return [folder / name for name in names]


def _check_tensors(folder: Path, model: PreTrainedModel, report: dict[str, Any]) -> None:
    """InputError when config and weights are of different models: tensors are missing, of another shape, or left over
    from layers that the config does not have."""
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"{folder} lacks {len(missing)} of its model's tensors ('{missing[0]}' first): fetch its files again."
        )
    if mismatched := sorted(entry[0] for entry in report.get("mismatched_keys", ())):
        raise InputError(
            f"{folder}: the tensor '{mismatched[0]}' has another shape than {_CONFIG} says: fetch its files again."
        )
    layers = {_NUMBER.sub(".0.", name) for name in model.state_dict()}
    if beyond := sorted(name for name in report["unexpected_keys"] if _NUMBER.sub(".0.", name) in layers):
        raise InputError(
            f"{folder}: its weights have layers that {_CONFIG} does not ('{beyond[0]}' first): fetch its files again."
        )


def _causal_config(folder: Path, trust_remote_code: bool) -> PretrainedConfig:
    """The model's config, refused when it does not belong to a causal language model."""
    transformers = import_transformers("A language model")
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if not (folder / _CONFIG).is_file():
        raise InputError(f"{folder} has no {_CONFIG}: name a folder that holds a whole Hugging Face model.")
    with quiet(), _reading(folder, _CONFIG):
        config = transformers.AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    names = {known} if isinstance(known, str) else set(known or ())
    remote = getattr(config, "auto_map", None) or {}
    if trust_remote_code and "AutoModelForCausalLM" in remote:
        return config
    # Encoders such as BERT have a causal head in the library too: what the checkpoint says it is decides.
    declared = set(config.architectures or names)
    if not names or not names & declared:
        raise InputError(
            f"{folder / _CONFIG}: '{config.model_type}' ({', '.join(sorted(declared)) or 'no architecture'}) is not a "
            "causal language model: choose a decoder such as Qwen/Qwen2.5-3B-Instruct."
        )
    return config


def _from_hub(name: str, trust_remote_code: bool) -> Path:
    """The snapshot of a Hugging Face model: the local cache's when it is whole, else downloaded."""
    import_transformers("A language model")  # carries huggingface_hub
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = _PATTERNS + (["*.py"] if trust_remote_code else [])
    try:
        folder = Path(snapshot_download(name, allow_patterns=patterns, local_files_only=True))
        if (folder / _CONFIG).is_file() and all(path.is_file() for path in _weight_files(folder)):
            return folder
    except HFValidationError as error:
        raise InputError(
            f"'{name}' is neither a folder, an installed model ({', '.join(installed_models()) or 'none'}) nor a "
            "Hugging Face name (owner/model): check the spelling."
        ) from error
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(name, allow_patterns=patterns))
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{constants.ENDPOINT} has no model '{name}' that you may read: check the name, or log in with "
            "`hf auth login` when it is private or gated."
        ) from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"The language model '{name}' is no folder here, not in {constants.HF_HUB_CACHE} nor in {models_folder()}, "
            f"and {constants.ENDPOINT} cannot be reached: download it where there is a network and give its folder, or "
            "run `uqabench llm add smollm2` and use `smollm2`."
        ) from error


def _place(model: PreTrainedModel, device: str | torch.device) -> PreTrainedModel:
    try:
        return model.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:  # torch without CUDA raises AssertionError
        raise InputError(
            f"The device '{device}' cannot hold the model ({_first_line(error)}): choose another."
        ) from error


@contextmanager
def _reading(folder: Path, what: str) -> Iterator[None]:
    """Turn what transformers raises on a broken model folder into one sentence."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # whatever transformers, tokenizers and their validators make of a broken file
        raise InputError(f"{folder}: cannot load its {what} ({_first_line(error)}): fetch its files again.") from error


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars and no warnings from transformers while a local folder is read or written."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(" .:")[:200] if lines else type(error).__name__
