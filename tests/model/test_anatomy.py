"""Every family: what its units are, and that what is loaded by them is what transformers loads."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import nn

from secateur.model.anatomy import anatomy, load_block, skeleton, unload
from secateur.model.checkpoint import open_checkpoint
from secateur.model.families import GENERIC, family
from secateur.model.load import parameters_on_meta
from secateur.model.matrix import put, view
from secateur.types import ModelError

IDS = torch.randint(3, 96, (2, 12), generator=torch.Generator().manual_seed(0))


def read(folder):
    checkpoint = open_checkpoint(folder)
    network = skeleton(checkpoint)
    return checkpoint, network, anatomy(checkpoint, network)


def logits(network):
    with torch.no_grad():
        return network.eval()(IDS).logits


def same(one, two):
    """Equal but for the last bits: kernels take other paths for other alignments in memory."""
    return torch.allclose(one, two, rtol=1e-5, atol=1e-5)


def reference(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def rewrite(folder, change):
    """Change the stored tensors: `change(weights) -> weights`."""
    weights = change(load_file(folder / "model.safetensors"))
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "model.safetensors")


# -------------------------------------------------------------------------------------------------- every family


def test_units_hold_the_weights(any_family):
    """At least 99% of the weights of the blocks and every large tensor is in a unit or skipped with a reason."""
    checkpoint, _, found = read(any_family)
    cut = {m.tensor for unit in found.units for m in unit.matrices}
    reasons = dict(found.skipped)
    in_blocks = {m.tensor for unit in found.units if unit.block is not None for m in unit.matrices}
    matrices = {n: e for n, e in checkpoint.tensors.items() if len(e.shape) > 1 and not n.endswith("bias")}
    assert set(matrices) <= cut | set(reasons)
    assert cut | set(found.rest) == set(checkpoint.tensors) and not cut & set(found.rest)
    outside = {n for n in cut if n not in in_blocks}
    blocks = {
        n: e
        for n, e in matrices.items()
        if n not in outside and not re.search("wpe|embed_pos|gate.weight|router|_gate.weight", n)
    }
    assert sum(blocks[n].size for n in in_blocks) >= 0.99 * sum(e.size for e in blocks.values())
    # no weight is in two units, and a unit's shape is its tensors'
    sizes: dict[str, int] = {}
    for matrix in (m for unit in found.units for m in unit.matrices):
        sizes[matrix.tensor] = sizes.get(matrix.tensor, 0) + matrix.size
    assert sizes == {n: checkpoint.tensors[n].size for n in sizes}
    keys = [key for unit in found.units for key in unit.members]
    assert len(keys) == len(set(keys))


def test_loaded_whole_it_is_what_transformers_loads(any_family):
    checkpoint, network, found = read(any_family)
    assert all(p.is_meta for p in network.parameters()) and not any(b.is_meta for b in network.buffers())
    load_block(checkpoint, found, "", network)
    assert same(logits(network), logits(reference(any_family)))


def test_loaded_module_by_module_and_unloaded(any_family):
    checkpoint, network, found = read(any_family)
    buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
    for path in found.blocks:
        load_block(checkpoint, found, path, network.get_submodule(path), dtype=torch.float64)
        assert {p.dtype for p in network.get_submodule(path).parameters()} == {torch.float64}
        unload(network.get_submodule(path))
    assert all(p.is_meta for p in network.parameters())
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, buffers[name])
    for path in found.blocks:
        load_block(checkpoint, found, path, network.get_submodule(path))
    outside = {n.rpartition(".")[0] for n, p in network.named_parameters(remove_duplicate=False) if p.is_meta}
    for path in outside:
        load_block(checkpoint, found, path, network.get_submodule(path))
    assert same(logits(network), logits(reference(any_family)))


def test_view_and_put_every_matrix(any_family):
    """What a matrix views in the network is what its tensor holds on disk; putting it back changes nothing."""
    checkpoint, network, found = read(any_family)
    load_block(checkpoint, found, "", network)
    for matrix in (m for unit in found.units for m in unit.matrices):
        stored = checkpoint.read(matrix.tensor)
        stored = stored if matrix.index is None else stored[matrix.index]
        stored = stored.T if matrix.transposed else stored
        assert torch.equal(view(network, matrix), stored.reshape(matrix.rows, matrix.cols)), matrix
    before = logits(network)
    for matrix in (m for unit in found.units for m in unit.matrices):
        values = view(network, matrix).clone()
        put(network, matrix, torch.zeros_like(values))
        put(network, matrix, values)
    assert torch.equal(logits(network), before)


def test_units_of_a_block_see_the_same_input_only_in_groups(any_family):
    _, _, found = read(any_family)
    for unit in found.units:
        if unit.kind == "linear" and len(unit.matrices) > 1 and found.family != "generic":
            assert len({m.tap for m in unit.matrices}) == 1
            assert unit.matrices[0].tap in {m.tensor.removesuffix(".weight") for m in unit.matrices}
        assert len({m.cols for m in unit.matrices}) == 1


# --------------------------------------------------------------------------------------------------- by hand


def names(found, block=1):
    return [u.name.split(f".{block}.")[1] for u in found.units if u.block == block]


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "llama": ["self_attn.qkv", "self_attn.o_proj", "mlp.gate_up", "mlp.down_proj"],
        "gemma2": ["self_attn.qkv", "self_attn.o_proj", "mlp.gate_up", "mlp.down_proj"],
        "phi3": ["self_attn.o_proj", "self_attn.qkv_proj", "mlp.gate_up_proj", "mlp.down_proj"],
        "opt": ["self_attn.qkv", "self_attn.out_proj", "fc1", "fc2"],
        "gpt2": ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"],
        "gpt_neox": ["attention.query_key_value", "attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"],
        "mixtral": ["self_attn.qkv", "self_attn.o_proj", "mlp.experts.gate_up", "mlp.experts.down"],
        "qwen2_moe": [
            "self_attn.qkv",
            "self_attn.o_proj",
            "mlp.experts.gate_up",
            "mlp.experts.down",
            "mlp.shared_expert.gate_up",
            "mlp.shared_expert.down_proj",
        ],
        "gpt_oss": ["self_attn.qkv", "self_attn.o_proj", "mlp.experts.gate_up", "mlp.experts.down"],
    }.items(),
)
def test_units_of_one_block(tiny, name, expected):
    assert names(read(tiny(name))[2]) == expected


def test_group_keeps_the_order_of_its_table(tiny):
    """OPT builds k before q."""
    found = read(tiny("opt"))[2]
    (qkv,) = [u for u in found.units if u.name == "model.decoder.layers.0.self_attn.qkv"]
    assert [m.tensor.split(".")[-2] for m in qkv.matrices] == ["q_proj", "k_proj", "v_proj"]
    assert qkv.matrices[1].tap == "model.decoder.layers.0.self_attn.q_proj"


def test_dense_and_expert_layers_side_by_side(tiny):
    found = read(tiny("qwen2_moe"))[2]
    assert names(found, block=0) == ["self_attn.qkv", "self_attn.o_proj", "mlp.gate_up", "mlp.down_proj"]
    why = dict(found.skipped)
    assert "router" in why["model.layers.1.mlp.gate.weight"]
    assert "gate" in why["model.layers.1.mlp.shared_expert_gate.weight"]


def test_experts_one_by_one_on_disk(tiny):
    """Twelve of them: 10 and 11 must not come before 2."""
    found = read(tiny("qwen3_moe"))[2]
    (unit,) = [u for u in found.units if u.name == "model.layers.0.mlp.experts.gate_up"]
    assert unit.kind == "experts" and len(unit.matrices) == 24
    gate, up = unit.matrices[4:6]
    assert gate.tensor == "model.layers.0.mlp.experts.2.gate_proj.weight" and gate.index is None
    assert gate.place == "model.layers.0.mlp.experts.gate_up_proj#2[0:24]"
    assert up.place == "model.layers.0.mlp.experts.gate_up_proj#2[24:48]"
    assert gate.tap == up.tap == "model.layers.0.mlp.experts.gate_up_proj#2"


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_experts_fused_on_disk(tiny, name):
    """The same network saved with 3-D tensors: the same logits, one matrix for gate and up together."""
    folder = tiny(name, save_original_format=False)
    checkpoint, network, found = read(folder)
    unit = next(u for u in found.units if u.name.endswith("1.mlp.experts.gate_up"))
    tensor = "model.layers.1.mlp.experts.gate_up_proj"
    assert unit.members[:2] == (f"{tensor}#0", f"{tensor}#1") and checkpoint.tensors[tensor].shape[0] == len(
        unit.matrices
    )
    load_block(checkpoint, found, "", network)
    assert same(logits(network), logits(reference(folder)))
    for matrix in unit.matrices:
        assert torch.equal(view(network, matrix), checkpoint.read(matrix.tensor)[matrix.index])


def test_neox_stores_its_head_under_another_name(tiny):
    (head,) = [u for u in read(tiny("gpt_neox"))[2].units if u.kind == "head"]
    assert head.matrices[0].tensor == "embed_out.weight" and head.matrices[0].place == "lm_head.weight"


def test_old_gpt2_without_prefix_and_with_masks(tiny, tmp_path):
    folder = shutil.copytree(tiny("gpt2"), tmp_path / "old")
    before = logits(reference(folder))
    rewrite(
        folder,
        lambda w: (
            {n.removeprefix("transformer."): v for n, v in w.items()} | {"h.0.attn.bias": torch.ones(1, 1, 64, 64)}
        ),
    )
    checkpoint, network, found = read(folder)
    load_block(checkpoint, found, "", network)
    assert torch.equal(logits(network), before)
    assert dict(found.skipped)["h.0.attn.bias"] == "this architecture does not use it"
    matrix = next(u for u in found.units if u.block == 0).matrices[0]
    assert (matrix.tensor, matrix.place) == ("h.0.attn.c_attn.weight", "transformer.h.0.attn.c_attn.weight")


def test_families_are_found_by_path():
    assert family("qwen3").groups == family("llama").groups
    assert family("never heard of") is GENERIC


# ------------------------------------------------------------------------------------------------- tied embeddings


@pytest.mark.parametrize("name", ["llama-tied", "gemma3", "gpt2", "opt"])
def test_tied_is_one_unit(tiny, name):
    checkpoint, network, found = read(tiny(name))
    assert found.tied and found.head == "lm_head"
    assert [u.kind for u in found.units].count("embedding") == 1 and "head" not in [u.kind for u in found.units]
    load_block(checkpoint, found, "", network)
    assert network.get_input_embeddings().weight is network.get_output_embeddings().weight
    (unit,) = [u for u in found.units if u.kind == "embedding"]
    put(network, unit.matrices[0], torch.zeros(unit.matrices[0].rows, unit.matrices[0].cols))
    assert network.get_output_embeddings().weight.abs().sum() == 0


def test_tied_by_config_and_twice_on_disk(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama-tied"), tmp_path / "twice")
    rewrite(folder, lambda w: w | {"lm_head.weight": w["model.embed_tokens.weight"].clone()})
    found = read(folder)[2]
    assert found.tied
    assert dict(found.skipped) == {"lm_head.weight": "a copy of `model.embed_tokens.weight`, to which it is tied"}


def test_tied_by_config_but_different_on_disk(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama-tied"), tmp_path / "different")
    rewrite(folder, lambda w: w | {"lm_head.weight": torch.randn_like(w["model.embed_tokens.weight"])})
    checkpoint, network, found = read(folder)
    assert not found.tied and [u.kind for u in found.units if u.block is None] == ["embedding", "head"]
    load_block(checkpoint, found, "", network)
    assert same(logits(network), logits(reference(folder)))


def test_tied_with_only_the_head_on_disk(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama-tied"), tmp_path / "head")
    rewrite(folder, lambda w: {("lm_head.weight" if "embed" in n else n): v for n, v in w.items()})
    checkpoint, network, found = read(folder)
    assert found.tied
    (unit,) = [u for u in found.units if u.kind == "embedding"]
    assert unit.matrices[0].tensor == "lm_head.weight" and unit.matrices[0].place == "model.embed_tokens.weight"
    load_block(checkpoint, found, "", network)
    assert same(logits(network), logits(reference(folder)))


# ----------------------------------------------------------------------------------------- what the generic path does


class Odd(nn.Module):
    """No transformers model: convolutions, a list of blocks, and things that are not a matrix times an input."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.deep = nn.Conv2d(8, 8, 3, groups=8)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)) for _ in range(3)])
        self.attention = nn.MultiheadAttention(8, 2)
        self.free = nn.Parameter(torch.zeros(4, 4))
        self.norm = nn.BatchNorm2d(8)


def test_any_module(tmp_path):
    net = Odd()
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "odd"}')
    checkpoint = open_checkpoint(tmp_path)
    with parameters_on_meta():
        empty = Odd()
    found = anatomy(checkpoint, empty)
    assert [(u.name, u.kind, u.block) for u in found.units] == [
        ("stem", "conv", None),
        ("deep", "conv", None),
        *[(f"blocks.{i}.{j}", "linear", i) for i in range(3) for j in range(2)],
    ]
    assert found.units[0].matrices[0].cols == 27 and found.family == "generic"
    assert found.units[1].matrices[0].cols == 9  # every channel by itself
    assert found.units[0].matrices[0].stored == (8, 3, 3, 3)
    why = dict(found.skipped)
    assert "MultiheadAttention" in why["attention.out_proj.weight"]
    assert "bare parameter" in why["attention.in_proj_weight"] and "bare parameter" in why["free"]
    load_block(checkpoint, found, "", empty)
    for name, value in net.state_dict().items():
        assert torch.equal(empty.state_dict()[name], value)


def test_experts_kept_as_a_list_share_a_unit(tmp_path):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.experts = nn.ModuleList(
                [nn.ModuleDict({"w1": nn.Linear(4, 6), "w2": nn.Linear(6, 4)}) for _ in range(3)]
            )

    net = nn.Module()
    net.layers = nn.ModuleList([Block(), Block()])
    save_file(net.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "odd"}')
    found = anatomy(open_checkpoint(tmp_path), net)
    assert [(u.name, u.kind, len(u.matrices)) for u in found.units[:2]] == [
        ("layers.0.experts.w1", "experts", 3),
        ("layers.0.experts.w2", "experts", 3),
    ]


# ---------------------------------------------------------------------------------------------------------- bad input


def test_a_missing_tensor_is_named(tiny, tmp_path):
    folder = shutil.copytree(tiny("llama"), tmp_path / "m")
    rewrite(folder, lambda w: {n: v for n, v in w.items() if "layers.1.mlp" not in n})
    with pytest.raises(
        ModelError, match=r"lacks `model.layers.1.mlp.gate_proj.weight` and 2 more, which LlamaForCausalLM"
    ):
        read(folder)


def test_a_shape_that_the_config_does_not_give(tiny, tmp_path):
    folder = shutil.copytree(tiny("mixtral"), tmp_path / "m")
    rewrite(folder, lambda w: w | {"lm_head.weight": torch.zeros(95, 32)})
    with pytest.raises(
        ModelError, match=r"`lm_head.weight` gives \[95, 32\] where MixtralForCausalLM needs \[96, 32\]"
    ):
        read(folder)


def test_a_missing_expert(tiny, tmp_path):
    folder = shutil.copytree(tiny("mixtral"), tmp_path / "m")
    rewrite(folder, lambda w: {n: v for n, v in w.items() if "layers.0.block_sparse_moe.experts.3.w2" not in n})
    with pytest.raises(ModelError, match=r"gives \[3, 32, 48\] where MixtralForCausalLM needs \[4, 32, 48\]"):
        read(folder)


@pytest.mark.parametrize("own_code", [False, True])
def test_unknown_architecture(tiny, tmp_path, own_code):
    folder = shutil.copytree(tiny("llama"), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text()) | {"model_type": "zebra", "architectures": ["ZebraLM"]}
    if own_code:
        config["auto_map"] = {"AutoConfig": "evil.Zebra", "AutoModelForCausalLM": "evil.ZebraLM"}
        (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="does not know the architecture `zebra`"):
        skeleton(open_checkpoint(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"hidden_size": "big"}, "hidden_size"), ({"hidden_act": "loud"}, "loud"), ({"num_attention_heads": 0}, "zero")],
)
def test_a_configuration_that_makes_no_network(tiny, tmp_path, wrong, said):
    folder = shutil.copytree(tiny("llama"), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text()) | wrong
    config.pop("head_dim", None)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="makes no `llama`") as caught:
        skeleton(open_checkpoint(folder))
    assert said in caught.value.message and "\n" not in caught.value.message


# --------------------------------------------------------------------------------------------------------- no trace


def test_building_leaves_no_trace(tiny):
    state = torch.random.get_rng_state()
    skeleton(open_checkpoint(tiny("llama")))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not nn.Linear(2, 2).weight.is_meta


def test_no_weight_is_ever_allocated(tiny):
    """The skeleton of a model of 70 billion parameters is built in a moment and in no memory."""
    config = transformers.LlamaConfig(hidden_size=8192, intermediate_size=28672, num_hidden_layers=80, vocab_size=32000)
    with parameters_on_meta():
        network = transformers.AutoModelForCausalLM.from_config(config)
    assert sum(p.numel() for p in network.parameters()) > 69e9
