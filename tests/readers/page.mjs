// Opens examples/browser.html in a browser and prints each whole copy that it holds: `{"cursor":..., "items":{...}}`.
//
//     HOOKPOOL_SERVER=... HOOKPOOL_READ_KEY=... node page.mjs CHROMIUM PAGE PORT STREAM
//
// It hands out the page as it is, with a script behind it that only looks; the page asks the server by itself, which has to name
// http://127.0.0.2:PORT as an origin. Ends, with the browser, on SIGTERM.
import { readFileSync } from 'node:fs'
import http from 'node:http'
import { visit } from './browser.mjs'

const [chromium, page, port, stream] = process.argv.slice(2)
const { HOOKPOOL_SERVER: server, HOOKPOOL_READ_KEY: key } = process.env

const look = `<script>
let told = Promise.resolve(), last = ''
setInterval(() => {
  const { items, cursor, whole } = window.follower?.copy ?? {}
  if (!whole || !cursor || cursor === last) return
  last = cursor
  const body = JSON.stringify({ cursor, items: Object.fromEntries(items) })
  told = told.then(() => fetch('/told', { method: 'POST', body }))
}, 10)
</script>`

const site = http.createServer((request, answer) => {
  if (request.url.startsWith('/?')) {
    answer.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8' }).end(readFileSync(page, 'utf8') + look)
  } else if (request.url === '/told') {
    let body = ''
    request.setEncoding('utf8')
    request.on('data', (text) => { body += text })
    request.on('end', () => {
      console.log(body)
      answer.writeHead(204).end()
    })
  } else {
    answer.writeHead(404).end()
  }
})

site.listen(Number(port), '127.0.0.2', () => {
  const query = new URLSearchParams({ server, stream })
  process.on('SIGTERM', visit(chromium, `http://127.0.0.2:${port}/?${query}#${new URLSearchParams({ key })}`))
})
