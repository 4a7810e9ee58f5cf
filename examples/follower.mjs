// Keeps a copy of a stream in memory, with the npm package eventsource, and prints it whenever it is that of a cursor.
//
//     npm install eventsource
//     HOOKPOOL_READ_KEY=rk_... node follower.mjs sales
//
// `hookpool reader add example --stream sales` prints the key; HOOKPOOL_SERVER is where the server is.
// JSON.parse keeps some 15 digits of a number; whoever needs more takes another parser.
import { EventSource } from 'eventsource'

const server = process.env.HOOKPOOL_SERVER ?? 'http://127.0.0.1:8080'
const key = process.env.HOOKPOOL_READ_KEY
const stream = process.argv[2] ?? 'sales'

const items = new Map()
let cursor = ''
let whole = false // not inside a snapshot or between two generations
let failures = 0

const handlers = {
  item: ({ itemId, fields }) => {
    whole = false
    items.set(itemId, fields)
  },
  'snapshot-end': () => (whole = true),
  change: ({ op, itemId, set, unset = [] }) => {
    if (op === 'delete') return items.delete(itemId)
    const fields = { ...items.get(itemId), ...set }
    for (const name of unset) delete fields[name]
    items.set(itemId, fields)
  },
  generation: () => (whole = false),
  bookmark: () => (whole = true),
  reset: () => {
    whole = false
    items.clear()
  },
}

function follow() {
  const url = new URL(`/api/streams/${encodeURIComponent(stream)}/changes`, server)
  if (cursor) url.searchParams.set('last_event_id', cursor)
  const source = new EventSource(url, {
    fetch: (input, init) =>
      fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${key}` } }),
  })
  // Without a cursor nothing can be resumed: a snapshot that was cut begins again.
  source.onopen = () => cursor || items.clear()
  for (const [event, handle] of Object.entries(handlers)) {
    source.addEventListener(event, ({ data, lastEventId }) => {
      failures = 0
      handle(JSON.parse(data))
      cursor = lastEventId
      if (whole) console.log(JSON.stringify({ cursor, items: Object.fromEntries(items) }))
    })
  }
  // A cut connection is made again by the package itself, but not one that was answered with an error.
  source.onerror = ({ code, message }) => {
    console.error(`cut: ${message ?? 'the connection was closed'}`)
    if (code === 401 || code === 404) process.exit(1)
    if (source.readyState !== EventSource.CLOSED) return
    const wait = Math.min(30_000, 1_000 * 2 ** failures++)
    setTimeout(follow, wait * (0.5 + Math.random() / 2))
  }
}

follow()
