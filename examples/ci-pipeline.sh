#!/usr/bin/env bash
# The last step of a pipeline reports its build; the item is keyed by the build's number.
# Needs INSPIRE_WEBHOOK_URL, INSPIRE_INGEST_KEY, BUILD_NUMBER and BUILD_DURATION.
set -euo pipefail

curl -sS -X POST "$INSPIRE_WEBHOOK_URL?idField=build" \
  -H "Authorization: Bearer $INSPIRE_INGEST_KEY" \
  -H "Content-Type: application/json" \
  -d "{ \"build\": \"$BUILD_NUMBER\", \"status\": \"deployed\", \"durationSeconds\": $BUILD_DURATION }"
