"""The walk of a cut: every block loaded, run as it is, rounded, run again as it has become, and its part written.

Both networks, uncut and cut, go over the held-back text at once. A killed run finds the finished parts and the hidden
states behind them, and goes on from there to the same bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from secateur.cut.case import Case, Samples, Tell, also
from secateur.cut.channels import Groups
from secateur.cut.comparing import compare
from secateur.cut.examples import Seen, reading
from secateur.cut.gathering import complete, modules_of, statistics
from secateur.cut.kept import store_factors, stored_factors
from secateur.export import Parts
from secateur.export._write import write_text
from secateur.maths.channels import refitted
from secateur.maths.grids import Coded
from secateur.maths.settle import MANY, Task, at_once, settle_all, together
from secateur.measure.compare import Comparison
from secateur.model.factors import Factors
from secateur.model.load import trim
from secateur.model.matrix import place, put, view
from secateur.model.parked import States, load, parked, save
from secateur.model.resize import fewer_experts
from secateur.parts.edits.channels import Channels
from secateur.parts.edits.drop import Drop
from secateur.parts.edits.experts import Experts
from secateur.parts.edits.heads import Heads
from secateur.parts.experts import Fewer
from secateur.parts.knives import OfExperts
from secateur.parts.left import count, narrowed, removal, stays, vector_stays
from secateur.parts.trunk import stay, vector
from secateur.types import Edit, Matrix, Unit


@dataclass
class UnitFactors:
    """The factors of each unit: the survey's, or gathered now, all at once, before any block is loaded to be cut."""

    case: Case
    work: Path
    seed: int
    tell: Tell
    sides: int = 2  # one-sided feedback needs the inputs alone

    def gather(self, units: Sequence[Unit]) -> None:
        """See to it that the factors of these units are at hand."""
        at = {unit.name: place for place, unit in enumerate(self.case.units)}
        if all(Parts(self.work / "factors").has(str(at[unit.name])) for unit in units):
            return
        for some, factors in statistics(self.case, self.work, self.seed, self.tell, self.sides < 2):
            for unit in some:
                store_factors(self.work, at[unit.name], complete(unit, factors))

    def __call__(self, unit: Unit) -> Mapping[str, Factors]:
        found = stored_factors(self.work, self.case.units.index(unit), unit)
        assert found is not None
        return found


@dataclass
class Found:
    """What has been found while cutting; kept beside the parts, so that a resumed run reports all of it."""

    damage: float = 0.0
    bad_rows: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Walk:
    """All blocks, in order, cut and written; what is cut outside the blocks waits in the work folder for the end."""

    case: Case
    edits: Mapping[str, Edit]
    sides: int
    factors: UnitFactors
    work: Path
    still: frozenset[str] = frozenset()  # modules that are left alone
    found: Found = field(default_factory=Found)
    seen: Seen = field(default_factory=Seen)  # of what is held back
    kept: dict[str, Tensor] = field(default_factory=dict)  # channels that stay, by unit
    along: dict[str, Tensor] = field(default_factory=dict)  # and by trunk, in their order
    fewer: dict[str, Fewer] = field(default_factory=dict)  # what experts become, by unit
    room: ExitStack = field(default_factory=ExitStack)  # layers of experts that are small until their block is left

    def __call__(self, tell: Tell) -> tuple[Comparison, Tensor]:
        """The comparison of both networks on the held-back text, and the cut one's logits on `some`."""
        stream = self.case.stream
        n = len(stream.blocks)
        self.factors.gather([u for u in self.case.units if self._grid(u) is not None or self._fewer(u)])
        done, plain, cut = self._taken_up() or self._begun()
        for i in range(done, n):
            tell("cutting", i, n)
            after = [parked(stream.behind(i, plain.shape), self.work / name, 4) for name in ("plain", "cut")]
            with stream.loaded(stream.blocks[i]), self.room:
                with reading(stream, self.work):
                    stream.through(i, plain, after[0])
                self._narrow(tell)
                mine = [unit for unit in self.case.units if unit.block == i]
                self._choose(mine)
                self._cut(mine)
                trim()
                gone = bool(mine) and all(isinstance(self.edits[unit.name], Drop) for unit in mine)
                with stream.without(i) if gone else nullcontext():
                    stream.through(i, cut, after[1])
            plain, cut = after
            self._keep(i + 1, plain, cut)
        tell("cutting", n, n)
        put = self._cut_loaded([unit for unit in self.case.units if unit.kind == "head"]) | self._outside()
        seen: list[Tensor] = []
        places = stream.places(self.some[:1])

        def see(states: Tensor, theirs: Tensor, ours: Tensor) -> None:
            seen.append(ours[:, :places].cpu().clone())
            self.seen(states, theirs, ours)

        compared = compare(self.case, self.case.held, plain, cut, put, see)
        return compared, torch.cat(seen)[: len(self.some)]

    @property
    def some(self) -> Samples:
        """What is held back and the runtime's logits are held against ours on."""
        return self.case.stream.some(self.case.held)

    def _begun(self) -> tuple[int, States, States]:
        """The first step: what stands before the blocks, or beside them."""
        case = self.case
        put = self._cut_loaded([unit for unit in case.units if unit.block is None and unit.kind != "head"])
        Parts(self.work).save("outside", {m.key: values.cpu().contiguous() for m, values in put.items()})
        plain, cut = (case.stream.embed(case.held, self.work / f"walked-0-{i}", p, 4) for i, p in enumerate(({}, put)))
        self._keep(0, plain, cut)
        return 0, plain, cut

    def _outside(self) -> dict[Matrix, Tensor]:
        held = Parts(self.work).load("outside")
        return {m: held[m.key] for unit in self.case.units for m in unit.matrices if m.key in held}

    def _keep(self, done: int, plain: States, cut: States) -> None:
        """What is needed to go on after `done` blocks; whole, then what lies before goes."""
        for i, states in enumerate((plain, cut)):
            save(states, self.work / f"walked-{done}-{i}")
        shape = list(plain.shape)
        write_text(self.work / "walked.json", json.dumps({"done": done, "shape": shape, "found": asdict(self.found)}))
        for i in range(2):
            (self.work / f"walked-{done - 1}-{i}").unlink(missing_ok=True)

    def _taken_up(self) -> tuple[int, States, States] | None:
        """Where an earlier, broken run had come to."""
        file = self.work / "walked.json"
        if not file.exists():
            return None
        told = json.loads(file.read_text())
        self.found = Found(**told["found"])
        self.case.stream.meet(self.case.held)
        plain, cut = (load(told["shape"], self.work / f"walked-{told['done']}-{i}", 4) for i in range(2))
        return told["done"], plain, cut

    def _narrow(self, tell: Tell) -> None:
        """Take channels of an image model away where the plan says so, and keep what that renews in the rest of it."""
        case = self.case
        fewer = any(isinstance(edit, Channels) for edit in self.edits.values()) or case.widths
        if not case.groups or not fewer:
            return
        tell("narrowing", 0, 1)
        known = [unit for unit in case.units if unit.kind == "channels" or case.widths]
        factors = {key: f for unit in known for key, f in self.factors(unit).items()}
        self.kept, self.along = Groups(case, factors).take(self.edits, self.still, case.widths)
        state = case.stream.network.state_dict()
        stay = {name: vector(name, state[name], case.trunks, self.along) for name in case.rest}
        Parts(self.work).save("renewed", {name: value.cpu().contiguous() for name, value in stay.items()})
        tell("narrowing", 1, 1)

    def _fewer(self, unit: Unit) -> bool:
        """Whether a unit is to lose channels, heads or experts."""
        narrow = unit.kind == "channels" or bool(self.case.widths)
        return narrow or isinstance(self.edits[unit.name], Channels | Heads | Experts)

    def _choose(self, units: Sequence[Unit]) -> None:
        """Which channels, KV heads and experts stay, of a loaded block's parts that are to lose some."""
        for unit in units:
            edit = self.edits[unit.name]
            if unit.side is not None and unit.side.mixes and isinstance(edit, Experts):
                makers = next(one for one in units if one.side is not None and one.side.part == unit.side.part)
                found = {**self.factors(makers), **self.factors(unit)}
                knife = OfExperts.of(self.case.stream.network, makers, unit, found)
                fewer = knife.experts.fewer(edit.left(count(unit)), edit.merge)
                self.fewer |= {makers.name: fewer, unit.name: fewer}
            if unit.side is not None and unit.side.mixes and isinstance(edit, Channels | Heads):
                (m,) = unit.matrices
                kept = removal(unit, view(self.case.stream.network, m), self.factors(unit)[m.key]).kept(
                    edit.left(count(unit))
                )
                same = (one.name for one in units if one.side is not None and one.side.part == unit.side.part)
                self.kept |= dict.fromkeys(same, kept)

    def _cut_loaded(self, units: Sequence[Unit]) -> dict[Matrix, Tensor]:
        with self.case.stream.loaded(*modules_of(self.case, units)):
            return self._cut(units)

    def _cut(self, units: Sequence[Unit]) -> dict[Matrix, Tensor]:
        """Cut loaded units in place and write their part of the file, as many at a time as fill a sweep; what the
        runtime will see of their matrices outside the blocks."""
        out: dict[Matrix, Tensor] = {}
        self._make_room(units)
        for some in together(units, lambda unit: unit.size, at_once(self.case.device)):
            coded = {key: one.cpu() for key, one in self._settled(some)}
            for unit in some:
                out |= self._written(unit, coded)
        return out

    def _written(self, unit: Unit, coded: Mapping[str, Coded]) -> dict[Matrix, Tensor]:
        """One unit, as it was coded, into its part and into the network."""
        case = self.case
        left, edit = case.left(unit, self.edits[unit.name])
        part, place = Parts(self.work / "parts"), str(case.units.index(unit))
        if not left.matrices:
            self._drop(unit)
            part.save(place, {})
            return {}
        dtype, mine = case.dtype_of(unit, edit), {m.key: coded[m.key] for m in left.matrices}
        part.save(place, case.format.encode(left, edit, mine, dtype) | self._vectors(unit))
        out: dict[Matrix, Tensor] = {}
        for m in (m for m in unit.matrices if m.key in mine):
            seen = case.format.seen(left, edit, mine[m.key].values, dtype)
            put(case.stream.network, m, self._spread(unit, m, seen))
            if unit.block is None:
                out[m] = seen
        return out

    def _make_room(self, units: Sequence[Unit]) -> None:
        """Layers that have fewer experts have as many as are left, until their block is left; their routers know."""
        network = self.case.stream.network
        for unit in units:
            if unit.name in self.fewer and unit.side is not None and unit.side.router:
                router, n = self._router(unit), len(self.fewer[unit.name].groups)
                self.room.enter_context(fewer_experts(network, unit.side.part, unit.side.router, n))
                network.get_submodule(unit.side.router).weight.copy_(router)
        self.room.callback(self.fewer.clear)  # it holds the block's weights

    def _router(self, unit: Unit) -> Tensor:
        """The rows of a router of fewer experts, in the type that they are stored in."""
        return self.fewer[unit.name].router.cpu().to(self.case.checkpoint.read(unit.vectors[0]).dtype)

    def _drop(self, unit: Unit) -> None:
        """A unit that is gone: what mixes gives zeros."""
        network = self.case.stream.network
        for m in unit.matrices:
            put(network, m, torch.zeros(m.rows, m.cols))
        bias = getattr(network.get_submodule(place(unit.matrices[0]).module), "bias", None)
        if unit.side is not None and unit.side.mixes and bias is not None:
            bias.zero_()

    def _grid(self, unit: Unit) -> Any:
        return narrowed(unit, self.edits[unit.name])[1].grid(self.case.dtype)  # type: ignore[attr-defined]

    def _settled(self, units: Sequence[Unit]) -> Iterator[tuple[str, Coded]]:
        """The matrices of loaded units on their grids, settled side by side; those without a grid as they are."""
        tasks: dict[str, Task] = {}
        for unit in units:
            if isinstance(self.edits[unit.name], Drop):
                continue
            grid = self._grid(unit)
            mixes = unit.side is not None and unit.side.mixes and unit.name in self.kept
            fewer = self.fewer.get(unit.name)
            known = self.factors if fewer is None else fewer.factors
            factors = {} if grid is None and not mixes else known(unit)
            network = self.case.stream.network
            held = {m.key: view(network, m) for m in unit.matrices} if fewer is None else fewer.weights(unit)
            for m in (m for m in unit.matrices if m.key in held):
                rows, cols = self._stay(unit, m)
                w = held[m.key][rows]
                w = refitted(w, factors[m.key].a.to(w.device), cols.to(w.device)) if mixes else w[:, cols]
                if grid is None:
                    dtype = getattr(torch, self.case.dtype_of(unit, self.edits[unit.name]))
                    yield m.key, Coded((w.to(dtype).float() if mixes or fewer else w).clone(), {})
                else:
                    a, g = factors[m.key].a[cols][:, cols], factors[m.key].g[rows]
                    g = g if g.ndim == 1 else g[:, rows]
                    tasks[m.key] = Task(w, grid, a.to(w.device), g.to(w.device))
        for key, done in zip(tasks, settle_all(list(tasks.values()), self.sides), strict=True):
            self.found.damage += done.damage
            if done.bad_rows:
                self.found.bad_rows.append({"unit": key, "rows": list(done.bad_rows)})
            yield key, done.grid.code(done.values)
        if sum(unit.size for unit in units) >= MANY:
            trim()

    def _vectors(self, unit: Unit) -> dict[str, Tensor]:
        """What goes with a unit's channels, as it has become, of those that stay; and what stays with any."""
        if unit.side is not None:
            return self._beside(unit)
        if not unit.vectors:
            return {}
        state = self.case.stream.network.state_dict()
        kept = self.kept.get(unit.name, slice(None))
        tensors = {name: state[name][kept].to(self.case.checkpoint.read(name).dtype) for name in unit.vectors}
        return self.case.format.disk.encode_rest({name: value.cpu().contiguous() for name, value in tensors.items()})

    def _beside(self, unit: Unit) -> dict[str, Tensor]:
        """Biases and norms of a unit of a language model; no cut renews them."""
        stored = {name: self.case.checkpoint.read(name) for name in (*unit.vectors, *also(unit))}
        if unit.name in self.kept:
            stored |= {name: stored[name][vector_stays(unit, name, self.kept[unit.name])] for name in unit.vectors}
        if unit.name in self.fewer:
            stored |= {name: self._router(unit) for name in unit.vectors}
        own = self.case.format.disk.encode_rest({})
        return {name: x for name, x in self.case.format.disk.encode_rest(stored).items() if name not in own}

    def _spread(self, unit: Unit, matrix: Matrix, values: Tensor) -> Tensor:
        """Values of what stays of a matrix in the shape that it had, zeros elsewhere."""
        rows, cols = self._stay(unit, matrix)
        if isinstance(rows, slice) and isinstance(cols, slice):
            return values
        full = values.new_zeros(matrix.rows, matrix.cols)
        some = full[rows]
        some[:, cols] = values
        full[rows] = some
        return full

    def _stay(self, unit: Unit, matrix: Matrix) -> tuple[Any, Any]:
        """Rows and columns of a matrix that stay: all, where no channel goes."""
        mine = unit.name in self.kept
        rows, cols = stays(unit, matrix, self.kept[unit.name]) if mine else (slice(None), slice(None))
        others = stay(matrix, self.case.trunks, self.along)
        return (rows if others[0] is None else others[0]), (cols if others[1] is None else others[1])
