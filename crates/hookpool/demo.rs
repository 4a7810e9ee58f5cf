//! A server on a scratch folder, with connectors, sample events and the commands to try.

mod samples;

use std::env;

use anyhow::Context;
use hookpool_client::{
    Change, Consumer, CreatedConnector, Frame, NewConnector, Operator, Secret, Server, Start,
};
use hookpool_core::sign::signature;
use hookpool_engine::{clock::Clock, status::Status};
use tokio::task::JoinHandle;

use crate::{
    cli::DemoArgs,
    commands::items::one_line,
    config::{self, Settings, Sources},
    core_dumps,
    exit::{self, Exit},
    node::{self, Node},
    output,
};

/// Streams of the demo: the first takes unsigned deliveries, the others signed ones.
const SALES: &str = "sales";
const ORDERS: &str = "orders";
const BUILDS: &str = "builds";

pub(crate) async fn run(args: DemoArgs) -> anyhow::Result<Exit> {
    let defaults = defaults()?;
    core_dumps::limit(defaults.core_dumps)?;
    let stopped = node::interrupted()?;
    let listener = node::bind(args.listen).await?;
    let address = listener.local_addr()?;
    let scratch = tempfile::Builder::new()
        .prefix("hookpool-demo-")
        .tempdir()
        .context("a scratch folder can't be made")?;
    let settings = Settings {
        data_dir: scratch.path().join("data"),
        listen: address,
        ..defaults
    };
    let node = Node::open(&settings).await?;
    let operator_key = node
        .new_operator_key
        .clone()
        .context("a scratch folder makes an operator key")?;
    let url = format!("http://{address}");
    let show = show(
        url.clone(),
        operator_key,
        scratch.path().display().to_string(),
    );
    let tour = tokio::spawn(show);
    let interrupted = async {
        tokio::select! {
            () = stopped => {}
            () = ended(tour) => {}
        }
    };
    let status = Box::pin(node.serve(listener, None, &settings, url, interrupted)).await?;
    match status {
        Status::Ready | Status::Stopping => {
            output::say("stopped; the scratch folder is removed");
            Ok(Exit::Ok)
        }
        Status::Failed(reason) => anyhow::bail!(reason),
    }
}

/// The tour goes on until somebody has seen enough: Ctrl-C, or a reader of its output that has gone.
async fn ended(tour: JoinHandle<anyhow::Result<()>>) {
    match tour.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => drop(exit::explain(&error)),
        Err(error) => output::say(&format!("error: the demo broke off: {error}")),
    }
}

fn defaults() -> anyhow::Result<Settings> {
    Ok(config::layer(Sources::default())?.settings()?)
}

/// Everything that the demo does to its own server, over HTTP as anybody would.
async fn show(url: String, operator_key: Secret, scratch: String) -> anyhow::Result<()> {
    let server = Server::new(&url)?;
    let operator = Operator::new(server.clone(), operator_key);
    let sales = operator
        .add_connector(&connector(SALES, false, Some("region")))
        .await?;
    let orders = operator
        .add_connector(&connector(ORDERS, true, None))
        .await?;
    let builds = operator
        .add_connector(&connector(BUILDS, true, Some("build")))
        .await?;
    let reader = operator.add_reader("demo", &["*".to_owned()]).await?;
    output::line(&introduction(
        &url,
        &scratch,
        &sales,
        &orders,
        &reader.read_key,
    ))?;
    let producers: [(CreatedConnector, samples::Make); 3] = [
        (sales, samples::sale),
        (orders, samples::order),
        (builds, samples::build),
    ];
    for (connector, make) in producers {
        tokio::spawn(samples::flow(server.clone(), connector, make));
    }
    let consumer = Consumer::new(server, reader.read_key);
    let [sales, orders, builds] = [SALES, ORDERS, BUILDS].map(|stream| tail(&consumer, stream));
    tokio::try_join!(sales, orders, builds)?;
    Ok(())
}

fn connector(stream: &str, signed: bool, id_field: Option<&str>) -> NewConnector {
    NewConnector {
        stream: stream.to_owned(),
        signed,
        id_field: id_field.map(ToOwned::to_owned),
        ..NewConnector::default()
    }
}

fn introduction(
    url: &str,
    scratch: &str,
    sales: &CreatedConnector,
    orders: &CreatedConnector,
    read_key: &Secret,
) -> String {
    let program = env::args().next().unwrap_or_else(|| "hookpool".to_owned());
    let read = format!(
        "HOOKPOOL_SERVER={url} HOOKPOOL_READ_KEY={} {program}",
        read_key.expose()
    );
    format!(
        r#"listening on {url}
data in {scratch}, removed at the end

Send an event:

{}

Send a signed one (the signature is good for five minutes; sent twice it gets the same answer and makes one event):

{}

Watch a stream, or read its items as they are now:

{read} tail {ORDERS}
{read} items list {SALES}

Three producers send samples. Ctrl-C ends the demo.
"#,
        curl(
            sales,
            r#"{"region":"North","sales":142000,"target":130000}"#
        ),
        curl(
            orders,
            r#"{"id":"order-0","status":"paid","total":42.50,"customer":{"name":"You"}}"#
        ),
    )
}

/// A curl command with its signature, if it needs one, worked out.
fn curl(connector: &CreatedConnector, body: &str) -> String {
    let signed = connector.signing_key.as_ref().map(|key| {
        let timestamp = Clock::System.now().seconds();
        let signature = signature(key.expose(), timestamp, body.as_bytes());
        format!("\n  -H 'X-Webhook-Timestamp: {timestamp}' \\\n  -H 'X-Webhook-Signature: {signature}' \\")
    });
    format!(
        "curl -i -X POST '{}' \\\n  -H 'Authorization: Bearer {}' \\\n  -H 'Content-Type: application/json' \\{}\n  -d '{body}'",
        connector.url,
        connector.ingest_key.expose(),
        signed.unwrap_or_default(),
    )
}

/// Prints what happens in a stream from now on.
async fn tail(consumer: &Consumer, stream: &str) -> anyhow::Result<()> {
    let mut follower = consumer.follow(stream).start(Start::Now);
    while let Some(frame) = follower.next().await {
        if let Frame::Change(Change {
            position,
            item_id,
            set,
            ..
        }) = frame?
        {
            let line = format!(
                "{position:>6}  {stream:<7} {item_id:<12} {}",
                one_line(&set)
            );
            output::line(&output::printable_line(&line))?;
        }
    }
    Ok(())
}
