// Follows a stream with the npm package eventsource and prints each event as one line of JSON.
//
//     node follow.mjs URL KEY
//
// The package opens a cut connection again with the last id, for ever.
// HOOKPOOL_NODE_MODULES says where the package is.
import { createRequire } from 'node:module'

const require = createRequire(`${process.env.HOOKPOOL_NODE_MODULES}/`)
const { EventSource } = require('eventsource')

const [url, key] = process.argv.slice(2)

const source = new EventSource(url, {
  fetch: (input, init) =>
    fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${key}` } }),
})

source.onerror = (error) => console.error(`cut: ${error.message ?? error.code ?? 'closed'}`)

for (const name of ['item', 'snapshot-end', 'change', 'bookmark', 'reset', 'goodbye']) {
  source.addEventListener(name, ({ lastEventId, data }) => {
    console.log(JSON.stringify({ event: name, id: lastEventId, data }))
  })
}
