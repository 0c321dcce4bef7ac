"""The contract of a model repository: what one graph is, needs and gives.

A `Manifest` is rendered to the `config.pbtxt` of Triton and parsed back from it, or from the
`ModelConfig` message that Triton's gRPC port returns. What Triton has no field for stands in the
`parameters` of the configuration as flat `atelier.*` keys with string values (JSON where they are
not plain text), so a gateway that sees a bare Triton learns as much as one that reads the folder.

Conventions that every graph keeps:

- The first axis of every tensor is the batch; shapes here leave it out. `-1` is a dynamic axis.
- Images are float32, channels first, within `value_range`.
- Inputs by name: `latent` (drawn from a standard normal prior), `noise` (standard normal, zero for the
  mean), `class_id` (int64, shape [1]), `image`, and for denoisers `x` and `noise_level` (shape [1]).
- Outputs by role: `sample` of a generator or decoder, `prediction` of a denoiser, `mean` and
  `log_variance` of an encoder, `translated` of a translator.
"""

from serving.manifest.config import PREFIX, from_config, parse, render, render_variants, to_config
from serving.manifest.graph import Manifest, Task
from serving.manifest.problems import ManifestError
from serving.manifest.records import PlanRecord, Probe, ProbeOutput, VersionRecord
from serving.manifest.sampling import (
    LEAST_TIMESTEPS,
    NoiseSchedule,
    Parameterization,
    Prediction,
    Sampling,
    Schedule,
)
from serving.manifest.tensors import Dtype, TensorSpec

__all__ = [
    "LEAST_TIMESTEPS",
    "PREFIX",
    "Dtype",
    "Manifest",
    "ManifestError",
    "NoiseSchedule",
    "Parameterization",
    "PlanRecord",
    "Prediction",
    "Probe",
    "ProbeOutput",
    "Sampling",
    "Schedule",
    "Task",
    "TensorSpec",
    "VersionRecord",
    "from_config",
    "parse",
    "render",
    "render_variants",
    "to_config",
]
