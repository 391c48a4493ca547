# syntax=docker/dockerfile:1
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY requirements.lock pyproject.toml README.md LICENSE ./
RUN python -m venv /opt/darkroom \
    && /opt/darkroom/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY config config
COPY normalization normalization
COPY providers providers
COPY gateway gateway
RUN /opt/darkroom/bin/pip install --no-cache-dir --no-build-isolation --no-deps .

FROM python:3.13-slim-bookworm
RUN useradd --system --uid 10001 --home-dir /var/lib/darkroom --create-home darkroom
COPY --from=build /opt/darkroom /opt/darkroom
ENV PATH=/opt/darkroom/bin:$PATH \
    DARKROOM_DATA=/var/lib/darkroom \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001
VOLUME /var/lib/darkroom
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
# It listens on every address of the container, so it needs keys: those in DARKROOM_API_KEYS, or the one that is made and
# printed at the first start with a provider's key. Without either it refuses to start.
CMD ["darkroom", "serve", "--host", "0.0.0.0"]
