# syntax=docker/dockerfile:1

FROM node:20-bookworm-slim AS page
WORKDIR /page
COPY api/dashboard/package.json api/dashboard/package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY api/dashboard/build.mjs ./
COPY api/dashboard/src src
RUN npm run build

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
COPY --from=page /page/dist api/dashboard/dist
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags="-s -w" -o /headpond ./cmd/headpond

# No shell, no package manager, root certificates, a user that is not root.
FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /headpond /usr/local/bin/headpond
USER nonroot:nonroot
ENV HEADPOND_LISTEN=0.0.0.0:8080
EXPOSE 8080
# Exits non-zero when the API does not answer. There is no curl in this image.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/usr/local/bin/headpond", "status"]
ENTRYPOINT ["/usr/local/bin/headpond"]
CMD ["serve"]
