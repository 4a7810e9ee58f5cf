// Follows a stream with the EventSource of a browser and prints each event as one line of JSON.
//
//     node chromium.mjs CHROMIUM URL TICKETS KEY
//
// It is the site that the page belongs to: hands out the page and tickets, which it gets from the server at TICKETS with a key that
// the browser never sees, and passes the stream on from URL, cut where that is cut. The page opens a stream with a ticket; its own
// retries end at the used ticket, and it goes on with another and its last id. Ends, with the browser, when its input does.
import http from 'node:http'
import { visit } from './browser.mjs'

const [chromium, url, tickets, key] = process.argv.slice(2)

const page = `<!doctype html><title>feed</title><script>
let lastId = ''
let told = Promise.resolve()
const tell = (what) => { told = told.then(() => fetch('/told', { method: 'POST', body: JSON.stringify(what) })) }

async function open() {
  const { ticket } = await (await fetch('/ticket', { method: 'POST' })).json()
  const place = lastId ? '&last_event_id=' + encodeURIComponent(lastId) : '&after=earliest'
  const source = new EventSource('/api/streams/feed/changes?ticket=' + ticket + place)
  for (const name of ['item', 'snapshot-end', 'change', 'bookmark', 'reset', 'goodbye']) {
    source.addEventListener(name, ({ lastEventId, data }) => {
      lastId = lastEventId
      tell({ event: name, id: lastEventId, data })
    })
  }
  source.onerror = () => {
    // Connecting is the browser's own retry; it is refused, since a ticket opens one connection.
    if (source.readyState === EventSource.CLOSED) open()
  }
}
open()
</script>`

async function ticket(answer) {
  const body = JSON.stringify({ streams: ['feed'], ttlSeconds: 30 })
  const response = await fetch(`${tickets}/api/tickets`, {
    method: 'POST', headers: { Authorization: `Bearer ${key}` }, body,
  })
  answer.writeHead(response.status, { 'Content-Type': 'application/json' }).end(await response.text())
}

function told(request, answer) {
  let body = ''
  request.setEncoding('utf8')
  request.on('data', (text) => { body += text })
  request.on('end', () => {
    console.log(body)
    answer.writeHead(204).end()
  })
}

function pass(request, answer) {
  const { 'last-event-id': lastId } = request.headers
  const headers = lastId ? { 'Last-Event-ID': lastId } : {}
  const upstream = http.get(url + request.url, { headers, agent: false }, (response) => {
    console.error(`${response.statusCode} ${request.url}`)
    answer.writeHead(response.statusCode, { 'Content-Type': response.headers['content-type'] })
    response.on('data', (bytes) => answer.write(bytes))
    response.on('end', () => answer.end())
    response.on('error', () => answer.destroy())
  })
  upstream.on('error', () => answer.destroy())
  answer.on('close', () => upstream.destroy())
}

const site = http.createServer((request, answer) => {
  if (request.url === '/') answer.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' }).end(page)
  else if (request.url === '/ticket') ticket(answer)
  else if (request.url === '/told') told(request, answer)
  else if (request.url.startsWith('/api/')) pass(request, answer)
  else answer.writeHead(404).end()
})

site.listen(0, '127.0.0.1', () => {
  const end = visit(chromium, `http://127.0.0.1:${site.address().port}/`)
  process.stdin.resume()
  process.stdin.on('end', end)
})
