// Opens the page at / of a server in a browser, types a key, opens the stream "sales" and the history of its first item and prints what the page shows, again and again.
//
//     HOOKPOOL_SERVER=... HOOKPOOL_OPERATOR_KEY=... node console.mjs CHROMIUM
//
// It hands out the page as the server does, policy and all but for the script that looks, and passes everything else on. Ends, with the browser, on SIGTERM.
import { createHash } from 'node:crypto'
import http from 'node:http'
import { visit } from './browser.mjs'

const [chromium] = process.argv.slice(2)
const { HOOKPOOL_SERVER: server, HOOKPOOL_OPERATOR_KEY: key } = process.env

const look = `
document.getElementById('key').value = ${JSON.stringify(key)}
document.getElementById('form').requestSubmit()
setInterval(() => {
  if (!document.getElementById('stream').textContent) document.querySelector('#streams button')?.click()
  else if (!document.getElementById('item').textContent) document.querySelector('#items button')?.click()
  const text = [...document.querySelectorAll('section:not([hidden])')].map((section) => section.textContent).join(' ')
  fetch('/told', { method: 'POST', body: JSON.stringify(text + ' ' + [...document.querySelectorAll('table')].map((it) => it.id)) })
}, 300)`
const hash = createHash('sha256').update(look).digest('base64')

const site = http.createServer((request, answer) => {
  if (request.url === '/told') {
    let body = ''
    request.setEncoding('utf8')
    request.on('data', (text) => { body += text })
    request.on('end', () => {
      console.log(JSON.parse(body).replaceAll('\n', ' '))
      answer.writeHead(204).end()
    })
    return
  }
  const { authorization, accept } = request.headers
  const headers = { ...(authorization && { authorization }), ...(accept && { accept }) }
  http.get(server + request.url, { headers }, (from) => {
    const { 'content-type': type, 'content-security-policy': policy } = from.headers
    const own = { 'content-type': type, ...(policy && { 'content-security-policy': policy.replace('script-src', `script-src 'sha256-${hash}'`) }) }
    answer.writeHead(from.statusCode, own)
    from.pipe(answer, { end: request.url !== '/' })
    if (request.url === '/') from.on('end', () => answer.end(`<script>${look}</script>`))
  })
})

site.listen(0, '127.0.0.1', () => {
  process.on('SIGTERM', visit(chromium, `http://127.0.0.1:${site.address().port}/`))
})
