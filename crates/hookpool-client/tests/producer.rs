//! What a producer repeats, and what it leaves alone.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod support;

use std::{collections::BTreeSet, error::Error as _, net::SocketAddr, time::Duration};

use hookpool_client::{Backoff, Error, Producer, Retries, Scheme, Secret, Server};
use support::{ANY_PORT, Canned, answer, header, unserved};
use tokio::io::AsyncReadExt as _;

const BODY: &str = r#"{"region":"North","sales":142000}"#;

fn accepted() -> Vec<u8> {
    answer(
        "202 Accepted",
        "datapool-position: 42\r\nx-request-id: r1\r\ndatapool-notice: generated-id, duplicate-keys\r\n",
        r#"{"status":"accepted","itemId":"North","fieldsUpdated":2}"#,
    )
}

fn unavailable(headers: &str) -> Vec<u8> {
    answer(
        "503 Service Unavailable",
        headers,
        r#"{"status":503,"code":"UNAVAILABLE"}"#,
    )
}

fn producer(canned: &Canned) -> Producer {
    Producer::new(canned.server(), "sales", Secret::new("ik_a_b".to_owned())).retries(Retries {
        most: 3,
        backoff: Backoff {
            first: Duration::from_millis(5),
            longest: Duration::from_millis(5),
        },
        patience: Duration::from_secs(2),
    })
}

fn refused(status: &str, code: &str, headers: &str) -> Vec<u8> {
    answer(status, headers, &format!(r#"{{"code":"{code}"}}"#))
}

/// Keeps trying for a few seconds.
fn stubborn(addr: SocketAddr) -> Producer {
    let server = Server::new(&format!("http://{addr}")).unwrap();
    Producer::new(server, "sales", Secret::new("ik_a_b".to_owned())).retries(Retries {
        most: 100,
        backoff: Backoff {
            first: Duration::from_millis(20),
            longest: Duration::from_millis(20),
        },
        patience: Duration::from_secs(2),
    })
}

fn signed(canned: &Canned) -> Producer {
    producer(canned).signing_key(Secret::new("whsk_0123456789ab".to_owned()))
}

#[tokio::test]
async fn an_answer_is_read_from_body_and_headers() {
    let canned = Canned::start(|_, _| accepted()).await;
    let accepted = producer(&canned)
        .id_field("a b&c")
        .send(BODY)
        .await
        .unwrap();
    assert_eq!(accepted.item_id, "North");
    assert_eq!((accepted.fields_updated, accepted.position), (2, 42));
    assert_eq!(accepted.notices, ["generated-id", "duplicate-keys"]);
    assert_eq!(accepted.request_id.as_deref(), Some("r1"));
    assert!(!accepted.replayed);

    let request = &canned.requests()[0];
    assert!(
        request.starts_with("POST /api/webhook/sales?idField=a+b%26c HTTP/1.1"),
        "{request}"
    );
    assert!(request.ends_with(BODY));
    assert_eq!(header(request, "authorization"), Some("Bearer ik_a_b"));
    assert_eq!(header(request, "x-webhook-signature"), None);
}

#[tokio::test]
async fn a_signed_delivery_is_repeated_as_it_was_after_every_kind_of_cut() {
    let whole = accepted();
    // Cut everywhere in the first answer, the head included.
    for cut in 0..whole.len() {
        let whole = whole.clone();
        let canned = Canned::start(move |nth, _| match nth {
            0 => whole[..cut].to_vec(),
            _ => whole.clone(),
        })
        .await;
        let accepted = signed(&canned).send(BODY).await.unwrap();
        assert_eq!(accepted.position, 42);
        let requests = canned.requests();
        assert_eq!(requests.len(), 2, "cut at {cut}");
        for name in [
            "x-webhook-signature",
            "x-webhook-timestamp",
            "idempotency-key",
        ] {
            assert!(header(&requests[0], name).is_some());
            assert_eq!(header(&requests[0], name), header(&requests[1], name));
        }
    }
}

#[tokio::test]
async fn a_delivery_that_may_have_arrived_is_repeated_with_its_key() {
    let canned = Canned::start(|nth, _| match nth % 3 {
        0 => Vec::new(),
        1 => answer("502 Bad Gateway", "", "<html>"),
        _ => accepted(),
    })
    .await;
    let producer = producer(&canned);
    producer.send(BODY).await.unwrap();
    producer.send(BODY).await.unwrap();
    producer.send_as("a\"b\\c", BODY).await.unwrap();
    let requests = canned.requests();
    let keys: Vec<_> = requests
        .iter()
        .map(|request| header(request, "idempotency-key").unwrap())
        .collect();
    assert_eq!(keys.len(), 9);
    let keys: Vec<_> = keys
        .chunks(3)
        .map(|tries| {
            assert!(tries.iter().all(|key| *key == tries[0]), "{tries:?}");
            tries[0]
        })
        .collect();
    assert_ne!(keys[0], keys[1], "each event has a key of its own");
    assert_eq!(keys[2], r#""a\"b\\c""#);
}

#[tokio::test]
async fn a_delivery_that_is_never_answered_is_given_up() {
    let canned = Canned::start(|_, _| Vec::new()).await;
    let error = producer(&canned).send(BODY).await.unwrap_err();
    let Error::MayBeRecorded { last, .. } = error else {
        panic!("{error}");
    };
    let is_sent = matches!(*last, Error::Unreachable { sent: true, .. });
    assert!(is_sent, "{last}");
    assert_eq!(canned.requests().len(), 4);
}

#[tokio::test]
async fn a_first_try_that_is_still_in_flight_is_waited_for() {
    let canned = Canned::start(|nth, _| match nth {
        0 => answer(
            "409 Conflict",
            "retry-after: 1\r\n",
            r#"{"status":409,"code":"IDEMPOTENCY_IN_PROGRESS"}"#,
        ),
        _ => accepted(),
    })
    .await;
    let before = tokio::time::Instant::now();
    producer(&canned).send(BODY).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(1));
    let other = Canned::start(|_, _| answer("409 Conflict", "", r#"{"code":"CONFLICT"}"#)).await;
    producer(&other).send(BODY).await.unwrap_err();
    assert_eq!(other.requests().len(), 1);
}

#[tokio::test]
async fn overload_is_waited_out_as_long_as_the_server_asks() {
    let canned = Canned::start(|nth, _| match nth {
        0 => unavailable("retry-after: 1\r\n"),
        _ => accepted(),
    })
    .await;
    let before = tokio::time::Instant::now();
    producer(&canned).send(BODY).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(1));
    assert_eq!(canned.requests().len(), 2);
}

#[tokio::test]
async fn retries_are_bounded_in_number_and_in_patience() {
    let canned = Canned::start(|_, _| unavailable("")).await;
    let error = producer(&canned).send(BODY).await.unwrap_err();
    assert_eq!(error.problem().unwrap().code, "UNAVAILABLE");
    assert_eq!(canned.requests().len(), 4);

    for asked in [3600, u64::MAX] {
        let headers = format!("retry-after: {asked}\r\n");
        let canned = Canned::start(move |_, _| unavailable(&headers)).await;
        let producer = producer(&canned).retries(Retries {
            backoff: Backoff {
                first: Duration::from_secs(2),
                longest: Duration::from_secs(2),
            },
            ..Retries::default()
        });
        let error = producer.send(BODY).await.unwrap_err();
        assert_eq!(error.problem().unwrap().code, "UNAVAILABLE");
        assert_eq!(canned.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_refusal_is_final() {
    let canned =
        Canned::start(|_, _| answer("401 Unauthorized", "", r#"{"code":"UNAUTHORIZED"}"#)).await;
    let error = signed(&canned).send(BODY).await.unwrap_err();
    assert_eq!(error.problem().unwrap().status, 401);
    assert_eq!(canned.requests().len(), 1);
}

/// The key that an unknown outcome names.
#[track_caller]
fn key_of(error: &Error) -> &str {
    match error {
        Error::MayBeRecorded {
            idempotency_key, ..
        } => idempotency_key,
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_unknown_outcome_names_the_key_that_all_tries_had() {
    let silence: [fn() -> Vec<u8>; 3] = [
        Vec::new,
        || unavailable(""),
        || answer("202 Accepted", "", "<html>"),
    ];
    for answer in silence {
        let canned = Canned::start(move |_, _| answer()).await;
        let producer = producer(&canned).retries(Retries {
            most: 1,
            ..Retries::default()
        });
        let sent = producer.send(BODY).await.unwrap_err();
        let deleted = producer.delete("1").await.unwrap_err();
        let ingested = producer.ingest(BODY).await.unwrap_err();
        let quoted = |error: &Error| {
            assert!(error.source().is_none(), "its text has the last try");
            format!("\"{}\"", key_of(error))
        };
        let keys: BTreeSet<_> = [sent, deleted, ingested].iter().map(quoted).collect();
        let requests = canned.requests();
        let tried = |request: &String| header(request, "idempotency-key").unwrap().to_owned();
        assert_eq!(keys.len(), 3);
        assert_eq!(keys, requests.iter().map(tried).collect());
    }
}

#[tokio::test]
async fn a_refusal_after_a_try_that_may_have_arrived_leaves_the_outcome_unknown() {
    let unknown: [fn() -> Vec<u8>; 4] = [
        Vec::new,
        || unavailable(""),
        || answer("502 Bad Gateway", "", "<html>"),
        || refused("409 Conflict", "IDEMPOTENCY_IN_PROGRESS", ""),
    ];
    let refusals: [fn() -> Vec<u8>; 4] = [
        || refused("401 Unauthorized", "UNAUTHORIZED", ""),
        || refused("401 Unauthorized", "TIMESTAMP_OUT_OF_RANGE", ""),
        || refused("413 Payload Too Large", "PAYLOAD_TOO_LARGE", ""),
        || {
            let headers = "retry-after: 3600\r\n";
            refused("429 Too Many Requests", "RATE_LIMITED", headers)
        },
    ];
    for first in unknown {
        for last in refusals {
            let canned = Canned::start(move |nth, _| if nth == 0 { first() } else { last() }).await;
            let error = producer(&canned).send_as("k\"1", BODY).await.unwrap_err();
            assert_eq!(canned.requests().len(), 2, "{error}");
            assert!(error.outcome_is_unknown(), "{error}");
            assert!(error.to_string().contains("key k\"1;"), "{error}");
            let status = error.problem().map(|refusal| refusal.status);
            assert!(matches!(status, Some(401 | 413 | 429)), "{error}");
            assert_eq!(key_of(&error), "k\"1");
        }
    }
}

#[tokio::test]
async fn a_rate_limit_is_waited_out_only_after_a_try_that_may_have_arrived() {
    let limited = || {
        refused(
            "429 Too Many Requests",
            "RATE_LIMITED",
            "retry-after: 1\r\n",
        )
    };
    let canned = Canned::start(move |nth, _| match nth {
        0 => Vec::new(),
        1 => limited(),
        _ => accepted(),
    })
    .await;
    let before = tokio::time::Instant::now();
    producer(&canned).send(BODY).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(1));
    let keys = canned.requests();
    let keys = keys.iter().map(|it| header(it, "idempotency-key").unwrap());
    let keys: Vec<_> = keys.collect();
    assert!(keys.len() == 3 && keys.iter().all(|key| *key == keys[0]));

    let canned = Canned::start(move |_, _| limited()).await;
    let error = producer(&canned).send(BODY).await.unwrap_err();
    assert!(matches!(error, Error::Problem(_)), "{error}");
    assert!(!error.outcome_is_unknown());
    assert_eq!(canned.requests().len(), 1);
}

#[tokio::test]
async fn a_dry_run_is_never_recorded_whatever_became_of_it() {
    let canned = Canned::start(|nth, _| match nth {
        0 => Vec::new(),
        _ => refused("401 Unauthorized", "UNAUTHORIZED", ""),
    })
    .await;
    let error = producer(&canned).dry_run(BODY).await.unwrap_err();
    assert!(matches!(error, Error::Problem(_)), "{error}");
}

#[tokio::test]
async fn a_refusal_after_tries_that_reached_nobody_is_a_refusal() {
    let socket = unserved(ANY_PORT);
    let producer = stubborn(socket.local_addr().unwrap());
    let server = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let refusal = || refused("401 Unauthorized", "UNAUTHORIZED", "");
        Canned::start_on(socket.listen(8).unwrap(), move |_, _| refusal())
    };
    let (error, canned) = tokio::join!(producer.send(BODY), server);
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Problem(_)), "{error}");
    assert!(!error.outcome_is_unknown());
    assert_eq!(canned.requests().len(), 1);
}

#[tokio::test]
async fn nobody_left_after_a_try_that_may_have_arrived_leaves_the_outcome_unknown() {
    let keeps_the_port = unserved(ANY_PORT);
    let addr = keeps_the_port.local_addr().unwrap();
    let listener = unserved(addr).listen(1).unwrap();
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        // Gone before the first try is, so that the next one reaches nobody.
        drop(listener);
        let _ = socket.read(&mut [0; 4096]).await.unwrap();
    };
    let retries = Retries {
        most: 2,
        ..Retries::default()
    };
    let producer = stubborn(addr).retries(retries);
    let (sent, ()) = tokio::join!(producer.send(BODY), serve);
    let error = sent.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.outcome_is_unknown(), "{error}");
    let Error::MayBeRecorded { last, .. } = error else {
        panic!("{error}");
    };
    assert!(matches!(*last, Error::Unreachable { sent: false, .. }));
}

#[tokio::test]
async fn a_signature_is_made_anew_when_half_of_its_window_is_over() {
    let scheme = r#"{"header":"x-sig","template":"{id}.{timestamp}.{body}","timestampHeader":"x-time","deliveryHeader":"x-id","tolerance":10}"#;
    let scheme: Scheme = serde_json::from_str(scheme).unwrap();
    let canned = Canned::start(move |nth, _| match nth {
        // Into another second, and far from half of the window, which is over after the second wait.
        0 => unavailable("retry-after: 1\r\n"),
        1 => unavailable("retry-after: 5\r\n"),
        _ => accepted(),
    })
    .await;
    let retries = Retries {
        patience: Duration::from_secs(10),
        ..Retries::default()
    };
    let producer = signed(&canned).scheme(scheme).retries(retries);
    producer.send(BODY).await.unwrap();
    let requests = canned.requests();
    let of = |name| -> Vec<_> {
        let values = requests
            .iter()
            .map(|request| header(request, name).unwrap());
        values.collect()
    };
    for name in ["x-time", "x-sig"] {
        let values = of(name);
        assert_eq!(values[0], values[1], "{name}");
        assert_ne!(values[0], values[2], "{name}");
    }
    for name in ["x-id", "idempotency-key"] {
        assert_eq!(of(name), [of(name)[0]; 3], "{name}");
    }
}

#[tokio::test]
async fn a_signature_that_became_too_old_on_the_way_is_made_anew_once() {
    let late = || {
        let headers = "retry-after: 1\r\n";
        refused("401 Unauthorized", "TIMESTAMP_OUT_OF_RANGE", headers)
    };
    let canned = Canned::start(move |nth, _| match nth {
        0 => Vec::new(),
        1 => late(),
        _ => accepted(),
    })
    .await;
    signed(&canned).send(BODY).await.unwrap();
    let requests = canned.requests();
    assert_eq!(requests.len(), 3);
    let time = |nth: usize| header(&requests[nth], "x-webhook-timestamp").unwrap();
    assert_eq!(time(0), time(1));
    assert_ne!(time(1), time(2));

    // A clock that is wrong is no matter of age.
    let canned = Canned::start(move |_, _| late()).await;
    let error = signed(&canned).send(BODY).await.unwrap_err();
    assert!(matches!(error, Error::Problem(_)), "{error}");
    assert_eq!(canned.requests().len(), 1);
    let canned = Canned::start(move |nth, _| if nth == 0 { Vec::new() } else { late() }).await;
    let error = signed(&canned).send(BODY).await.unwrap_err();
    assert!(error.outcome_is_unknown(), "{error}");
    assert_eq!(canned.requests().len(), 3);
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let canned =
        Canned::start(|_, _| answer("307 Temporary Redirect", "location: /elsewhere\r\n", ""))
            .await;
    let error = producer(&canned).send(BODY).await.unwrap_err();
    assert_eq!(error.problem().unwrap().status, 307);
    assert_eq!(canned.requests().len(), 1);
}

#[tokio::test]
async fn nobody_listening_is_unreachable_and_nothing_was_sent() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let server = Server::new(&url).unwrap();
    let producer =
        Producer::new(server, "sales", Secret::new("ik_a_b".to_owned())).retries(Retries {
            most: 0,
            ..Retries::default()
        });
    let error = producer.send(BODY).await.unwrap_err();
    assert!(
        matches!(error, Error::Unreachable { sent: false, .. }),
        "{error}"
    );
    assert!(error.to_string().contains(&url), "{error}");
}

#[tokio::test]
async fn lines_are_one_request_that_is_repeated_with_its_key_and_a_refusal_names_the_line() {
    let canned = Canned::start(|nth, _| match nth {
        0 => Vec::new(),
        1 => answer(
            "202 Accepted",
            "datapool-position: 42\r\nidempotency-replayed: true\r\n",
            r#"{"status":"accepted","requestId":"r1","itemsReceived":2}"#,
        ),
        _ => answer(
            "400 Bad Request",
            "",
            r#"{"code":"INVALID_PAYLOAD","line":7}"#,
        ),
    })
    .await;
    let producer = signed(&canned).id_field("a b");
    let lines = "{\"a\":1}\n{\"a\":2}\n";
    let ingested = producer.ingest_as("k", lines).await.unwrap();
    assert_eq!((ingested.items_received, ingested.position), (2, 42));
    assert_eq!(ingested.request_id, "r1");
    assert!(ingested.replayed);
    let error = producer.ingest(lines).await.unwrap_err();
    assert_eq!(error.problem().unwrap().line, Some(7));
    let requests = canned.requests();
    assert_eq!(requests.len(), 3);
    let start = "POST /api/ingest?stream=sales&idField=a+b HTTP/1.1";
    assert!(requests[0].starts_with(start), "{}", requests[0]);
    assert!(requests[0].ends_with(lines));
    let media_type = header(&requests[0], "content-type");
    assert_eq!(media_type, Some("application/x-ndjson"));
    assert_eq!(header(&requests[0], "idempotency-key"), Some("\"k\""));
    for name in ["idempotency-key", "x-webhook-signature"] {
        assert_eq!(header(&requests[0], name), header(&requests[1], name));
    }
}

#[tokio::test]
async fn a_deletion_names_the_item_in_its_path_and_is_signed_over_nothing() {
    let canned = Canned::start(|_, _| {
        answer(
            "202 Accepted",
            "datapool-position: 43\r\n",
            r#"{"status":"accepted","itemId":"a/b"}"#,
        )
    })
    .await;
    let deleted = signed(&canned).delete("a/b").await.unwrap();
    assert_eq!((deleted.item_id.as_str(), deleted.position), ("a/b", 43));
    let request = &canned.requests()[0];
    let line = request.lines().next().unwrap();
    assert_eq!(line, "DELETE /api/streams/sales/items/a%2Fb HTTP/1.1");
    assert!(header(request, "x-webhook-signature").is_some());
}

#[tokio::test]
async fn a_dry_run_asks_and_reads_what_would_happen() {
    let told = r#"{"status":"dry-run","itemId":null,"generatedId":true,"fieldsUpdated":1,"projection":2,"quarantine":null,"changes":{"itemId":"1","set":{"n":1.0},"unset":[]}}"#;
    let canned = Canned::start(move |_, _| answer("200 OK", "", told)).await;
    let rehearsal = producer(&canned).dry_run(BODY).await.unwrap();
    assert_eq!(serde_json::to_string(&rehearsal).unwrap(), told);
    let request = &canned.requests()[0];
    let line = request.lines().next().unwrap();
    assert_eq!(line, "POST /api/webhook/sales?dryRun=true HTTP/1.1");
}
