"""How are tensors kept in files, so that nothing in a file is ever executed? As safetensors, written atomically."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from .errors import RunFolderError
from .files import write_atomically


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Writes tensors as safetensors, atomically; strided or shared tensors are stored as contiguous copies."""
    stored = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in tensors.items()}
    write_atomically(path, lambda temporary: save_file(stored, temporary, metadata=metadata))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads safetensors to the CPU.

    Raises:
        RunFolderError: the file is missing or damaged.
    """
    if not path.is_file():
        raise RunFolderError(f"{path} is missing; is {path.parent} a folder that Pretint wrote?")
    try:
        return load_file(path)
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
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape and value.ndim:
            value = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        elif optimizer.defaults.get("fused"):
            value = value.to(parameter.device)
        optimizer.state[parameter][name] = value
