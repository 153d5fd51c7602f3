"""How are tensors kept in files, so that nothing in a file is ever executed? As safetensors, written atomically."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from .errors import RunFolderError
from .files import write_atomically


def contiguous_copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU that share no memory, as safetensors wants them."""
    return {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }


def write_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None, *, copied: bool = False
) -> None:
    """Writes tensors as safetensors, atomically; strided or shared tensors are stored as contiguous copies.

    Args:
        path: the file.
        tensors: by name.
        metadata: words for the header.
        copied: they are :func:`contiguous_copies` already.

    Raises:
        OSError: the file can't be written, because the disk is full for example; what `path` held before is still there.
    """
    stored = tensors if copied else contiguous_copies(tensors)

    def write(temporary: Path) -> None:
        try:
            save_file(stored, temporary, metadata=metadata)
        except SafetensorError as error:
            raise OSError(f"{path} could not be written ({error})") from None

    write_atomically(path, write)


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """Reads safetensors to the CPU, all or those whose names begin with `prefix`.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    if not path.is_file():
        raise RunFolderError(f"{path} is missing; is {path.parent} a folder that Pretint wrote?")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys() if name.startswith(prefix)}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise RunFolderError(f"{path} is damaged ({error}); restore the file or run again.") from None


def read_metadata(path: Path) -> dict[str, str]:
    """The words in the header of a safetensors file; empty if there are none.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise RunFolderError(f"{path} is missing or damaged ({error}); restore the file or run again.") from None


def tensors_checksum(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().to("cpu").contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state as flat tensors named `<parameter index>.<state name>`."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, entry in state.items() for name, value in entry.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts :func:`optimizer_tensors` back.

    State of a parameter's shape is copied into a tensor laid out like the parameter, since another memory layout would
    change the order of later sums and with it the last bits.

    Raises:
        RunFolderError: they belong to other parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    optimizer.state.clear()
    for key, value in tensors.items():
        index, _, name = key.partition(".")
        if not (index.isdecimal() and int(index) < len(parameters) and name):
            raise RunFolderError(
                f"The optimiser has nothing that {key!r} belongs to; resume with the run's own settings."
            )
        parameter = parameters[int(index)]
        if value.ndim and value.shape != parameter.shape:
            raise RunFolderError(
                f"The optimiser's {key!r} has shape {tuple(value.shape)}, its parameter {tuple(parameter.shape)}; resume with "
                "the run's own settings."
            )
        if value.ndim:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        else:  # a copy too, lest one number keep the whole file mapped
            value = value.clone().to(parameter.device if optimizer.defaults.get("fused") else "cpu")
        optimizer.state[parameter][name] = value
