"""The training loop that all families share, on Lightning Fabric.

It owns devices, precision, the order of the data, learning rates, averages, checkpoints and what is shown.
Every random draw is a function of (seed, step, process), so a resumed run repeats one that never stopped.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from training import checkpoint, randomness
from training.batches import Batches
from training.checkpoint import Checkpoint
from training.compatibility import check_data, check_resumable
from training.config import TrainConfig
from training.curve import Curve
from training.data import Batch, Splits
from training.ema import Average
from training.failures import TrainingError, known_reason
from training.family import Family, Step
from training.grid import save_grid
from training.measure import held_out_figures, samples
from training.optimize import Updates, learning_rate_factor
from training.progress import TrainingProgress
from training.stopping import Stopping


@dataclass(frozen=True, kw_only=True)
class Result:
    """How a run ended."""

    run: Path
    """Its folder."""
    checkpoint: Path
    """Its newest checkpoint."""
    step: int
    """Updates made."""
    steps: int
    """Updates configured; more than `step` if it was stopped."""
    cpu_seconds: float
    """Processor time, over all threads of the first process and all resumptions."""
    seconds: float
    """Wall-clock time, over all resumptions."""
    signal: int | None
    """Signal that stopped it."""


def train(
    config: TrainConfig,
    family: Family,
    data: Splits,
    run: Path,
    fabric: Fabric,
    resume: Checkpoint | None = None,
) -> Result:
    """Train into the folder `run`, anew or on from a checkpoint; returns when done or told to stop."""
    training = Training(config, family, data, run, fabric, resume)
    try:
        with training.progress, Stopping(fabric) as stopping:
            training.run_steps(stopping)
        training.close()
    except OSError as error:
        reason = f"cannot write {error.filename or run}: {error.strerror or error}"
        raise TrainingError(f"{reason} at step {training.done}; {training.kept()}") from error
    finally:
        with contextlib.suppress(OSError):
            training.close()
    cpu_seconds, seconds = training.spent()
    return Result(
        run=run,
        checkpoint=training.latest or run,
        step=training.done,
        steps=config.steps,
        cpu_seconds=cpu_seconds,
        seconds=seconds,
        signal=stopping.signal,
    )


class Training:
    """The state of a run between two steps."""

    def __init__(
        self,
        config: TrainConfig,
        family: Family,
        data: Splits,
        run: Path,
        fabric: Fabric,
        resume: Checkpoint | None,
    ) -> None:
        self.cpu_before, self.seconds_before = (resume.cpu_seconds, resume.seconds) if resume else (0.0, 0.0)
        self.cpu_started, self.started = time.process_time(), time.monotonic()
        self.config, self.family, self.run, self.fabric = config, family, run, fabric
        self.spec, self.held_out = data.train.spec, data.held_out
        check_data(family, self.spec)
        if resume:
            check_resumable(config, family, self.spec, resume)
        self.done = resume.step if resume else 0
        self.latest = resume.path if resume else None
        self.networks = self._new_networks()
        replaced = family.prepare(config.settings, self.networks, self.spec) if family.prepare else None
        if resume:
            checkpoint.load_into(self.networks, resume.tensors("networks"), resume.path)
        self.average = Average(self.networks, family.averaged, config.ema_decay)
        self.updates = Updates(fabric, self.networks, family.optimizers(config.settings))
        if resume:
            self.average.load(resume.tensors("averages"))
            self.updates.load(resume.tensors("optimizers"))
            fabric.strategy.precision.load_state_dict(dict(resume.scaler))
        if config.compile:
            for network in self.networks.values():
                # Not `network.compile()`, which compiles nothing where a network is a bare nn.Sequential.
                network.forward = torch.compile(network.forward)
        self.batches = Batches(config, data.train if replaced is None else replaced, fabric)
        self.generator = torch.Generator(fabric.device)
        self.pending: list[Mapping[str, Tensor]] = []
        self.progress = TrainingProgress(run.name, self.done, config.steps, quiet=not fabric.is_global_zero)
        self.curve: Curve | None = None
        if fabric.is_global_zero:
            run.mkdir(parents=True, exist_ok=True)
            (run / "config.json").write_text(json.dumps(config.plain(), indent=1) + "\n", encoding="utf-8")
            checkpoint.prune(run, keep=0)
            if not resume:
                remove_left_over(run)
            self.curve = Curve(run, resume.curve if resume else (), config.tensorboard)

    def run_steps(self, stopping: Stopping) -> None:
        """All steps that are left, with what is due between them."""
        config = self.config
        for step, batch in self.batches.from_step(self.done):
            self._step(step, batch)
            self.done = done = step + 1
            stop = stopping.asked(done)
            last, save = done == config.steps, stop or _due(done, config.checkpoint_every)
            point: dict[str, float] = {}
            if last or save or _due(done, config.log_every):
                point |= self._mean_losses()
            if _due(done, config.evaluate_every) or (last and config.evaluate_every):
                point |= self._held_out()
            self._record(point)
            if _due(done, config.sample_every) or (last and config.sample_every):
                self._sample()
            if last or save:
                self._save()
            self.progress.advance(done)
            if stop:
                break

    def close(self) -> None:
        """Stop reading ahead, and write what the curve still has in memory."""
        self.batches.close()
        if self.curve is not None:
            self.curve.close()

    def spent(self) -> tuple[float, float]:
        """CPU-seconds and seconds so far, with those of the runs that this one resumes."""
        cpu_seconds = self.cpu_before + time.process_time() - self.cpu_started
        return cpu_seconds, self.seconds_before + time.monotonic() - self.started

    def kept(self) -> str:
        """What is left when training fails, in words."""
        if self.latest is None:
            return "no checkpoint was written yet"
        return f"the last good checkpoint is {self.latest}"

    def _new_networks(self) -> nn.ModuleDict:
        randomness.seed_torch(self.fabric.device, self.config.seed)
        networks = self.family.networks(self.config.settings, self.spec).to(self.fabric.device).train()
        if self.fabric.world_size > 1:
            for tensor in networks.state_dict().values():
                torch.distributed.broadcast(tensor, src=0)
        return networks

    def _step(self, step: int, batch: Batch) -> None:
        config, fabric = self.config, self.fabric
        place = (step, fabric.global_rank)
        randomness.seed_torch(fabric.device, randomness.mixed(config.seed, randomness.GLOBAL, *place))
        self.generator.manual_seed(randomness.mixed(config.seed, randomness.DRAWS, *place))
        self.updates.factor = learning_rate_factor(config.schedule, config.warmup_steps, step, config.steps)
        try:
            with fabric.autocast():
                losses = self.family.step(
                    Step(
                        config=config.settings,
                        data=self.spec,
                        networks=self.networks,
                        batch=batch,
                        step=step,
                        steps=config.steps,
                        update=self.updates,
                        generator=self.generator,
                    )
                )
        except (RuntimeError, MemoryError) as error:
            reason = known_reason(error, step, config)
            if reason is None:
                raise
            raise TrainingError(f"{reason}; {self.kept()}") from error
        self.pending.append({name: value.detach() for name, value in losses.items()})
        self.average.update(step)

    def _mean_losses(self) -> dict[str, float]:
        """The mean of each loss since the last point of the curve; TrainingError if one is not finite."""
        point: dict[str, float] = {}
        for name in self.pending[-1]:
            values = torch.stack([losses[name].float() for losses in self.pending])
            finite = values.isfinite().tolist()
            if not all(finite):
                place = finite.index(False)
                raise TrainingError(
                    f"loss {name!r} is {values[place].item()} at step {self.done - len(finite) + place}: "
                    f"lower the learning rate, set warmup_steps, or clip gradients; {self.kept()}"
                )
            mean = values.mean()
            if self.fabric.world_size > 1:
                torch.distributed.all_reduce(mean)
            point[name] = mean.item() / self.fabric.world_size
        self.pending.clear()
        return point

    def _held_out(self) -> dict[str, float]:
        if self.curve is None:
            return {}
        networks = self.average.module()
        return held_out_figures(
            self.family, self.config, networks, self.spec, self.held_out, self.fabric.device
        )

    def _sample(self) -> None:
        if self.curve is not None:
            networks = self.average.module()
            images = samples(self.family, self.config, networks, self.spec, self.fabric.device)
            picture = save_grid(images, self.run / "samples" / f"step-{self.done:08d}.png")
            self.curve.picture("samples", picture, self.done)

    def _save(self) -> None:
        """A checkpoint, unless weights are no longer finite."""
        networks = self.networks.state_dict()
        for name, tensor in networks.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise TrainingError(
                    f"weights {name} are not finite after step {self.done - 1}: lower the learning rate, "
                    f"set warmup_steps, or clip gradients; {self.kept()}"
                )
        if self.curve is not None:
            cpu_seconds, seconds = self.spent()
            averages, moments = self.average.state(), self.updates.state()
            parts = {"networks": networks, "averages": averages, "optimizers": moments}
            values = {
                "family": self.family.name,
                "config": self.config.plain(),
                "data": self.spec,
                "seed": self.config.seed,
                "cpu_seconds": round(cpu_seconds, 3),
                "seconds": round(seconds, 3),
                "scaler": self.fabric.strategy.precision.state_dict(),
                "curve": self.curve.points,
            }
            checkpoint.save(self.run, self.done, parts, values)
            checkpoint.prune(self.run, self.config.keep_checkpoints)
        self.latest = checkpoint.folder(self.run, self.done)

    def _record(self, values: Mapping[str, float]) -> None:
        if self.curve is not None and values:
            cpu_seconds, seconds = self.spent()
            fixed = {"step": self.done, "seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds, 2)}
            self.curve.add({**fixed, **values})
            self.progress.losses(values)


def remove_left_over(run: Path) -> None:
    """Remove grids and TensorBoard events of a run that ended before its first checkpoint."""
    for pattern in ("samples/step-*.png", "tensorboard/events.out.tfevents.*"):
        for path in run.glob(pattern):
            path.unlink()


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0
