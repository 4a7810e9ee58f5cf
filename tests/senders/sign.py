"""Signs a body with Python and prints the headers as one line of JSON.

python sign.py standardwebhooks|slack|shopify KEY ID BODY
"""

import base64
import datetime
import hashlib
import hmac
import json
import sys
import time


def standardwebhooks(key, id, body):
    from standardwebhooks import Webhook

    now = datetime.datetime.now(tz=datetime.timezone.utc)
    signature = Webhook(key).sign(id, now, body)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": signature,
    }


def slack(key, _id, body):
    """As api.slack.com/authentication/verifying-requests-from-slack shows it."""
    timestamp = str(int(time.time()))
    basestring = f"v0:{timestamp}:{body}".encode()
    digest = hmac.new(key.encode(), basestring, hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": f"v0={digest}"}


def shopify(key, id, body):
    """As shopify.dev shows it for the verification of deliveries."""
    digest = hmac.new(key.encode(), body.encode(), digestmod=hashlib.sha256).digest()
    return {"X-Shopify-Event-Id": id, "X-Shopify-Hmac-Sha256": base64.b64encode(digest).decode()}


sender, key, id, body = sys.argv[1:]
print(json.dumps(globals()[sender](key, id, body)))
