# What workers of Flink, Spark and Dataflow run in, and what the driver should be run from: one image, one toolchain, the same bytes.
# docs/RUNNERS.md has the commands. Nobody of us has built or run it yet; tests/pipelines/test_runners_page.py checks what can be without docker.
#
#     docker build --tag microturn:2.77.0 .
#     docker run --rm --entrypoint microturn microturn:2.77.0 --help

FROM apache/beam_python3.11_sdk:2.77.0 AS beam

FROM python:3.11-slim
COPY --from=beam /opt/apache/beam /opt/apache/beam

WORKDIR /opt/microturn
COPY pyproject.toml constraints.txt README.md LICENSE __init__.py __main__.py cli.py ./
COPY schemas schemas
COPY transforms transforms
COPY pipelines pipelines
COPY kernels kernels
COPY trainer trainer
COPY notebooks notebooks

# s3fs reaches S3 and what speaks like it; for other stores build with --build-arg STORES="gcsfs" or "adlfs"; Dataflow needs BEAM="gcp,dask".
ARG STORES="s3fs"
ARG BEAM="dask"
RUN pip install --no-cache-dir --constraint constraints.txt . "apache-beam[${BEAM}]==2.77.0" ${STORES} && pip check

# Decoders run as children of the worker, each with one thread.
ENV OMP_NUM_THREADS=1
ENTRYPOINT ["/opt/apache/beam/boot"]
