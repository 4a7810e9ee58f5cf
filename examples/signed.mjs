// A signed delivery with Node and nothing else.
// Needs INSPIRE_INGEST_KEY and WEBHOOK_SIGNING_KEY; INSPIRE_URL is where the server is.
import { createHmac } from 'node:crypto'

const url = process.env.INSPIRE_URL ?? 'https://inspire.yourcompany.com'

const timestamp = Math.floor(Date.now() / 1000).toString()
const body = JSON.stringify({ region: 'North', sales: 142000 })
const signingKey = process.env.WEBHOOK_SIGNING_KEY

const signature = createHmac('sha256', signingKey)
  .update(`${timestamp}.${body}`)
  .digest('hex')

const response = await fetch(`${url}/api/webhook/sales`, {
  method: 'POST',
  headers: {
    Authorization: `Bearer ${process.env.INSPIRE_INGEST_KEY}`,
    'Content-Type': 'application/json',
    'X-Webhook-Signature': `sha256=${signature}`,
    'X-Webhook-Timestamp': timestamp,
  },
  body,
})

process.stdout.write(await response.text())
process.exitCode = response.status === 202 ? 0 : 1
