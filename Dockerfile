# The service alone: built with everything, shipped with nothing but what it runs on.
FROM rust:1.91-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends libssl-dev pkg-config && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --locked --release && cp target/release/countersign /countersign

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates libssl3 && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 countersign && useradd --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin countersign \
    && install -d -m 0700 -o countersign -g countersign /run/countersign /var/lib/countersign
COPY --from=build /countersign /usr/local/bin/countersign
COPY LICENSE /usr/share/doc/countersign/LICENSE
USER 10001:10001
# A volume made from these directories starts with their owner and mode.
VOLUME ["/run/countersign", "/var/lib/countersign"]
ENTRYPOINT ["countersign"]
CMD ["serve", "--config", "/etc/countersign/countersign.yaml"]
