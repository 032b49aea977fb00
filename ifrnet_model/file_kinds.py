"""Recognises the format of a checkpoint file by its content. Imports no PyTorch."""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path, PurePosixPath
from typing import Literal

from ifrnet_model.errors import CheckpointError, shortened

Format = Literal["pytorch", "safetensors"]

_AGAIN = "copy or download it again"
_UNPACK = "unpack it and give the checkpoint in it"
_JOIN = "load all parts, join their dictionaries, and save the result with torch.save"
_NOT_WEIGHTS = "give a file written by torch.save, or .safetensors"

_BEGINNINGS = (
    (
        rb"version https://git-lfs",
        "is a pointer of Git LFS, not the file itself",
        "run git lfs pull in its repository",
    ),
    (
        rb"(?i)(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)*<(!doctype html|html|head|body|script|meta)",
        "is a web page, such as a share page or a login, not a checkpoint",
        "open that page in a browser and save the file that it offers",
    ),
    (rb"(\xef\xbb\xbf)?\s*<\?xml", "is an XML document, not a checkpoint", _NOT_WEIGHTS),
    (rb"\x1f\x8b", "is compressed with gzip", _UNPACK),
    (rb"\xfd7zXZ\0", "is compressed with xz", _UNPACK),
    (rb"BZh\d1AY&SY", "is compressed with bzip2", _UNPACK),
    (rb"\x28\xb5\x2f\xfd", "is compressed with Zstandard", _UNPACK),
    (rb"7z\xbc\xaf\x27\x1c", "is a 7z archive", _UNPACK),
    (rb"Rar!\x1a\x07", "is a RAR archive", _UNPACK),
    (rb".{257}ustar", "is a tar archive", _UNPACK),
    (
        # The fields of ModelProto: ir_version, then producer_name to domain, model_version,
        # doc_string, graph or opset_import.
        rb"\x08[\x03-\x1f][\x12\x1a\x22\x28\x32\x3a\x42]",
        "is an ONNX model, not a checkpoint",
        "give it to --onnx of python -m export.build_engine",
    ),
    (
        rb"ftrt",
        "is a TensorRT engine, not a checkpoint",
        "give the checkpoint or the ONNX file that it was built from",
    ),
    (rb"\x89HDF\r\n\x1a\n", "is an HDF5 file, not a PyTorch checkpoint", _NOT_WEIGHTS),
    (rb"\x93NUMPY", "is one NumPy array, not a checkpoint", _NOT_WEIGHTS),
    (rb"GGUF", "is a GGUF file, not a PyTorch checkpoint", _NOT_WEIGHTS),
    (rb"\0{16}", "begins with zeros, as an incomplete download does", "download it again"),
)
"""Regular expression for the first bytes, what the file is, what to do."""

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_PICKLE = re.compile(rb"\x80[\x02-\x05]")

_LEGACY_MAGIC = bytes.fromhex("6cfc9c46f9206aa85019")
"""The number at the beginning of the files of PyTorch before 1.6, which are not zip archives."""

_LARGEST_HEADER = 100_000_000
"""Maximum size of the header of a safetensors file in bytes."""

_MOST_UNPACKED = 8
"""Limit of the unpacked size of a zip archive relative to its own; PyTorch does not compress."""

_BYTEARRAY = re.compile(rb"c(__builtin__|builtins)\nbytearray\n")
"""The opcode of a pickle that names bytearray. PyTorch would allocate one of any size."""

_CHECKPOINT_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors", ".tar")
_PART = re.compile(r"-(\d{5})-of-(\d{5})$")


def find_format(path: Path, content: bytes) -> Format:
    """The format of a checkpoint file. Its suffix is ignored.

    Args:
        path: The file. Only the number of a part ("-00001-of-00002") is read from its name.
        content: All its bytes.

    Raises:
        CheckpointError: If it is something else, empty, cut off, or a part of a checkpoint.
    """
    if not content:
        raise CheckpointError(f"{path} is empty: {_AGAIN}")
    _check_whole(path)
    if content.startswith(_ZIP):
        return _check_zip(path, content)
    if _PICKLE.match(content):
        if _LEGACY_MAGIC in content[:32]:
            _check_pickle(path, content)
            return "pytorch"
        raise CheckpointError(
            f"{path} is a pickle that torch.save did not write, which could run code, and was not "
            "loaded: save the network's state_dict() with torch.save"
        )
    if content[8:9] == b"{" and 2 <= _header_size(content) <= _LARGEST_HEADER:
        return _check_safetensors(path, content)
    _check_not_json(path, content)
    for beginning, what, remedy in _BEGINNINGS:
        if re.match(beginning, content[:4096], re.DOTALL):
            raise CheckpointError(f"{path} {what}: {remedy}")
    raise CheckpointError(
        f"{path} is neither a PyTorch nor a safetensors file, it begins with {content[:8]!r}: "
        f"{_NOT_WEIGHTS}"
    )


def _check_whole(path: Path) -> None:
    part = _PART.search(path.stem)
    if part and int(part.group(2)) > 1:
        raise CheckpointError(
            f"{path} is part {int(part.group(1))} of {int(part.group(2))} of a checkpoint: {_JOIN}"
        )


def _check_zip(path: Path, content: bytes) -> Format:
    """Distinguishes PyTorch's zip archives from others by the names in them."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            unpacked = sum(entry.file_size for entry in entries)
            fits = unpacked <= _MOST_UNPACKED * len(content)
            pickles = [
                archive.read(entry)
                for entry in entries
                if fits and PurePosixPath(entry.filename).name == "data.pkl"
            ]
    except Exception as error:  # BadZipFile, and the errors of each compression.
        raise CheckpointError(
            f"{path} is an incomplete or damaged zip archive (PyTorch's format): {_AGAIN}"
        ) from error
    if not fits:
        raise CheckpointError(
            f"{path} has {len(content)} bytes and would unpack to {unpacked}, more than "
            f"{_MOST_UNPACKED} times as many: save the network's state_dict() with torch.save, "
            "which does not compress"
        )
    for pickled in pickles:
        _check_pickle(path, pickled)
    names = [entry.filename for entry in entries]
    # PyTorch puts everything into one folder with an arbitrary name.
    inside = {"/".join(PurePosixPath(name).parts[1:]) for name in names}
    if "constants.pkl" in inside or any(name.startswith("code/") for name in inside):
        raise CheckpointError(
            f"{path} is a TorchScript module, not a checkpoint: save its weights with "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pth')"
        )
    if "data.pkl" in inside:
        return "pytorch"
    if (
        inside & {"archive_format", "models/model.json"}
        or "serialized_exported_program.json" in names
    ):
        raise CheckpointError(
            f"{path} is a program of torch.export, not a checkpoint: save its weights with "
            "torch.save(dict(torch.export.load(path).state_dict), 'weights.pth')"
        )
    raise _archive_error(path, names)


def _check_pickle(path: Path, content: bytes) -> None:
    """Checks that a pickle cannot allocate more memory than its size."""
    if _BYTEARRAY.search(content):
        raise CheckpointError(
            f"{path} contains the Python object builtins.bytearray, which could use any amount of "
            "memory, and was not loaded: save only the network's state_dict() with torch.save"
        )


def _archive_error(path: Path, names: list[str]) -> CheckpointError:
    if names and all(name.endswith(".npy") for name in names):
        return CheckpointError(
            f"{path} is an archive of NumPy arrays (.npz), not a PyTorch checkpoint: save them "
            "with torch.save({k: torch.from_numpy(v) for k, v in numpy.load(path).items()}, "
            "'weights.pth')"
        )
    checkpoints = [
        name
        for name in names
        if name.lower().endswith(_CHECKPOINT_SUFFIXES) and not name.startswith("__MACOSX/")
    ]
    if not checkpoints:
        return CheckpointError(
            f"{path} is a zip archive without a checkpoint in it ({shortened(names) or 'empty'}): "
            f"{_NOT_WEIGHTS}"
        )
    which = "" if len(checkpoints) == 1 else "one of "
    return CheckpointError(
        f"{path} is a zip archive with checkpoints in it, not a checkpoint: unzip it and give "
        f"{which}{shortened(checkpoints)}"
    )


def _header_size(content: bytes) -> int:
    return int.from_bytes(content[:8], "little")


def _check_safetensors(path: Path, content: bytes) -> Format:
    """Compares the size with the header's; the safetensors package detects other damage."""
    end = 8 + _header_size(content)
    if len(content) >= end:
        try:
            entries = json.loads(content[8:end])
            end += max(
                (
                    entry["data_offsets"][1]
                    for name, entry in entries.items()
                    if name != "__metadata__"
                ),
                default=0,
            )
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return "safetensors"
    if len(content) < end:
        raise CheckpointError(
            f"{path} is cut off, it has {len(content)} of at least {end} bytes: {_AGAIN}"
        )
    return "safetensors"


def _check_not_json(path: Path, content: bytes) -> None:
    if content.lstrip()[:1] not in (b"{", b"["):
        return
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return
    if isinstance(document, dict) and isinstance(document.get("weight_map"), dict):
        parts = sorted({str(part) for part in document["weight_map"].values()})
        raise CheckpointError(
            f"{path} is the index of a checkpoint in parts ({shortened(parts)}): {_JOIN}"
        )
    raise CheckpointError(f"{path} is a JSON document, not a checkpoint: {_NOT_WEIGHTS}")
