import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Task(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    TASK_UNSPECIFIED: _ClassVar[Task]
    TASK_GENERATE: _ClassVar[Task]
    TASK_TRANSLATE: _ClassVar[Task]
    TASK_INPAINT: _ClassVar[Task]
    TASK_UPSCALE: _ClassVar[Task]
    TASK_DENOISE: _ClassVar[Task]
    TASK_ENCODE: _ClassVar[Task]
    TASK_DECODE: _ClassVar[Task]
    TASK_SCORE: _ClassVar[Task]

class ImageFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    IMAGE_FORMAT_UNSPECIFIED: _ClassVar[ImageFormat]
    IMAGE_FORMAT_PNG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_JPEG: _ClassVar[ImageFormat]
    IMAGE_FORMAT_WEBP: _ClassVar[ImageFormat]
    IMAGE_FORMAT_RAW_U8: _ClassVar[ImageFormat]

class VersionState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    VERSION_STATE_UNSPECIFIED: _ClassVar[VersionState]
    VERSION_STATE_LOADING: _ClassVar[VersionState]
    VERSION_STATE_READY: _ClassVar[VersionState]
    VERSION_STATE_REFUSED: _ClassVar[VersionState]
    VERSION_STATE_UNLOADED: _ClassVar[VersionState]
TASK_UNSPECIFIED: Task
TASK_GENERATE: Task
TASK_TRANSLATE: Task
TASK_INPAINT: Task
TASK_UPSCALE: Task
TASK_DENOISE: Task
TASK_ENCODE: Task
TASK_DECODE: Task
TASK_SCORE: Task
IMAGE_FORMAT_UNSPECIFIED: ImageFormat
IMAGE_FORMAT_PNG: ImageFormat
IMAGE_FORMAT_JPEG: ImageFormat
IMAGE_FORMAT_WEBP: ImageFormat
IMAGE_FORMAT_RAW_U8: ImageFormat
VERSION_STATE_UNSPECIFIED: VersionState
VERSION_STATE_LOADING: VersionState
VERSION_STATE_READY: VersionState
VERSION_STATE_REFUSED: VersionState
VERSION_STATE_UNLOADED: VersionState

class Image(_message.Message):
    __slots__ = ("data", "format", "width", "height", "channels")
    DATA_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    format: ImageFormat
    width: int
    height: int
    channels: int
    def __init__(self, data: _Optional[bytes] = ..., format: _Optional[_Union[ImageFormat, str]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., channels: _Optional[int] = ...) -> None: ...

class Latent(_message.Message):
    __slots__ = ("data", "shape")
    DATA_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    shape: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, data: _Optional[bytes] = ..., shape: _Optional[_Iterable[int]] = ...) -> None: ...

class Model(_message.Message):
    __slots__ = ("name", "family", "versions", "default_version", "tasks", "width", "height", "channels", "class_labels", "samplers", "default_sampler", "default_steps", "default_guidance_scale", "directions", "latent_shape", "ready", "metadata", "version_status", "has_card", "has_samples")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_VERSION_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    HEIGHT_FIELD_NUMBER: _ClassVar[int]
    CHANNELS_FIELD_NUMBER: _ClassVar[int]
    CLASS_LABELS_FIELD_NUMBER: _ClassVar[int]
    SAMPLERS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_SAMPLER_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_STEPS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    DIRECTIONS_FIELD_NUMBER: _ClassVar[int]
    LATENT_SHAPE_FIELD_NUMBER: _ClassVar[int]
    READY_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    VERSION_STATUS_FIELD_NUMBER: _ClassVar[int]
    HAS_CARD_FIELD_NUMBER: _ClassVar[int]
    HAS_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    name: str
    family: str
    versions: _containers.RepeatedScalarFieldContainer[int]
    default_version: int
    tasks: _containers.RepeatedScalarFieldContainer[Task]
    width: int
    height: int
    channels: int
    class_labels: _containers.RepeatedScalarFieldContainer[str]
    samplers: _containers.RepeatedScalarFieldContainer[str]
    default_sampler: str
    default_steps: int
    default_guidance_scale: float
    directions: _containers.RepeatedScalarFieldContainer[str]
    latent_shape: _containers.RepeatedScalarFieldContainer[int]
    ready: bool
    metadata: _containers.ScalarMap[str, str]
    version_status: _containers.RepeatedCompositeFieldContainer[VersionStatus]
    has_card: bool
    has_samples: bool
    def __init__(self, name: _Optional[str] = ..., family: _Optional[str] = ..., versions: _Optional[_Iterable[int]] = ..., default_version: _Optional[int] = ..., tasks: _Optional[_Iterable[_Union[Task, str]]] = ..., width: _Optional[int] = ..., height: _Optional[int] = ..., channels: _Optional[int] = ..., class_labels: _Optional[_Iterable[str]] = ..., samplers: _Optional[_Iterable[str]] = ..., default_sampler: _Optional[str] = ..., default_steps: _Optional[int] = ..., default_guidance_scale: _Optional[float] = ..., directions: _Optional[_Iterable[str]] = ..., latent_shape: _Optional[_Iterable[int]] = ..., ready: _Optional[bool] = ..., metadata: _Optional[_Mapping[str, str]] = ..., version_status: _Optional[_Iterable[_Union[VersionStatus, _Mapping]]] = ..., has_card: _Optional[bool] = ..., has_samples: _Optional[bool] = ...) -> None: ...

class VersionStatus(_message.Message):
    __slots__ = ("version", "state", "reason", "share")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SHARE_FIELD_NUMBER: _ClassVar[int]
    version: int
    state: VersionState
    reason: str
    share: float
    def __init__(self, version: _Optional[int] = ..., state: _Optional[_Union[VersionState, str]] = ..., reason: _Optional[str] = ..., share: _Optional[float] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "refused")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Model]
    refused: _containers.RepeatedCompositeFieldContainer[RefusedEntry]
    def __init__(self, models: _Optional[_Iterable[_Union[Model, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[RefusedEntry, _Mapping]]] = ...) -> None: ...

class RefusedEntry(_message.Message):
    __slots__ = ("name", "reason")
    NAME_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    name: str
    reason: str
    def __init__(self, name: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class GetModelRequest(_message.Message):
    __slots__ = ("model",)
    MODEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    def __init__(self, model: _Optional[str] = ...) -> None: ...

class GenerateImagesRequest(_message.Message):
    __slots__ = ("model", "version", "count", "seed", "class_id", "class_label", "prompt", "steps", "guidance_scale", "sampler", "truncation", "format", "preview_every", "eta")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_LABEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    TRUNCATION_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PREVIEW_EVERY_FIELD_NUMBER: _ClassVar[int]
    ETA_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    count: int
    seed: int
    class_id: int
    class_label: str
    prompt: str
    steps: int
    guidance_scale: float
    sampler: str
    truncation: float
    format: ImageFormat
    preview_every: int
    eta: float
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., count: _Optional[int] = ..., seed: _Optional[int] = ..., class_id: _Optional[int] = ..., class_label: _Optional[str] = ..., prompt: _Optional[str] = ..., steps: _Optional[int] = ..., guidance_scale: _Optional[float] = ..., sampler: _Optional[str] = ..., truncation: _Optional[float] = ..., format: _Optional[_Union[ImageFormat, str]] = ..., preview_every: _Optional[int] = ..., eta: _Optional[float] = ...) -> None: ...

class RunInfo(_message.Message):
    __slots__ = ("model", "version", "seed", "sampler", "steps", "guidance_scale", "queue_time", "compute_time")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    GUIDANCE_SCALE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIME_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_TIME_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    seed: int
    sampler: str
    steps: int
    guidance_scale: float
    queue_time: _duration_pb2.Duration
    compute_time: _duration_pb2.Duration
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., seed: _Optional[int] = ..., sampler: _Optional[str] = ..., steps: _Optional[int] = ..., guidance_scale: _Optional[float] = ..., queue_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., compute_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class GenerateImagesResponse(_message.Message):
    __slots__ = ("images", "run")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[Image]
    run: RunInfo
    def __init__(self, images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., run: _Optional[_Union[RunInfo, _Mapping]] = ...) -> None: ...

class GenerateEvent(_message.Message):
    __slots__ = ("progress", "result")
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    progress: Progress
    result: GenerateImagesResponse
    def __init__(self, progress: _Optional[_Union[Progress, _Mapping]] = ..., result: _Optional[_Union[GenerateImagesResponse, _Mapping]] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("step", "steps", "previews")
    STEP_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    PREVIEWS_FIELD_NUMBER: _ClassVar[int]
    step: int
    steps: int
    previews: _containers.RepeatedCompositeFieldContainer[Image]
    def __init__(self, step: _Optional[int] = ..., steps: _Optional[int] = ..., previews: _Optional[_Iterable[_Union[Image, _Mapping]]] = ...) -> None: ...

class TranslateImagesRequest(_message.Message):
    __slots__ = ("model", "version", "direction", "images", "format")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIRECTION_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    direction: str
    images: _containers.RepeatedCompositeFieldContainer[Image]
    format: ImageFormat
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., direction: _Optional[str] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., format: _Optional[_Union[ImageFormat, str]] = ...) -> None: ...

class TranslateImagesResponse(_message.Message):
    __slots__ = ("images", "run")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[Image]
    run: RunInfo
    def __init__(self, images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., run: _Optional[_Union[RunInfo, _Mapping]] = ...) -> None: ...

class EditImagesRequest(_message.Message):
    __slots__ = ("model", "version", "task", "images", "masks", "strength", "seed", "steps", "sampler", "class_id", "class_label", "prompt", "format")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    MASKS_FIELD_NUMBER: _ClassVar[int]
    STRENGTH_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    SAMPLER_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_LABEL_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    task: Task
    images: _containers.RepeatedCompositeFieldContainer[Image]
    masks: _containers.RepeatedCompositeFieldContainer[Image]
    strength: float
    seed: int
    steps: int
    sampler: str
    class_id: int
    class_label: str
    prompt: str
    format: ImageFormat
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., task: _Optional[_Union[Task, str]] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., masks: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., strength: _Optional[float] = ..., seed: _Optional[int] = ..., steps: _Optional[int] = ..., sampler: _Optional[str] = ..., class_id: _Optional[int] = ..., class_label: _Optional[str] = ..., prompt: _Optional[str] = ..., format: _Optional[_Union[ImageFormat, str]] = ...) -> None: ...

class EditImagesResponse(_message.Message):
    __slots__ = ("images", "run")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[Image]
    run: RunInfo
    def __init__(self, images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., run: _Optional[_Union[RunInfo, _Mapping]] = ...) -> None: ...

class EncodeImagesRequest(_message.Message):
    __slots__ = ("model", "version", "images", "class_id", "class_label")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_LABEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    images: _containers.RepeatedCompositeFieldContainer[Image]
    class_id: int
    class_label: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., class_id: _Optional[int] = ..., class_label: _Optional[str] = ...) -> None: ...

class EncodeImagesResponse(_message.Message):
    __slots__ = ("latents",)
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    latents: _containers.RepeatedCompositeFieldContainer[Latent]
    def __init__(self, latents: _Optional[_Iterable[_Union[Latent, _Mapping]]] = ...) -> None: ...

class DecodeLatentsRequest(_message.Message):
    __slots__ = ("model", "version", "latents", "class_id", "class_label", "format")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_LABEL_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    latents: _containers.RepeatedCompositeFieldContainer[Latent]
    class_id: int
    class_label: str
    format: ImageFormat
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., latents: _Optional[_Iterable[_Union[Latent, _Mapping]]] = ..., class_id: _Optional[int] = ..., class_label: _Optional[str] = ..., format: _Optional[_Union[ImageFormat, str]] = ...) -> None: ...

class DecodeLatentsResponse(_message.Message):
    __slots__ = ("images", "run")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[Image]
    run: RunInfo
    def __init__(self, images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., run: _Optional[_Union[RunInfo, _Mapping]] = ...) -> None: ...

class ExploreLatentsRequest(_message.Message):
    __slots__ = ("model", "version", "interpolation", "traversal", "arithmetic", "count", "format", "class_id", "class_label")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    INTERPOLATION_FIELD_NUMBER: _ClassVar[int]
    TRAVERSAL_FIELD_NUMBER: _ClassVar[int]
    ARITHMETIC_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CLASS_ID_FIELD_NUMBER: _ClassVar[int]
    CLASS_LABEL_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    interpolation: Interpolation
    traversal: Traversal
    arithmetic: Arithmetic
    count: int
    format: ImageFormat
    class_id: int
    class_label: str
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., interpolation: _Optional[_Union[Interpolation, _Mapping]] = ..., traversal: _Optional[_Union[Traversal, _Mapping]] = ..., arithmetic: _Optional[_Union[Arithmetic, _Mapping]] = ..., count: _Optional[int] = ..., format: _Optional[_Union[ImageFormat, str]] = ..., class_id: _Optional[int] = ..., class_label: _Optional[str] = ...) -> None: ...

class LatentPoint(_message.Message):
    __slots__ = ("latent", "image", "seed")
    LATENT_FIELD_NUMBER: _ClassVar[int]
    IMAGE_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    latent: Latent
    image: Image
    seed: int
    def __init__(self, latent: _Optional[_Union[Latent, _Mapping]] = ..., image: _Optional[_Union[Image, _Mapping]] = ..., seed: _Optional[int] = ...) -> None: ...

class Interpolation(_message.Message):
    __slots__ = ("to", "linear")
    FROM_FIELD_NUMBER: _ClassVar[int]
    TO_FIELD_NUMBER: _ClassVar[int]
    LINEAR_FIELD_NUMBER: _ClassVar[int]
    to: LatentPoint
    linear: bool
    def __init__(self, to: _Optional[_Union[LatentPoint, _Mapping]] = ..., linear: _Optional[bool] = ..., **kwargs) -> None: ...

class Traversal(_message.Message):
    __slots__ = ("dimension", "low", "high")
    FROM_FIELD_NUMBER: _ClassVar[int]
    DIMENSION_FIELD_NUMBER: _ClassVar[int]
    LOW_FIELD_NUMBER: _ClassVar[int]
    HIGH_FIELD_NUMBER: _ClassVar[int]
    dimension: int
    low: float
    high: float
    def __init__(self, dimension: _Optional[int] = ..., low: _Optional[float] = ..., high: _Optional[float] = ..., **kwargs) -> None: ...

class Arithmetic(_message.Message):
    __slots__ = ("plus", "minus")
    PLUS_FIELD_NUMBER: _ClassVar[int]
    MINUS_FIELD_NUMBER: _ClassVar[int]
    plus: _containers.RepeatedCompositeFieldContainer[LatentPoint]
    minus: _containers.RepeatedCompositeFieldContainer[LatentPoint]
    def __init__(self, plus: _Optional[_Iterable[_Union[LatentPoint, _Mapping]]] = ..., minus: _Optional[_Iterable[_Union[LatentPoint, _Mapping]]] = ...) -> None: ...

class ExploreLatentsResponse(_message.Message):
    __slots__ = ("images", "latents", "run")
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    LATENTS_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    images: _containers.RepeatedCompositeFieldContainer[Image]
    latents: _containers.RepeatedCompositeFieldContainer[Latent]
    run: RunInfo
    def __init__(self, images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ..., latents: _Optional[_Iterable[_Union[Latent, _Mapping]]] = ..., run: _Optional[_Union[RunInfo, _Mapping]] = ...) -> None: ...

class ScoreImagesRequest(_message.Message):
    __slots__ = ("model", "version", "images")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    IMAGES_FIELD_NUMBER: _ClassVar[int]
    model: str
    version: int
    images: _containers.RepeatedCompositeFieldContainer[Image]
    def __init__(self, model: _Optional[str] = ..., version: _Optional[int] = ..., images: _Optional[_Iterable[_Union[Image, _Mapping]]] = ...) -> None: ...

class ScoreImagesResponse(_message.Message):
    __slots__ = ("scores", "kind", "unit")
    SCORES_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    scores: _containers.RepeatedScalarFieldContainer[float]
    kind: str
    unit: str
    def __init__(self, scores: _Optional[_Iterable[float]] = ..., kind: _Optional[str] = ..., unit: _Optional[str] = ...) -> None: ...
