# The gRPC server: the NumPy encoder, the Milvus client, and the command line that checks its health. No Paddle.
# Build it from the root of the repository: docker build --file docker/server.Dockerfile .

FROM python:3.11.13-slim-bookworm AS build
WORKDIR /build
ENV PIP_CONSTRAINT=/build/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# Dependencies first, in a layer that only pyproject.toml and the lock invalidate. Given the lock as it is, pip would
# demand a hash of the project too, so the lock pins the versions and what was fetched is checked against its hashes.
COPY pyproject.toml README.md LICENSE requirements.lock ./
RUN sed -e '/--hash=/d' -e 's/ *\\$//' requirements.lock > constraints.txt
RUN pip wheel --no-cache-dir --only-binary=:all: --wheel-dir=wheels ".[server,cli]" \
    && rm wheels/mind_recall-*.whl
RUN for wheel in wheels/*.whl; do \
        sum="$(sha256sum "$wheel")"; \
        grep -q -e "--hash=sha256:${sum%% *}" requirements.lock || { echo "$wheel: not in requirements.lock"; exit 1; }; \
    done

COPY clients clients
COPY indexer indexer
COPY mind mind
COPY protos protos
COPY server server
RUN pip wheel --no-cache-dir --no-deps --wheel-dir=wheels .
RUN python -m venv --without-pip /opt/recall \
    && pip --python=/opt/recall/bin/python install --no-cache-dir --no-index --no-deps wheels/*.whl


FROM python:3.11.13-slim-bookworm
RUN groupadd --gid 10001 recall \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin recall
COPY --from=build /opt/recall /opt/recall
ENV PATH=/opt/recall/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONSAFEPATH=1 PYTHONUNBUFFERED=1
# Encoding is many small products: more threads for each of them only take turns on the cores.
ENV OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
ENV RECALL_ARTIFACTS=/artifacts RECALL_LISTEN=0.0.0.0:50051
USER 10001:10001
VOLUME ["/artifacts"]
EXPOSE 50051
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-m", "clients", "health", "--server", "127.0.0.1:50051"]
ENTRYPOINT ["python", "-m", "server"]
