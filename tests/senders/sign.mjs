// Signs a body with an npm package and prints the headers as one line of JSON.
//
//     node sign.mjs @octokit/webhooks-methods|standardwebhooks|svix|stripe KEY ID BODY
//
// Has to lie beside the packages, since some of them are only to be imported.
const [name, key, id, body] = process.argv.slice(2)
const now = new Date()
const seconds = String(Math.floor(now.getTime() / 1000))

const senders = {
  async '@octokit/webhooks-methods'() {
    const { sign } = await import('@octokit/webhooks-methods')
    return { 'X-GitHub-Delivery': id, 'X-Hub-Signature-256': await sign(key, body) }
  },

  async standardwebhooks() {
    const { Webhook } = await import('standardwebhooks')
    const signature = new Webhook(key).sign(id, now, body)
    return { 'webhook-id': id, 'webhook-timestamp': seconds, 'webhook-signature': signature }
  },

  async svix() {
    const { Webhook } = await import('svix')
    const signature = new Webhook(key).sign(id, now, body)
    return { 'webhook-id': id, 'webhook-timestamp': seconds, 'webhook-signature': signature }
  },

  async stripe() {
    const { default: Stripe } = await import('stripe')
    const stripe = new Stripe('sk_test_x')
    const header = stripe.webhooks.generateTestHeaderString({ payload: body, secret: key })
    return { 'Stripe-Signature': header }
  },
}

console.log(JSON.stringify(await senders[name]()))
