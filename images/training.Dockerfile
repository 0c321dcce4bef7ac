# Training, export and evaluation: torch, and all of `atelier`.
#
#   docker build -f images/training.Dockerfile -t atelier-training:0.1.0 .
#
# torch comes with CUDA from PyPI; without: --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
# and --build-arg TORCH=torch==2.13.0+cpu.
ARG BASE_IMAGE=docker.io/library/python:3.11.13-slim-bookworm

FROM ${BASE_IMAGE} AS build
ARG TORCH=torch==2.13.0
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /source
COPY images/requirements-training.txt images/
RUN python3 -m venv /opt/atelier \
 && /opt/atelier/bin/pip install --only-binary :all: "${TORCH}" --requirement images/requirements-training.txt
COPY pyproject.toml README.md LICENSE atelier.py ./
COPY serving serving
COPY training training
COPY export export
RUN /opt/atelier/bin/pip install --no-deps . \
 && /opt/atelier/bin/pip check \
 && /opt/atelier/bin/pip uninstall --yes pip

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="atelier-training" \
      org.opencontainers.image.description="Training and export of generative image models" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/atelier /opt/atelier
ENV PATH=/opt/atelier/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /tmp
# A training is a job: whether it goes on is told by its end.
HEALTHCHECK NONE
CMD ["atelier", "train", "--help"]
