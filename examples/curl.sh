#!/usr/bin/env bash
# One delivery with nothing but curl; the item is keyed by its region.
# Needs INSPIRE_INGEST_KEY; INSPIRE_URL is where the server is.
set -euo pipefail
INSPIRE_URL=${INSPIRE_URL:-https://inspire.yourcompany.com}

curl -sS -X POST "$INSPIRE_URL/api/webhook/sales?idField=region" \
  -H "Authorization: Bearer $INSPIRE_INGEST_KEY" \
  -H "Content-Type: application/json" \
  -d '{ "region": "North", "sales": 142000 }'
