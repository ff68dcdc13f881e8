# The binary in an image of its own: nothing else in it but the C library and certificates, and nobody who is root.
#   docker build -t talewire .
# What each stage needs stands in README.md, "Run it". Nothing here was built by us with an engine: see docs/deployment.md.

FROM node:22-bookworm-slim AS web
WORKDIR /talewire
# What is installed depends on these files alone, so that a change of code installs nothing anew.
COPY package.json package-lock.json ./
COPY packages/client/package.json packages/client/
COPY packages/react/package.json packages/react/
COPY apps/web/package.json apps/web/
COPY e2e/package.json e2e/
RUN npm ci --no-audit --no-fund --workspace apps/web --include-workspace-root
COPY tsconfig.json tsconfig.base.json ./
COPY packages packages
COPY apps apps
RUN npm run build

# The same Debian as below: the binary is linked against its C library.
FROM rust:1.95-bookworm AS binary
WORKDIR /talewire
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY crates crates
COPY xtask xtask
COPY --from=web /talewire/apps/web/dist apps/web/dist
# The caches are not in the image, so the binary is taken out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/talewire/target \
    cargo build --release --locked --package talewire && cp target/release/talewire /usr/local/bin/talewire
# Made here, since there is no shell below: a volume begins with the owner of the folder that it is put on.
RUN mkdir /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=binary /usr/local/bin/talewire /usr/bin/talewire
COPY --from=binary --chown=nonroot:nonroot --chmod=0700 /data /data
USER nonroot:nonroot
# Everybody in the container's network reaches these; what is published is up to whoever starts it. Nothing but proxies and the
# operator's tools should reach 8001.
ENV TALEWIRE_HTTP_LISTEN=0.0.0.0:8000 \
    TALEWIRE_HTTP_ADMIN_LISTEN=0.0.0.0:8001 \
    TALEWIRE_STORE_PATH=/data
EXPOSE 8000 8001
VOLUME /data
# SIGTERM drains, also as the first process of a container. Give it time: docker stop --time 60.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/bin/talewire", "ready"]
ENTRYPOINT ["/usr/bin/talewire"]
CMD ["serve"]
