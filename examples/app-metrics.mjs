// A service reports its numbers; the item is keyed by the service's name.
// Needs INSPIRE_INGEST_KEY; INSPIRE_URL is where the server is.
const url = process.env.INSPIRE_URL ?? 'https://inspire.yourcompany.com'

const response = await fetch(`${url}/api/webhook/app-metrics?idField=service`, {
  method: 'POST',
  headers: {
    Authorization: `Bearer ${process.env.INSPIRE_INGEST_KEY}`,
    'Content-Type': 'application/json',
  },
  body: JSON.stringify({
    service: 'api-gateway',
    requestsPerMinute: 340,
    errorRate: 0.02,
  }),
})

process.stdout.write(await response.text())
process.exitCode = response.status === 202 ? 0 : 1
