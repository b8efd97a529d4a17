"""Weights on disk: checkpoints of a run and single generators, safetensors with their story beside them.

Nothing is ever unpickled. Everything is written under a temporary name and renamed when whole, and carries
the recipe, the hash of the frozen model, versions and the git revision it was made with.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

__all__ = [
    "CheckpointError",
    "file_sha256",
    "flat_state",
    "has_checkpoints",
    "load_weights",
    "provenance",
    "read_card",
    "read_newest",
    "restore_state",
    "weights_path",
    "write_checkpoint",
    "write_weights",
]


class CheckpointError(RuntimeError):
    """A checkpoint or weight file that is missing, damaged, or of another recipe. Nothing was changed."""


# Generators -----------------------------------------------------------------------------------------------


def weights_path(name: str | Path) -> Path:
    """The file of a shipped generator (`alden`, `l1`), or of the one at a path ending in .safetensors.

    Raises:
        CheckpointError: if there is no such file.
    """
    shipped = Path(__file__).parents[1] / "weights"
    path = Path(name) if str(name).endswith(".safetensors") else shipped / f"{name}.safetensors"
    if not path.exists():
        names = sorted(p.stem for p in shipped.glob("*.safetensors"))
        raise CheckpointError(f"no generator at {path}: choose from {names}, or give a .safetensors file")
    return path


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Load a file of weights, strictly.

    Raises:
        CheckpointError: if the file is damaged, or of another architecture; the network is unchanged.
    """
    try:
        state = load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file ({error})") from error
    own = network.state_dict()
    if {k: t.shape for k, t in own.items()} != {k: t.shape for k, t in state.items()}:
        origin = read_card(path).get("recipe", {}).get("generator", "of unknown origin")
        raise CheckpointError(
            f"{path} does not hold weights of a {type(network).__name__}: names or shapes differ. "
            f"It says it is {origin!r}"
        )
    network.load_state_dict(state)


def write_weights(
    path: str | Path, network: nn.Module, card: Mapping[str, Any], *, half: bool = False
) -> Path:
    """Write a network as one safetensors file with its card (JSON) in the file's metadata.

    `half` rounds the weights to float16, for a file half as large; `load_weights` reads both.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    if half:
        state = {key: t.half() if t.is_floating_point() else t for key, t in state.items()}
    save_file(state, part, metadata={"card": json.dumps(card)})
    os.replace(part, path)
    return path


def read_card(path: str | Path) -> dict[str, Any]:
    """What a weight file says of itself: recipe, data, versions; empty if it says nothing.

    Raises:
        CheckpointError: if the file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return dict(json.loads((file.metadata() or {}).get("card", "{}")))
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a complete safetensors file ({error})") from error


# Checkpoints of a run -------------------------------------------------------------------------------------


def write_checkpoint(
    folder: Path, step: int, state: Mapping[str, torch.Tensor], about: Mapping[str, Any], *, keep: int = 2
) -> Path:
    """Write `folder/step_000300/` with state.safetensors and recipe.json, whole or not at all.

    The newest `keep` checkpoints stay.
    """
    final = folder / f"step_{step:06d}"
    if final.exists():  # of this very run: another one is refused its folder
        return final
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(".step_*"):
        shutil.rmtree(left_over)  # what a cut-off run was writing
    part = Path(tempfile.mkdtemp(prefix=".step_", dir=folder))
    save_file(dict(state), part / "state.safetensors")
    about = {"steps": step, **about, "state_sha256": file_sha256(part / "state.safetensors")}
    (part / "recipe.json").write_text(json.dumps(about, indent=2) + "\n")
    os.replace(part, final)
    for old in _checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def has_checkpoints(folder: Path) -> bool:
    """Does this folder hold a run?"""
    return bool(_checkpoints(folder))


def read_newest(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """State and description of the newest checkpoint.

    Raises:
        CheckpointError: if there is none, or it is damaged; it is left as it is.
    """
    found = _checkpoints(folder)
    if not found:
        raise CheckpointError(f"no checkpoint in {folder}: start a run there first")
    newest = found[-1]
    remedy = f"remove {newest.name} to go on from the one before"
    try:
        about: dict[str, Any] = json.loads((newest / "recipe.json").read_text())
        whole = file_sha256(newest / "state.safetensors") == about["state_sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{newest} is damaged ({error}): {remedy}") from error
    if not whole:
        raise CheckpointError(f"{newest}/state.safetensors is damaged: {remedy}")
    return load_file(newest / "state.safetensors"), about


def flat_state(networks: Mapping[str, nn.Module], optimisers: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Every tensor that a step changes, by a flat name such as `generator.enter.1.0.weight`."""
    state = {f"{name}.{key}": t for name, net in networks.items() for key, t in net.state_dict().items()}
    for name, optimiser in optimisers.items():
        for index, moments in optimiser.state_dict()["state"].items():
            state |= {f"{name}.{index}.{key}": torch.as_tensor(t) for key, t in moments.items()}
    return {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}


def restore_state(
    state: Mapping[str, torch.Tensor], networks: Mapping[str, nn.Module], optimisers: Mapping[str, Any]
) -> None:
    """Put back what `flat_state` took.

    Raises:
        CheckpointError: if the state is of other networks, or lacks one; nothing was changed if it lacks one.
    """
    if lacking := [name for name in networks if not _under(name, state)]:
        raise CheckpointError(
            f"the checkpoint lacks {', '.join(lacking)}: it is of another method, or was written before "
            "checkpoints held every network. Begin again in another folder"
        )
    for name, network in networks.items():
        try:
            network.load_state_dict(_under(name, state))
        except RuntimeError as error:
            raise CheckpointError(f"the checkpoint is of another {name}: {error}") from error
    for name, optimiser in optimisers.items():
        moments: dict[int, dict[str, torch.Tensor]] = {}
        for key, tensor in _under(name, state).items():
            index, _, moment = key.partition(".")
            moments.setdefault(int(index), {})[moment] = tensor
        optimiser.load_state_dict(optimiser.state_dict() | {"state": moments})


def provenance() -> dict[str, Any]:
    """Versions and git revision of this installation; the revision is None outside a checkout."""
    packages = ("timm", "numpy", "finufft", "lightning-fabric")
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    return {
        "versions": versions | {name: _version(name) for name in packages},
        "git": _git_revision(),
        "notice": "Not for clinical use.",
    }


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None  # finufft, where it has no wheel


def _git_revision() -> str | None:
    here = Path(__file__)
    known = ["ls-files", "--error-unmatch", here.name]  # else this is some other project's repository
    describe = ["describe", "--always", "--dirty", "--abbrev=40"]
    try:
        for arguments in (known, describe):
            command = ["git", "-C", str(here.parent), *arguments]
            found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None  # installed from a wheel, or no git: versions still tell
    return found.stdout.strip()


def _checkpoints(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step_*") if path.is_dir() and path.name[5:].isdigit()]
    return sorted(found, key=lambda path: int(path.name[5:]))


def _under(name: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(f"{name}."): t for key, t in state.items() if key.startswith(f"{name}.")}
