"""Weight files of an artifact: safetensors, checked tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dits_adapter._files import write_atomically
from dits_adapter.errors import ArtifactError

if TYPE_CHECKING:
    from torch import nn


__all__ = ["load_weights", "require_tensors", "save_weights"]


def save_weights(module: nn.Module, path: Path) -> None:
    """Write the parameters and buffers of a module, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    from safetensors.torch import save_file

    with write_atomically(path) as part:
        save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, part)


def load_weights(path: Path, module: nn.Module) -> None:
    """Copy a weight file into a module.

    Raises:
        ArtifactError: as `require_tensors`.
    """
    require_tensors(path, module)
    with _opened(path) as file:
        module.load_state_dict({name: file.get_tensor(name) for name in module.state_dict()})


def require_tensors(path: Path, module: nn.Module) -> None:
    """Refuse a weight file whose tensors are not those of a module; only its header is read.

    Args:
        path: the file.
        module: the module, with memory for its tensors or without (`torch.device("meta")`).

    Raises:
        ArtifactError: the file is damaged, or its tensors are others in name or shape.
    """
    expected = module.state_dict()
    with _opened(path) as file:
        shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    if missing := sorted(expected.keys() - shapes.keys()):
        raise ArtifactError(f"{path}: {len(missing)} tensors are missing, the first is {missing[0]}.")
    if extra := sorted(shapes.keys() - expected.keys()):
        raise ArtifactError(f"{path}: {len(extra)} tensors are unknown, the first is {extra[0]}.")
    for name, tensor in expected.items():
        if shapes[name] != tuple(tensor.shape):
            raise ArtifactError(f"{path}: {name} has shape {shapes[name]}, the config says {tuple(tensor.shape)}.")


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            yield file
    # The file is opened twice, by torch the second time: one that was moved in between is a RuntimeError.
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ArtifactError(f"{path}: is no intact safetensors file ({error}).") from None
