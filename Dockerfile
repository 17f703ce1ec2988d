# syntax=docker/dockerfile:1
# `docker build --tag kedge .`; `--target bitcoind` gives the Bitcoin Core that compose.yml runs.

FROM rust:1.95-bookworm AS toolchain
WORKDIR /kedge
ENV CARGO_TARGET_DIR=/build/target KEDGE_CACHE=/build/cache
COPY scripts/packages scripts/packages
RUN scripts/packages && rm -rf /var/lib/apt/lists/*

FROM toolchain AS build
COPY . .
# LTO and one codegen unit: an image is built once and run for long.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --locked --profile dist --package kedge \
    && install -D /build/target/dist/kedge /out/kedge

# Bitcoin Core from the source that the embedded consensus engine is made of.
FROM toolchain AS build-bitcoind
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/cache \
    exe=$(scripts/bitcoind) && install -D -t /out "$exe" "${exe%/*}/bitcoin-cli"

FROM debian:bookworm-slim AS base
RUN useradd --create-home --uid 10001 kedge \
    && install -d -o kedge -g kedge -m 700 /data
USER 10001:10001
VOLUME /data

FROM base AS bitcoind
COPY --from=build-bitcoind /out/ /usr/local/bin/
ENTRYPOINT ["bitcoind", "-datadir=/data", "-printtoconsole"]
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["bitcoin-cli", "-datadir=/data", "getblockchaininfo"]

FROM base AS kedge
COPY --from=build /out/kedge /usr/local/bin/kedge
EXPOSE 8545
ENTRYPOINT ["kedge"]
# Answers only when the node itself does.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["kedge", "status"]
