"""llama.cpp: q4_k_m | q3_k_m | q2_k | iq3_xxs | iq2_m | iq2_xs ... with an importance matrix of the calibration text

Add "+f16emb" to leave embeddings and head at 16 bits, so that only the linears differ; without it the whole file
follows llama.cpp's own mix. Llama-type models only. What is scored are the dequantized values: its kernels round
activations to 8 bits as well, and that is not to count against its formats. The file holds no tokenizer.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import STORED, THREADS, linears
from runner import main
from torch import Tensor

#: `enum llama_ftype` of llama.h
FTYPES = {"q4_0": 2, "q8_0": 7, "q2_k": 10, "q3_k_s": 11, "q3_k_m": 12, "q4_k_s": 14, "q4_k_m": 15, "q5_k_m": 17}
FTYPES |= {"q6_k": 18, "iq2_xxs": 19, "iq2_xs": 20, "iq3_xs": 22, "iq3_xxs": 23, "iq3_s": 26, "iq3_m": 27, "iq2_s": 28}
FTYPES |= {"iq2_m": 29, "iq4_xs": 30, "iq1_m": 31}

#: what transformers calls it, and what llama.cpp does
NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
NAMES |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
NAMES |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
OUTSIDE = {"model.embed_tokens": "token_embd", "lm_head": "output", "model.norm": "output_norm"}


class Importance(ctypes.Structure):
    """`struct llama_model_imatrix_data`; an array of them ends with an empty one."""

    _fields_ = (("name", ctypes.c_char_p), ("data", ctypes.POINTER(ctypes.c_float)), ("size", ctypes.c_size_t))


class Settings(ctypes.Structure):
    """`struct llama_model_quantize_params` of llama.cpp v0.5.0."""

    _fields_ = (
        *((name, ctypes.c_int32) for name in ("nthread", "ftype", "output_tensor_type", "token_embedding_type")),
        *((name, ctypes.c_bool) for name in ("allow_requantize", "quantize_output_tensor", "only_copy", "pure")),
        *((name, ctypes.c_bool) for name in ("keep_split", "dry_run")),
        ("imatrix", ctypes.POINTER(Importance)),
        *((name, ctypes.c_void_p) for name in ("kv_overrides", "tt_overrides", "prune_layers")),
    )


def library() -> Any:
    """The prebuilt library that `venvs.py` puts beside the environment (compiling it takes twenty minutes)."""
    folder = next(Path(sys.prefix).glob("node_modules/@node-llama-cpp/linux-x64/bins/linux-x64"))
    for part in ("libggml-base.so", "libggml.v*.so"):
        ctypes.CDLL(str(next(folder.glob(part))), ctypes.RTLD_GLOBAL)
    found: Any = ctypes.CDLL(str(next(folder.glob("libllama.v*.so"))))
    found.llama_model_quantize_default_params.restype = Settings
    found.llama_model_quantize.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Settings))
    if found.llama_model_quantize_default_params().pure or found.llama_model_quantize_default_params().imatrix:
        raise SystemExit("this llama.cpp lays out its settings in another way than v0.5.0")
    return found


def gguf_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.weight"
    _, _, block, rest = stem.split(".", 3)
    if rest not in NAMES:
        raise SystemExit(f"no name in llama.cpp's `llama` architecture for {name}")
    return f"blk.{block}.{NAMES[rest]}.weight"


def turned(w: np.ndarray, name: str, config: Any, back: bool = False) -> np.ndarray:
    """Rows of q and k in the other order: llama.cpp rotates neighbouring pairs, transformers rotates halves."""
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
    if not heads:
        return w
    half = len(w) // heads // 2
    x = w.reshape(heads, half, 2, -1) if back else w.reshape(heads, 2, half, -1)
    return x.swapaxes(1, 2).reshape(w.shape)


def write_f16(model: Any, path: Path) -> None:
    """The model as a 16-bit GGUF, with all that the quantizer looks at (it asks for no tokenizer)."""
    import gguf

    c = model.config
    if c.model_type != "llama":
        raise SystemExit(f"only Llama-type models, and this one is `{c.model_type}`")
    file = gguf.GGUFWriter(str(path), "llama")
    file.add_context_length(c.max_position_embeddings)
    file.add_embedding_length(c.hidden_size)
    file.add_block_count(c.num_hidden_layers)
    file.add_feed_forward_length(c.intermediate_size)
    file.add_head_count(c.num_attention_heads)
    file.add_head_count_kv(c.num_key_value_heads)
    file.add_layer_norm_rms_eps(c.rms_norm_eps)
    file.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    file.add_vocab_size(c.vocab_size)
    file.add_file_type(1)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        w = turned(tensor.float().numpy(), name, c)
        file.add_tensor(gguf_name(name), np.ascontiguousarray(w if w.ndim == 1 else w.astype(np.float16)))
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()


@torch.no_grad()
def importance(model: Any, calib: Tensor) -> dict[str, np.ndarray]:
    """Mean squared input of every linear layer: what llama.cpp's `imatrix` tool gathers."""
    sums: dict[str, Tensor] = {}

    def see(name: str) -> Callable[[Any, tuple[Tensor]], None]:
        def hook(_: Any, inputs: tuple[Tensor]) -> None:
            square = inputs[0].flatten(0, -2).double().square()
            sums[name] = sums.get(name, 0) + square.sum(0)

        return hook

    layers = [*linears(model), ("lm_head", model.lm_head)]
    hooks = [layer.register_forward_pre_hook(see(gguf_name(name))) for name, layer in layers]
    for rows in calib.split(8):
        model(input_ids=rows, use_cache=False)
    for hook in hooks:
        hook.remove()
    return {name: (total / calib.numel()).float().numpy() for name, total in sums.items()}


def cut(method: str, model: Any, tokenizer: Any, calib: Tensor) -> tuple[dict[str, Tensor], Callable[[Path], None]]:
    kind, _, flag = method.partition("+")
    if kind not in FTYPES or flag not in ("", "f16emb"):
        raise SystemExit(f"unknown method {method}\nhint: one of {', '.join(FTYPES)}, perhaps with +f16emb")
    llama = library()
    settings = llama.llama_model_quantize_default_params()
    settings.nthread, settings.ftype = THREADS, FTYPES[kind]
    if flag:
        settings.output_tensor_type = settings.token_embedding_type = 1  # GGML_TYPE_F16
    held = importance(model, calib)
    notes = (Importance * (len(held) + 1))()
    for note, (name, values) in zip(notes, held.items(), strict=False):
        note.name, note.size = name.encode(), values.size
        note.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    settings.imatrix = ctypes.cast(notes, ctypes.POINTER(Importance))
    with tempfile.TemporaryDirectory() as scratch:
        before, after = Path(scratch) / "f16.gguf", Path(scratch) / "cut.gguf"
        write_f16(model, before)
        code = llama.llama_model_quantize(str(before).encode(), str(after).encode(), ctypes.byref(settings))
        if code:
            raise SystemExit(f"llama_model_quantize returned {code}")
        raw, sizes = after.read_bytes(), _sizes(after)
        dense = _read_back(model, after)

    def write(folder: Path) -> None:
        (folder / "model.gguf").write_bytes(raw)
        (folder / STORED).write_text(json.dumps(sizes) + "\n")

    return dense, write


def _sizes(path: Path) -> dict[str, float]:
    """What `common.stored` cannot read from a GGUF: bits a weight over the linears of the blocks, bytes on disk."""
    import gguf

    inside = [t for t in gguf.GGUFReader(str(path)).tensors if t.name.startswith("blk.") and len(t.shape) > 1]
    bits = 8 * sum(int(t.n_bytes) for t in inside) / sum(int(t.n_elements) for t in inside)
    return {"bits_linear": bits, "file_bytes": path.stat().st_size}


def _read_back(model: Any, path: Path) -> dict[str, Tensor]:
    import gguf

    found = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(str(path)).tensors}
    dense = {}
    for name, was in model.state_dict().items():
        if gguf_name(name) in found:
            w = np.array(found[gguf_name(name)], dtype=np.float32).reshape(was.shape)
            dense[name] = torch.from_numpy(np.ascontiguousarray(turned(w, name, model.config, back=True)))
    return dense


if __name__ == "__main__":
    main("llama.cpp", "0.5.0", cut, __doc__ or "")
