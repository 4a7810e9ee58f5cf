// Follows a stream with an npm package and prints each event as one line of JSON.
//
//     node follow.mjs eventsource|eventsource-client|@microsoft/fetch-event-source URL KEY
//
// Each opens a cut connection again with the last id, for ever.
// HOOKPOOL_NODE_MODULES says where the packages are.
import { createRequire } from 'node:module'

const require = createRequire(`${process.env.HOOKPOOL_NODE_MODULES}/`)

const [name, url, key] = process.argv.slice(2)
const pack = require(name)
const headers = { Authorization: `Bearer ${key}` }

const print = (event, id, data) => console.log(JSON.stringify({ event, id, data }))
const cut = (error) => console.error(`cut: ${error?.message ?? error?.code ?? 'closed'}`)

const followers = {
  eventsource() {
    const source = new pack.EventSource(url, {
      fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }),
    })
    source.onerror = cut
    for (const name of ['item', 'snapshot-end', 'change', 'bookmark', 'reset', 'goodbye']) {
      source.addEventListener(name, ({ lastEventId, data }) => print(name, lastEventId, data))
    }
  },

  'eventsource-client'() {
    pack.createEventSource({
      url,
      headers,
      onMessage: ({ event, id, data }) => print(event, id, data),
      onDisconnect: cut,
    })
  },

  // Made for browsers: it asks for a page, which is never hidden here.
  '@microsoft/fetch-event-source'() {
    globalThis.window = globalThis
    globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} }
    let lastId
    pack.fetchEventSource(url, {
      headers: { ...headers },
      openWhenHidden: true,
      // The package takes an id when it reads its line, also when the frame is never whole.
      fetch(input, init) {
        const { 'last-event-id': _early, ...others } = init.headers
        return fetch(input, { ...init, headers: lastId ? { ...others, 'last-event-id': lastId } : others })
      },
      onmessage({ event, id, data }) {
        lastId = id || lastId
        print(event, id, data)
      },
      onclose() {
        throw new Error('the server has closed')
      },
      onerror(error) {
        cut(error)
        return 20
      },
    })
  },
}

followers[name]()
