# The batch job that turns a model into an item collection in Milvus and releases it. No Paddle.
# Build it from the root of the repository: docker build --file docker/indexer.Dockerfile .

FROM python:3.11.13-slim-bookworm AS build
WORKDIR /build
ENV PIP_CONSTRAINT=/build/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# Dependencies first, in a layer that only pyproject.toml and the lock invalidate. Given the lock as it is, pip would
# demand a hash of the project too, so the lock pins the versions and what was fetched is checked against its hashes.
COPY pyproject.toml README.md LICENSE requirements.lock ./
RUN sed -e '/--hash=/d' -e 's/ *\\$//' requirements.lock > constraints.txt
RUN pip wheel --no-cache-dir --only-binary=:all: --wheel-dir=wheels ".[indexer]" \
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
USER 10001:10001
VOLUME ["/artifacts"]
ENTRYPOINT ["python", "-m", "indexer"]
CMD ["--help"]
