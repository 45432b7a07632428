# A server image: `docker run -v /data:/data:ro -p 9999:9999 fastcp /data 0.0.0.0 9999 --insecure`
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
COPY --from=build /src/target/release/fastcp-server /src/target/release/fastcp-client /usr/local/bin/
USER nobody
EXPOSE 9999
ENTRYPOINT ["fastcp-server"]
