"""The training loop that all families share, on Lightning Fabric.

It owns devices, precision, the order of the data, learning rates, averages, checkpoints and what is shown.
Every random draw is a function of (seed, step, process), so a resumed run repeats one that never stopped.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from training import checkpoint, randomness
from training.batches import Batches
from training.checkpoint import Checkpoint, CheckpointError
from training.coerce import ConfigError
from training.config import TrainConfig
from training.curve import Curve
from training.data import Batch, DataSpec, ImageData, Splits
from training.ema import Average
from training.family import Family, Step
from training.grid import save_grid
from training.optimize import Updates, learning_rate_factor
from training.progress import TrainingProgress
from training.stopping import Stopping


class TrainingError(RuntimeError):
    """Training that cannot go on: names the step, the reason and the remedy."""


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
    with training.progress, Stopping(fabric) as stopping:
        try:
            return training.run_steps(stopping)
        finally:
            training.close()


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
        self.config, self.family, self.run, self.fabric = config, family, run, fabric
        self.spec, self.held_out = data.train.spec, data.held_out
        check(config, family, self.spec, resume)
        self.begin = resume.step if resume else 0
        self.networks = self._new_networks()
        prepared = family.prepare(config.settings, self.networks, self.spec) if family.prepare else None
        self.train_data: ImageData = data.train if prepared is None else prepared
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
                network.compile()
        self.batches = Batches(config, self.train_data, fabric)
        self.generator = torch.Generator(fabric.device)
        self.latest = resume.path if resume else None
        self.pending: list[Mapping[str, Tensor]] = []
        self.cpu_before, self.seconds_before = (resume.cpu_seconds, resume.seconds) if resume else (0.0, 0.0)
        self.cpu_started, self.started = time.process_time(), time.monotonic()
        self.progress = TrainingProgress(run.name, self.begin, config.steps, quiet=not fabric.is_global_zero)
        self.curve: Curve | None = None
        if fabric.is_global_zero:
            run.mkdir(parents=True, exist_ok=True)
            (run / "config.json").write_text(json.dumps(config.plain(), indent=1) + "\n", encoding="utf-8")
            checkpoint.prune(run, keep=0)
            self.curve = Curve(run, resume.curve if resume else (), config.tensorboard)

    def run_steps(self, stopping: Stopping) -> Result:
        """All steps that are left, with what is due between them."""
        config, done = self.config, self.begin
        for step, batch in self.batches.from_step(self.begin):
            self._step(step, batch)
            done = step + 1
            last, stop = done == config.steps, stopping.asked(done)
            if last or stop or _due(done, config.log_every) or _due(done, config.checkpoint_every):
                self._log(done)
            if last or _due(done, config.evaluate_every):
                self._evaluate(done)
            if last or _due(done, config.sample_every):
                self._sample(done)
            if last or stop or _due(done, config.checkpoint_every):
                self._save(done)
            self.progress.advance(done)
            if stop:
                break
        if self.latest is None:
            raise CheckpointError(f"{self.run} has no steps to make")
        cpu_seconds, seconds = self._spent()
        return Result(
            run=self.run,
            checkpoint=self.latest,
            step=done,
            steps=config.steps,
            cpu_seconds=cpu_seconds,
            seconds=seconds,
            signal=stopping.signal,
        )

    def close(self) -> None:
        """Write what the curve still has in memory, and stop reading ahead."""
        self.batches.close()
        if self.curve is not None:
            self.curve.close()

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
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise TrainingError(
                f"out of memory at step {step} with batch_size = {config.batch_size}: "
                f"set a smaller batch_size or precision=bf16; {self._kept()}"
            ) from error
        self.pending.append(losses)
        self.average.update(step)

    def _log(self, done: int) -> None:
        """The mean of each loss since the last point of the curve; TrainingError if one is not finite."""
        if not self.pending:
            return
        point: dict[str, float] = {}
        for name in self.pending[-1]:
            values = torch.stack([torch.as_tensor(losses[name]).detach().float() for losses in self.pending])
            finite = values.isfinite().tolist()
            if not all(finite):
                place = finite.index(False)
                raise TrainingError(
                    f"loss {name!r} is {values[place].item()} at step {done - len(self.pending) + place}: "
                    f"lower the learning rate, set warmup_steps, or clip gradients; {self._kept()}"
                )
            mean = values.mean()
            if self.fabric.world_size > 1:
                torch.distributed.all_reduce(mean)
            point[name] = mean.item() / self.fabric.world_size
        self.pending.clear()
        self._record(done, point)

    def _evaluate(self, done: int) -> None:
        """Held-out figures, the same images and draws every time, averaged over batches by size."""
        evaluate, config = self.family.evaluate, self.config
        if evaluate is None or not config.evaluate_every or not self.fabric.is_global_zero:
            return
        count = min(config.evaluate_count, len(self.held_out))
        rng = randomness.numpy_rng(config.seed, randomness.HELD_OUT)
        generator = self._generator(randomness.HELD_OUT)
        sums: dict[str, float] = {}
        for begin in range(0, count, config.batch_size):
            indices = np.arange(begin, min(begin + config.batch_size, count))
            batch = self.held_out.batch(indices, rng).to(self.fabric.device)
            with torch.no_grad():
                figures = evaluate(config.settings, self.average.module(), self.spec, batch, generator)
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(indices)
        self._record(done, {f"held_out/{name}": value / count for name, value in sums.items()})

    def _sample(self, done: int) -> None:
        """A grid of samples of the averaged networks, from the same noise every time."""
        config = self.config
        if self.curve is None or not config.sample_every:
            return
        generator = self._generator(randomness.SAMPLES)
        with torch.no_grad():
            images = self.family.sample(
                config.settings, self.average.module(), self.spec, config.sample_count, generator
            )
        picture = save_grid(images, self.run / "samples" / f"step-{done:08d}.png")
        self.curve.picture("samples", picture, done)

    def _save(self, done: int) -> None:
        """A checkpoint, unless weights are no longer finite."""
        networks = self.networks.state_dict()
        for name, tensor in networks.items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise TrainingError(
                    f"weights {name} are not finite after step {done - 1}: lower the learning rate, "
                    f"set warmup_steps, or clip gradients; {self._kept()}"
                )
        if self.curve is not None:
            cpu_seconds, seconds = self._spent()
            parts = {
                "networks": networks,
                "averages": self.average.state(),
                "optimizers": self.updates.state(),
            }
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
            self.latest = checkpoint.save(self.run, done, parts, values)
            checkpoint.prune(self.run, self.config.keep_checkpoints)
        self.fabric.barrier()
        self.latest = checkpoint.find(self.run)

    def _record(self, done: int, values: Mapping[str, float]) -> None:
        if self.curve is not None and values:
            cpu_seconds, seconds = self._spent()
            self.curve.add(
                {"step": done, "seconds": round(seconds, 2), "cpu_seconds": round(cpu_seconds, 2), **values}
            )
            self.progress.losses(values, done)

    def _spent(self) -> tuple[float, float]:
        cpu_seconds = self.cpu_before + time.process_time() - self.cpu_started
        return cpu_seconds, self.seconds_before + time.monotonic() - self.started

    def _generator(self, stream: int) -> torch.Generator:
        generator = torch.Generator(self.fabric.device)
        return generator.manual_seed(randomness.mixed(self.config.seed, stream))

    def _kept(self) -> str:
        if self.latest is None:
            return "no checkpoint was written yet"
        return f"the last good checkpoint is {self.latest}"


def check(config: TrainConfig, family: Family, spec: DataSpec, resume: Checkpoint | None) -> None:
    """Refuse data that the family cannot use, and a checkpoint of another family, seed, data or length."""
    if family.needs_pairs and len(spec.domains) != 2:
        raise ConfigError(
            f"family {family.name!r} translates between two domains, and data {spec.name!r} have one: "
            f"use shapes-stripes, emoji-sketch or folders:PATH"
        )
    if resume is None:
        return
    if resume.family.name != family.name:
        raise CheckpointError(
            f"{resume.path} is a checkpoint of family {resume.family.name!r}, not of {family.name!r}"
        )
    if resume.data.digest != spec.digest:
        raise CheckpointError(
            f"the data {spec.name!r} are not what {resume.path} was trained on (digest {spec.digest[:12]}, "
            f"was {resume.data.digest[:12]}): restore them, or begin a new run"
        )
    if resume.seed != config.seed:
        raise CheckpointError(f"{resume.path} has seed {resume.seed}, not {config.seed}: begin a new run")
    if resume.step >= config.steps:
        raise CheckpointError(
            f"{resume.path} is finished: it has {resume.step:,} of {config.steps:,} steps; "
            f"go on with --set steps=N for a larger N"
        )


def _due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return "can't allocate memory" in str(error) or "out of memory" in str(error)
