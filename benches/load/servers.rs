//! Both servers as processes of their own, on a scratch folder.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
};

use hookpool_client::{Consumer, NewConnector, Operator, Secret, Server};

use crate::{bare, client::Keys};

pub(crate) struct Servers {
    pub(crate) bare: SocketAddr,
    pub(crate) hookpool: SocketAddr,
    pub(crate) keys: Keys,
    children: [Child; 2],
    folder: tempfile::TempDir,
}

impl Servers {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let (bare_child, bare) =
            listening(Command::new(std::env::current_exe().unwrap()).arg(bare::ARGUMENT));
        let mut serve = Command::new(env!("CARGO_BIN_EXE_hookpool"));
        serve
            .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(&data);
        let (hookpool_child, hookpool) =
            listening(serve.env("RUST_LOG", "warn").stderr(Stdio::null()));
        let operator_key = std::fs::read_to_string(data.join("operator.key")).unwrap();
        let keys = connector(hookpool, Secret::new(operator_key.trim().to_owned()));
        Self {
            bare,
            hookpool,
            keys,
            children: [bare_child, hookpool_child],
            folder,
        }
    }

    /// Every answer was an event, and the pool has taken them all.
    pub(crate) fn check(&mut self, answers: u64) {
        let key = std::fs::read_to_string(self.folder.path().join("data/operator.key")).unwrap();
        let consumer = Consumer::new(server(self.hookpool), Secret::new(key.trim().to_owned()));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            wait_applied(self.hookpool, answers).await;
            assert_eq!(consumer.streams().await.unwrap().len(), 1);
        });
    }
}

/// Waits until the pool has all of a log that has at least so many events.
pub(crate) async fn wait_applied(address: SocketAddr, events: u64) {
    for _ in 0..600 {
        let ready = server(address).ready().await.unwrap();
        assert!(
            ready.position >= events,
            "{} events of {events}",
            ready.position
        );
        if ready.applied == ready.position {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the pool did not catch up within a minute");
}

impl Drop for Servers {
    fn drop(&mut self) {
        for child in &mut self.children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

pub(crate) fn listening(command: &mut Command) -> (Child, SocketAddr) {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let address = line
        .trim()
        .strip_prefix("listening on http://")
        .unwrap()
        .parse()
        .unwrap();
    (child, address)
}

pub(crate) fn server(address: SocketAddr) -> Server {
    Server::new(&format!("http://{address}")).unwrap()
}

pub(crate) fn connector(address: SocketAddr, operator_key: Secret) -> Keys {
    let operator = Operator::new(server(address), operator_key);
    let new = NewConnector {
        stream: "load".into(),
        signed: true,
        id_field: Some("region".into()),
        ..NewConnector::default()
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let made = runtime.block_on(operator.add_connector(&new)).unwrap();
    Keys {
        ingest: made.ingest_key.expose().to_owned(),
        signing: made.signing_key.unwrap().expose().to_owned(),
    }
}
