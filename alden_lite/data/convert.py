"""Weight files as other projects ship them, turned into safetensors with timm's names (chapter 04).

Every function takes the bytes of one file and returns the bytes of one safetensors file. The same
input gives the same bytes on every machine, so that `assets` can pin the SHA-256 of the result.
"""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Tensors = dict[str, npt.NDArray[Any]]

__all__ = ["dinov2_from_onnx", "efficientnet_lite0_from_pth"]

_DTYPES = {"float32": "F32", "int64": "I64"}
_LITE0_BLOCKS_PER_STAGE = (1, 2, 2, 3, 3, 4, 1)


def dinov2_from_onnx(data: bytes) -> bytes:
    """DINOv2 ViT-S/14 out of an ONNX graph made from Hugging Face's implementation.

    Biases, norms and layer scales keep their names in the graph. The exporter transposed the
    weights of the linear layers and left them nameless: each is found as the MatMul input whose
    product meets the named bias. Anything after the encoder is left behind.

    Args:
        data: the bytes of the ONNX file, weights inside.

    Returns:
        A safetensors file with the 174 tensors of timm's `vit_small_patch14_dinov2`.

    Raises:
        KeyError: if the graph lacks one of the expected names.
    """
    graph = _OnnxWeights(data)
    tensors: Tensors = {
        "cls_token": graph["embeddings.cls_token"],
        "pos_embed": graph.position_embedding(),
        "patch_embed.proj.weight": graph["embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": graph["embeddings.patch_embeddings.projection.bias"],
        "norm.weight": graph["layernorm.weight"],
        "norm.bias": graph["layernorm.bias"],
    }
    for number in range(12):
        block = _dinov2_block(graph, f"encoder.layer.{number}")
        tensors.update({f"blocks.{number}.{key}": value for key, value in block.items()})
    return _to_safetensors(tensors)


def efficientnet_lite0_from_pth(data: bytes) -> bytes:
    """EfficientNet-Lite0 from lukemelas' PyTorch names to timm's `tf_efficientnet_lite0`.

    Args:
        data: the bytes of the `.pth` file, a plain state dict (read with `weights_only=True`).

    Returns:
        A safetensors file with the 296 tensors of timm's model.
    """
    import torch

    state: dict[str, torch.Tensor] = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return _to_safetensors({_timm_lite0_name(key): t.numpy() for key, t in state.items()})


class _OnnxWeights:
    """The constants of an ONNX graph, named ones by name and linear layers by their bias."""

    def __init__(self, data: bytes) -> None:
        import onnx
        from onnx import numpy_helper

        graph = onnx.load_model_from_string(data).graph
        self._constants: Tensors = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
        producer = {name: node for node in graph.node for name in node.output}
        self._weight_of_bias: dict[str, str] = {}
        for add in (node for node in graph.node if node.op_type == "Add"):
            bias, product = _split(add.input, self._constants)
            matmul = producer.get(product)
            if bias and matmul is not None and matmul.op_type == "MatMul":
                weight, _ = _split(matmul.input, self._constants)
                self._weight_of_bias[bias] = weight

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self._constants[f"backbone.{name}"]

    def linear_weight(self, layer: str) -> npt.NDArray[Any]:
        """The weight of a linear layer as PyTorch keeps it, (out, in)."""
        return self._constants[self._weight_of_bias[f"backbone.{layer}.bias"]].T

    def position_embedding(self) -> npt.NDArray[Any]:
        """The class token's place and 37 x 37 patches' places, (1, 1370, 384)."""
        import numpy as np

        by_length = {a.shape[1]: a for n, a in self._constants.items() if n.startswith("onnx::")}
        return np.concatenate([by_length[1], by_length[37 * 37]], axis=1)


def _split(inputs: Any, constants: Tensors) -> tuple[str, str]:
    """The two inputs of a node as (constant or "", the other)."""
    first, second = inputs
    if first in constants:
        return first, second
    return (second, first) if second in constants else ("", first)


def _dinov2_block(graph: _OnnxWeights, layer: str) -> Tensors:
    """One transformer block under timm's names."""
    import numpy as np

    qkv = [f"{layer}.attention.attention.{part}" for part in ("query", "key", "value")]
    block: Tensors = {
        "attn.qkv.weight": np.concatenate([graph.linear_weight(part) for part in qkv]),
        "attn.qkv.bias": np.concatenate([graph[f"{part}.bias"] for part in qkv]),
        "ls1.gamma": graph[f"{layer}.layer_scale1.lambda1"],
        "ls2.gamma": graph[f"{layer}.layer_scale2.lambda1"],
    }
    for ours, theirs in {
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "mlp.fc1",
        "mlp.fc2": "mlp.fc2",
    }.items():
        block[f"{ours}.weight"] = graph.linear_weight(f"{layer}.{theirs}")
        block[f"{ours}.bias"] = graph[f"{layer}.{theirs}.bias"]
    for norm in ("norm1", "norm2"):
        block[f"{norm}.weight"] = graph[f"{layer}.{norm}.weight"]
        block[f"{norm}.bias"] = graph[f"{layer}.{norm}.bias"]
    return block


def _timm_lite0_name(name: str) -> str:
    """`_blocks.3._depthwise_conv.weight` -> `blocks.2.0.conv_dw.weight`."""
    outside = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head"}
    outside |= {"_bn1": "bn2", "_fc": "classifier"}
    match = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if match is None:
        layer, parameter = name.split(".")
        return f"{outside[layer]}.{parameter}"
    number, layer, parameter = int(match[1]), match[2], match[3]
    # The first block has no expansion, so its layers count from one earlier.
    inside = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw"}
    inside |= {"_bn2": "bn2"}
    if number > 0:
        inside = {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw"}
        inside |= {"_bn1": "bn2", "_project_conv": "conv_pwl", "_bn2": "bn3"}
    stage = 0
    while number >= _LITE0_BLOCKS_PER_STAGE[stage]:
        number -= _LITE0_BLOCKS_PER_STAGE[stage]
        stage += 1
    return f"blocks.{stage}.{number}.{inside[layer]}.{parameter}"


def _to_safetensors(tensors: Tensors) -> bytes:
    """The safetensors format, written here so that no release of its library changes a byte.

    Eight bytes with the header's length, a JSON header, the tensors in order, little endian.

    Source: https://github.com/huggingface/safetensors#format
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    chunks: list[bytes] = []
    end = 0
    # Widest first keeps every tensor aligned, which the library asks of its own files too.
    for name in sorted(tensors, key=lambda key: (-tensors[key].itemsize, key)):
        chunk = _little_endian(tensors[name])
        start, end = end, end + len(chunk)
        header[name] = {
            "dtype": _DTYPES[tensors[name].dtype.name],
            "shape": list(tensors[name].shape),
            "data_offsets": [start, end],
        }
        chunks.append(chunk)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([len(text).to_bytes(8, "little"), text, *chunks])


def _little_endian(array: np.ndarray[Any, Any]) -> bytes:
    return array.astype(array.dtype.newbyteorder("<")).tobytes(order="C")
