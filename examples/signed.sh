#!/usr/bin/env bash
# A signed delivery with curl and OpenSSL.
# Needs INSPIRE_INGEST_KEY and SIGNING_KEY; INSPIRE_URL is where the server is.
set -euo pipefail
INSPIRE_URL=${INSPIRE_URL:-https://inspire.yourcompany.com}

TIMESTAMP=$(date +%s)
BODY='{"region":"North","sales":142000}'
SIGNING_KEY=${SIGNING_KEY:-whsk_your_signing_key_here}

SIGNATURE=$(printf '%s.%s' "$TIMESTAMP" "$BODY" \
  | openssl dgst -sha256 -hmac "$SIGNING_KEY" | awk '{print $2}')

curl -sS -X POST "$INSPIRE_URL/api/webhook/sales" \
  -H "Authorization: Bearer $INSPIRE_INGEST_KEY" \
  -H "Content-Type: application/json" \
  -H "X-Webhook-Signature: sha256=$SIGNATURE" \
  -H "X-Webhook-Timestamp: $TIMESTAMP" \
  -d "$BODY"
