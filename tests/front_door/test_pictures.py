"""Image models through the same front door: inspect, measure, survey, plan, apply, cut."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from secateur.cut import apply, cut, inspect, plan, survey
from secateur.measure import measure
from secateur.methods.data.dendromap import tree
from secateur.model.pictures import parted, read_pictures
from secateur.parts.edits import parse
from secateur.parts.menus import load_menu, load_plan, save_plan
from secateur.parts.vision import open_vision
from secateur.report import report
from secateur.types import BudgetError, DataError, ExportError, ModelError, PlanError, SecateurError


@pytest.fixture(scope="module")
def spotter(tmp_path_factory):
    """A small keyword spotter of random weights, and examples that it labels itself, nine of ten right."""
    place = tmp_path_factory.mktemp("pictures")
    draw = torch.Generator().manual_seed(0)

    def some(*shape, around=0.0):
        return torch.randn(shape, generator=draw) / max(np.prod(shape[1:]), 1) ** 0.5 + around

    tensors = {"conv.weight": some(16, 1, 10, 4), "conv.bias": some(16), "linear.weight": some(12, 16) * 9}
    tensors |= {"linear.bias": some(12)}
    for path in ("conv", *(f"block{i}.{kind}" for i in (1, 2) for kind in ("depthwise", "pointwise"))):
        if path != "conv":
            tensors |= {f"{path}.weight": some(16, 1, 3, 3) if "depth" in path else some(16, 16, 1, 1)}
            tensors |= {f"{path}.bias": some(16) * 0.1}
        tensors |= {f"{path}_bn.weight": some(16).abs() + 0.5, f"{path}_bn.bias": some(16) * 0.3}
        tensors |= {f"{path}_bn.running_mean": some(16) * 0.1, f"{path}_bn.running_var": some(16).abs() + 0.2}
    save_file(tensors, place / "kws.safetensors")
    features = torch.randint(60, 107, (240, 49, 10), generator=draw, dtype=torch.int8)
    seen = open_vision(place / "kws.safetensors")
    with torch.no_grad():
        labels = seen.network(seen.prepare(features)).argmax(1)
    labels[::10] = 3
    np.savez(place / "data.npz", features=features.numpy(), labels=labels.numpy().astype(np.uint8))
    return place / "kws.safetensors", place / "data.npz"


@pytest.fixture(scope="module")
def done(spotter, tmp_path_factory):
    """One whole job in the packed format."""
    out = tmp_path_factory.mktemp("jobs") / "out"
    return out, cut(str(spotter[0]), str(spotter[1]), "60% bytes", out=out, format="packed", samples=100)


def test_inspect_says_what_is_in_it(spotter):
    told = inspect(str(spotter[0]))
    assert [unit["kind"] for unit in told["units"]] == ["conv"] * 5 + ["linear"]
    assert told["flops"] == sum(unit["flops"] for unit in told["units"]) > 0
    assert told["preprocessing"]["shape"] == [1, 49, 10] and not told["skipped"]
    assert {unit["unit"]: unit["weights"] for unit in told["units"]}["block1.depthwise"] == 16 * 9


def test_the_file_is_what_was_priced_and_reads_back(done, spotter):
    out, result = done
    bytes_on_disk = (out / "packed.safetensors").stat().st_size
    assert bytes_on_disk == result["export"]["bytes_on_disk"] == result["spent"]["bytes"]
    assert bytes_on_disk <= result["budget"]["bytes"]
    assert result["export"]["logit_error"] < 1e-5 and "secateur" in result["export"]["verified_in"]
    assert result["damage_measured"] == pytest.approx(result["loss_after"] - result["loss_before"])
    assert 0 < result["damage_predicted"] < 1 and 0 <= result["accuracy_after"] <= 1
    assert open_vision(out).weights == sum(value.numel() for value in load_file(spotter[0]).values())


def test_what_was_held_back_is_left_as_a_map_of_what_the_last_layer_reads(done, spotter):
    """Pictures with what they were and are taken for; the tree is that of the features, wherever a run was broken."""
    known, lost = (json.loads((done[0] / f"{name}.json").read_text()) for name in ("examples", "windows"))
    held = parted(read_pictures(spotter[1]), 100, 0)[2]
    assert known["all"] == len(held) == len(known["pictures"]) == len(lost["first"])
    assert known["said"][0] == f"label {int(held.labels[0])}"
    seen = open_vision(spotter[0])
    read = []
    handle = seen.network.linear.register_forward_pre_hook(lambda _, args: read.append(args[0]))
    with torch.no_grad():
        before = seen.network(seen.prepare(held.x))
    handle.remove()
    assert lost["first_before"] == before.argmax(1).tolist()
    assert known["children"] == [list(pair) for pair in tree(read[0].numpy()).children]
    assert np.mean(lost["right"]) == pytest.approx(done[1]["accuracy_after"])


def test_measure_puts_them_side_by_side(done, spotter):
    model, data = map(str, spotter)
    rows = measure([model, str(done[0])], data, against=model)["rows"]
    assert rows[0]["kl"] == 0 and rows[0]["agreement"] == 1 and rows[0]["bits_per_weight"] == 32
    assert rows[1]["kl"] > 0 and rows[1]["bytes"] == done[1]["spent"]["bytes"]
    assert rows[1]["bits_per_weight"] == pytest.approx(done[1]["spent"]["bits_per_weight"])
    assert rows[0]["tokens"] == 240 and rows[0]["flops"] == rows[1]["flops"]
    seen = open_vision(model)
    with np.load(data) as held, torch.no_grad():
        logits = seen.network(seen.prepare(torch.from_numpy(held["features"])))
        labels = torch.from_numpy(held["labels"]).long()
    loss = float(torch.nn.functional.cross_entropy(logits, labels))
    assert rows[0]["loss"] == pytest.approx(loss, rel=1e-5, abs=1e-8)
    assert rows[0]["accuracy"] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))


def test_three_steps_are_one_and_a_broken_run_goes_on(done, spotter, tmp_path):
    model, data = map(str, spotter)
    menu = survey(model, data, format="packed", out=tmp_path / "menu", samples=100)
    assert [unit.kind for unit in load_menu(tmp_path / "menu").units] == [unit.kind for unit in menu.units]
    (chosen,) = plan(tmp_path / "menu", ["60% bytes"])
    save_plan(chosen, tmp_path / "plan.yaml")
    result = apply(model, tmp_path / "plan.yaml", data=data, out=tmp_path / "out", menu=tmp_path / "menu", samples=100)
    assert result["edits"] == done[1]["edits"]
    assert (tmp_path / "out" / "packed.safetensors").read_bytes() == (done[0] / "packed.safetensors").read_bytes()


def test_plain_tensors_for_everybody(spotter, tmp_path):
    model, data = map(str, spotter)
    how = {"format": "safetensors", "samples": 100, "pin": {"*.pointwise": "int(bits=4, group=16)"}}
    result = cut(model, data, "100% bytes", out=tmp_path / "out", **how)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert {name: value.shape for name, value in tensors.items()} == {
        name: value.shape for name, value in load_file(model).items()
    }
    assert len(tensors["block1.pointwise.weight"][0].unique()) <= 16
    assert result["export"]["verified_in"].startswith("secateur")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["preprocessing"]["mean"] == [83.0]


def test_what_is_refused_and_how(spotter, tmp_path):
    model, data = map(str, spotter)
    with pytest.raises(BudgetError, match="cheapest"):
        cut(model, data, "1 KB", out=tmp_path / "out", format="packed", samples=100)
    np.savez(tmp_path / "wrong.npz", images=np.zeros((90, 8, 8, 3), np.uint8), labels=np.zeros(90, np.uint8))
    with pytest.raises(DataError, match=r"of shape \[8, 8, 3\], and the network takes \[1, 49, 10\]"):
        cut(model, str(tmp_path / "wrong.npz"), "60% bytes", out=tmp_path / "out", format="packed")
    with pytest.raises(SecateurError, match="`--seq-len` is for language models"):
        measure([model], data, seq_len=4)
    tensors = load_file(model)
    tensors["block2.pointwise.weight"][3, 4] = torch.nan
    save_file(tensors, tmp_path / "kws.safetensors")
    with pytest.raises(ModelError, match=r"`block2\.pointwise\.weight` holds 1 NaN"):
        cut(str(tmp_path / "kws.safetensors"), data, "60% bytes", out=tmp_path / "out", format="packed", samples=100)


def test_a_real_resnet_from_the_command_line(secateur, shared, tmp_path):
    """Uniform 4 bits on ResNet-20 costs little; what is predicted is what is measured, within its error."""
    model = shared / "models/cifar_resnet/resnet20_jpeg.safetensors"
    how = ("--data", shared / "data/cifar10/train_5000.npz", "--samples", 60, "--format", "packed", "--json")
    said = secateur("cut", model, "--budget", "4.5 bits/weight", "-o", tmp_path / "out", *how)
    assert said.returncode == 0, said.stderr
    told = json.loads(said.stdout)
    assert told["spent"]["bits_per_weight"] <= 4.5
    assert told["kl"] < 0.06 and told["agreement"] > 0.9


# ---------------------------------------------------------------------------------------------------- fewer channels


@pytest.fixture(scope="module")
def narrow(spotter, tmp_path_factory):
    """A job with two caps: fewer FLOPs, and bytes that only codes can keep to."""
    out = tmp_path_factory.mktemp("jobs") / "narrow"
    budget = "65% flops, 70% bytes"
    return out, cut(str(spotter[0]), str(spotter[1]), budget, out=out, format="packed", samples=100)


def test_flops_and_bytes_are_kept_to(narrow, spotter):
    out, result = narrow
    assert result["spent"]["flops"] <= result["budget"]["flops"]
    assert result["spent"]["bytes"] == (out / "packed.safetensors").stat().st_size <= result["budget"]["bytes"]
    row, before = measure([str(out), str(spotter[0])], str(spotter[1]), samples=40)["rows"]
    assert row["flops"] == result["spent"]["flops"] < 0.65 * before["flops"] + 1
    assert row["parameters"] < before["parameters"]
    assert row["bits_per_weight"] == pytest.approx(result["spent"]["bits_per_weight"])
    assert any("channels" in edit for edit in result["edits"].values())
    assert result["export"]["logit_error"] < 1e-5 and result["damage_measured"] < 3


def test_fewer_channels_as_plain_tensors(spotter, tmp_path):
    model, data = map(str, spotter)
    menu = survey(model, data, format="safetensors", out=tmp_path / "menu", samples=100, edits="bits,channels")
    assert "flops" in menu.cost and np.isfinite(menu.cost["flops"]).sum() == np.isfinite(menu.damage).sum()
    plans = plan(tmp_path / "menu", ["80% flops", "60% flops"])
    assert plans[0].damage <= plans[1].damage
    save_plan(plans[1], tmp_path / "plan.yaml")
    how = {"data": data, "out": tmp_path / "out", "menu": tmp_path / "menu", "samples": 100}
    result = apply(model, tmp_path / "plan.yaml", **how)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    assert sum(value.numel() for value in tensors.values()) < sum(v.numel() for v in load_file(model).values())
    assert result["spent"]["flops"] == plans[1].spent["flops"]


def test_a_bias_before_a_normalisation_is_folded_with_it(spotter, tmp_path):
    """In ONNX, where layers that are kept have a bias of their own and a normalisation behind it."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    result = cut(*map(str, spotter), "65% flops", out=tmp_path / "out", format="onnx", samples=60)
    assert result["export"]["logit_error_exact"] < 1e-3 and result["folded"] == 5
    assert result["export"]["bytes_priced"] == result["spent"]["bytes"]


def test_the_usual_format_and_those_that_do_not_fit(spotter, tmp_path):
    model, data = map(str, spotter)
    assert cut(model, data, "80% bytes", out=tmp_path / "out", samples=60)["export"]["format"] == "packed"
    with pytest.raises(ExportError, match="`compressed-tensors` does not hold image models yet"):
        cut(model, data, "80% bytes", out=tmp_path / "out", samples=60, format="compressed-tensors")
    with pytest.raises(ExportError, match="there is no format `pecked`"):
        cut(model, data, "80% bytes", out=tmp_path / "out", samples=60, format="pecked")


def test_flops_that_nothing_can_save(spotter, tmp_path):
    model, data = map(str, spotter)
    with pytest.raises(BudgetError, match="flops"):
        cut(model, data, "1% flops", out=tmp_path / "out", format="packed", samples=100)
    menu = survey(model, data, format="safetensors", out=tmp_path / "menu", samples=100)
    with pytest.raises(BudgetError, match="no resource `flops`"):
        plan(menu, ["60% flops"])


def test_rounding_that_needs_the_inputs_alone(spotter, tmp_path):
    model, data = map(str, spotter)
    result = cut(model, data, "60% bytes", out=tmp_path / "out", format="packed", samples=60, round="one-sided")
    assert result["export"]["logit_error"] < 1e-5


# ----------------------------------------------------------------------------------------- a network of one's own

_OWN = """
import torch
from torch import nn


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 4, 4)
        self.qkv, self.out = nn.Linear(16, 48), nn.Linear(16, 16)
        self.up, self.down, self.head = nn.Linear(16, 32), nn.Linear(32, 16), nn.Linear(16, 5)
        self.preprocessing = {"shape": (3, 8, 8), "scale": 1 / 255, "mean": (0.5,) * 3, "std": (0.25,) * 3}

    def forward(self, x):
        x = self.patch(x).flatten(2).mT
        q, k, v = self.qkv(x).chunk(3, -1)
        x = x + self.out((q @ k.mT / 4).softmax(-1) @ v)
        x = x + self.down(torch.nn.functional.gelu(self.up(x)))
        return self.head(x.mean(1)) * 4


def attention():
    torch.manual_seed(0)
    return Attention()


class Branching(nn.Sequential):
    def forward(self, x):
        x = super().forward(x)
        return x if x.sum() > 0 else -x


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Linear(8, 5)
        self.preprocessing = Attention().preprocessing

    def forward(self, x):
        return self.head(torch.cat([self.a(x), self.b(x)], 1).mean((2, 3)))


def branching():
    made = Branching(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 6), nn.Flatten())
    made.preprocessing = Attention().preprocessing
    return made
"""


def test_a_small_transformer_from_a_function(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_network.py").write_text(_OWN)
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    seen = open_vision("own_network:attention")
    with torch.no_grad():
        labels = seen.network(seen.prepare(torch.from_numpy(images))).argmax(1).numpy()
    np.savez("data.npz", images=images, labels=labels)
    result = cut("own_network:attention", "data.npz", "70% bytes", out=tmp_path / "out", samples=100)
    assert result["export"]["logit_error"] < 1e-5
    rows = measure(["own_network:attention", f"own_network:attention@{tmp_path / 'out'}"], "data.npz")["rows"]
    assert rows[0]["accuracy"] == 1 and rows[1]["accuracy"] > 0.7
    with pytest.raises(ModelError, match="a network that a function makes"):
        measure([str(tmp_path / "out")], "data.npz")
    narrower = cut("own_network:attention", "data.npz", "95% flops", out=tmp_path / "narrow", samples=100)
    assert narrower["edits"]["up"].startswith("channels")


def test_channels_that_cannot_be_followed_are_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "odd_network.py").write_text(_OWN)
    images = np.random.default_rng(0).integers(0, 256, (200, 8, 8, 3), dtype=np.uint8)
    np.savez("data.npz", images=images, labels=np.arange(200) % 5)
    how = {"out": tmp_path / "out", "samples": 60}
    with pytest.raises(ModelError, match=r"cannot be traced \(.*control flow.*\)") as error:
        cut("odd_network:branching", "data.npz", "60% flops", **how)
    assert error.value.message.count("cannot be traced") == 1 and "branches" in error.value.hint
    with pytest.raises(ModelError, match=r"`a`: `cat` joins or reorders its channels; `b`") as error:
        cut("odd_network:Joined", "data.npz", "60% flops", **how)
    assert error.value.hint == "cap bytes or bits per weight instead"
    assert cut("odd_network:branching", "data.npz", "60% bytes", **how)["export"]["logit_error"] < 1e-4


# --------------------------------------------------------------------------------------------- trunks of a stage


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    """A residual network of two blocks a stage, random weights, whose trunks hold doubles, and pictures that it
    labels itself: channels of the trunks are the cheapest to lose."""
    place = tmp_path_factory.mktemp("residual")
    draw = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}

    def layer(conv: str, norm: str, rows: int, cols: int, doubled: bool) -> None:
        weight = torch.randn(rows, cols, 3, 3, generator=draw) / (9 * cols) ** 0.5
        parts = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": 1.0}
        tensors[f"{conv}.weight"] = weight
        tensors.update({f"{norm}.{p}": torch.randn(rows, generator=draw) * 0.2 + around for p, around in parts.items()})
        tensors[f"{norm}.running_var"].abs_()
        for name in (f"{conv}.weight", *(f"{norm}.{part}" for part in parts)) if doubled else ():
            tensors[name][rows // 2 :] = tensors[name][: rows // 2]

    layer("conv1", "bn1", 8, 3, True)
    for stage, (cols, rows) in enumerate(((8, 8), (8, 8), (8, 8)), 1):
        for block in (0, 1):
            layer(f"layer{stage}.{block}.conv1", f"layer{stage}.{block}.bn1", 6, cols if block == 0 else rows, False)
            layer(f"layer{stage}.{block}.conv2", f"layer{stage}.{block}.bn2", rows, 6, True)
    tensors |= {"linear.weight": 4 * torch.randn(10, 8, generator=draw), "linear.bias": torch.randn(10, generator=draw)}
    save_file(tensors, place / "resnet14.safetensors")
    images = torch.randint(0, 256, (160, 32, 32, 3), generator=draw, dtype=torch.uint8)
    seen = open_vision(place / "resnet14.safetensors")
    with torch.no_grad():
        labels = seen.network(seen.prepare(images)).argmax(1)
    np.savez(place / "data.npz", images=images.numpy(), labels=labels.numpy())
    return str(place / "resnet14.safetensors"), str(place / "data.npz")


@pytest.fixture(scope="module")
def thin(residual, tmp_path_factory):
    out = tmp_path_factory.mktemp("thin") / "out"
    return out, cut(*residual, "45% flops", out=out, format="safetensors", samples=80)


def test_trunks_are_cut_where_that_pays(thin, residual):
    out, result = thin
    assert result["edits"]["trunks"].startswith("trunks(")
    assert result["spent"]["flops"] <= result["budget"]["flops"]
    assert result["spent"]["bytes"] == (out / "model.safetensors").stat().st_size
    tensors = load_file(out / "model.safetensors")
    widths = [int(w) for w in result["edits"]["trunks"].split("'")[1].split()]
    assert {len(tensors[f"{name}.weight"]) for name in ("conv1", "layer2.0.conv2", "layer3.1.conv2")} == set(widths)
    assert min(widths) < 8 and result["agreement"] > 0.8
    row, before = measure([str(out), residual[0]], residual[1], samples=40)["rows"]
    assert row["flops"] == result["spent"]["flops"] <= 0.45 * before["flops"]


def test_a_narrower_menu_is_kept_and_a_plan_of_it_read(thin, residual, tmp_path):
    menu = load_menu(thin[0] / "menu")
    assert 1 <= len(menu.narrower) <= 10 and menu.units[-1].name == "trunks"
    (chosen,) = plan(menu, ["45% flops"])
    one = menu.that_offers(chosen.edits)
    assert one is not menu and chosen.bound <= chosen.damage
    save_plan(chosen, tmp_path / "plan.yaml")
    again = load_plan(tmp_path / "plan.yaml", menu)
    assert again.spent == chosen.spent
    with pytest.raises(BudgetError, match="cheapest plan on this menu"):
        plan(menu, ["0.1% flops"])
    edits = {**chosen.edits, "trunks": parse("trunks('1 1 1')")}
    save_plan(replace(chosen, edits=edits), tmp_path / "wrong.yaml")
    with pytest.raises(PlanError, match="`trunks` cannot have"):
        load_plan(tmp_path / "wrong.yaml", menu)


def test_trunks_with_a_layer_that_is_kept_stay_whole(residual, tmp_path):
    how = {"format": "safetensors", "samples": 80, "keep": ("conv1", "layer2.0.*", "layer3.1.*")}
    menu = survey(*residual, out=tmp_path / "menu", edits="bits,channels", **how)
    assert not menu.narrower and menu.units[-1].name != "trunks"


def test_the_report_and_the_command_line_know_trunks(thin, residual, secateur, tmp_path):
    out, result = thin
    page = report(out).read_text(encoding="utf-8")
    assert result["edits"]["trunks"].replace("'", "&#x27;") in page
    assert f"80 examples of {residual[1]}" in page
    told = secateur("apply", residual[0], out / "plan.yaml", "--data", residual[1], "--menu", out / "menu", "--samples",
                    80, "-o", tmp_path / "again", "--json")  # fmt: skip
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["spent"]["flops"] == result["spent"]["flops"]
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
